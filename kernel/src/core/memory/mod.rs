//! The worker's pool as memory: frames, pages, who has which, and where pages go that must leave it.
//!
//! The worker places entries itself, cell by cell. The kernel accounts for them by pages, and always for at least
//! as many as there are: of each page, all owners but one only read what it held when it was shared, so the cells
//! behind a page never exceed its frame. A context that writes into a page with other owners takes a frame of its
//! own first.
//!
//! **Who has what.** A sequence in the pool belongs to a context, or to a *remnant*: what a closed context has
//! left. The [`Tree`] finds sequences by the tokens that they hold. A context that comes into memory, and one that
//! has a prompt to compute, shares what another sequence has of it, loads what is saved, waits for what another
//! context is computing already, and computes the rest (`page_in.rs`).
//!
//! **Who gives.** What a context needs beyond what is free comes, in this order, from remnants and contexts that do
//! not run, page by page from their ends, and from running ones that come after it: those of a lower class, or,
//! where it is resident itself and only grows, those whose generation began later. Otherwise it waits. The context
//! whose generation is first of all can take from every other, so somebody always gets on. What fails at last, and
//! who is pushed out where the worker has less than it said, stands in `shortage.rs`.
//!
//! **Where it goes.** A page whose last owner gives it up is saved in a slot of the host tier, and from there goes
//! to the disk tier ([`Slots`]). That is a cache: the log is the truth, so a page that could not be saved, is found
//! damaged, or costs more to load than to compute, is computed again. Pages of what outlives the daemon are written to
//! the disk tier ahead of that (`write_behind.rs`), and the next daemon finds them there (`claim.rs`).

mod asid;
mod claim;
mod digest;
mod evict;
mod found;
mod frame;
mod page_in;
mod paging;
mod reclaim;
mod remnant;
mod report;
mod residency;
mod rivals;
mod shortage;
mod slots;
mod tier;
mod tree;
mod victim;
mod write_behind;

use std::collections::{BTreeMap, BTreeSet};

use drivers::wire::{ModelDescription, PAGE_TOKENS};
use syscalls::ContextId;

use super::call::CallNo;

pub(super) use asid::{Asids, Lease};
pub(super) use frame::{PageRef, Pool};
pub(super) use page_in::{Outlook, PageIn};
pub(super) use paging::{PageSent, PagingCost, loading};
pub(super) use reclaim::{Behind, Reach, Room};
pub(super) use remnant::Remnant;
pub(super) use shortage::{Shortage, oom_score};
pub(super) use slots::Slots;
pub(super) use tier::Budget;
pub(super) use tree::{NodeId, Root, Space, Tree};
pub(super) use write_behind::{Beside, WriteBehind};

/// The part of the pool that a sequence has.
#[derive(Debug)]
pub(super) struct Resident {
    pub lease: Lease,
    /// Entries in the pool: those of the first so many tokens of the log.
    pub computed: u32,
    /// Pages for at least these entries.
    pub pages: Vec<PageRef>,
    /// The generation that the worker has a sampler for.
    pub sampler: Option<CallNo>,
    /// The tree's nodes of the whole pages that it has, and behind them those that it is to compute.
    pub path: Vec<NodeId>,
    /// So many of the path it has.
    pub held: u32,
    /// The node that lists it as a tail, and the end of the path that this stands for.
    pub tail: Option<(NodeId, Option<NodeId>)>,
}

impl Resident {
    /// A sequence with these pages, that the tree does not know yet.
    pub(super) fn new(lease: Lease, computed: u32, pages: Vec<PageRef>) -> Self {
        Resident { lease, computed, pages, sampler: None, path: Vec::new(), held: 0, tail: None }
    }

    /// Forgets its place in a tree that has forgotten it.
    pub(super) fn forget_nodes(&mut self) {
        self.path.clear();
        self.held = 0;
        self.tail = None;
    }

    /// The page that the next entry goes into, if it holds entries already.
    fn partial_page(&self) -> Option<&PageRef> {
        if self.computed.is_multiple_of(PAGE_TOKENS) {
            return None;
        }
        self.pages.get((self.computed / PAGE_TOKENS) as usize)
    }
}

/// The memory of one worker.
#[derive(Debug)]
pub(super) struct Memory {
    pub pool: Pool,
    pub asids: Asids,
    /// Parts of sequences can be dropped and shared.
    pub ranges: bool,
    /// What closed contexts have left, numbered like contexts.
    pub remnants: BTreeMap<ContextId, Remnant>,
    /// The remnants, those that nobody published first, and among these the one used longest ago.
    pub aged: BTreeSet<(bool, u64, ContextId)>,
}

impl Memory {
    /// The empty memory of a worker that has just started.
    pub(super) fn new(description: &ModelDescription) -> Self {
        Memory {
            pool: Pool::new(description.pool_tokens),
            asids: Asids::new(description.sequences),
            ranges: description.ranges,
            remnants: BTreeMap::new(),
            aged: BTreeSet::new(),
        }
    }

    /// Frames that a context lacks before `length` entries of it can be in the pool.
    pub(super) fn lacks(&self, resident: &Resident, length: u32) -> u32 {
        let copies = resident.partial_page().is_some_and(|page| self.pool.is_shared(page));
        let more = length.div_ceil(PAGE_TOKENS).saturating_sub(resident.pages.len() as u32);
        more + u32::from(copies && length > resident.computed)
    }

    /// Takes the frames that a context of a user lacks; the caller has seen that they are free.
    pub(super) fn fill(&mut self, resident: &mut Resident, length: u32, uid: u32) {
        let partial = (resident.computed / PAGE_TOKENS) as usize;
        if resident.partial_page().is_some_and(|page| self.pool.is_shared(page)) && length > resident.computed
        {
            let copy = self.pool.allocate(uid).expect("the caller has seen that a frame is free");
            let shared = std::mem::replace(&mut resident.pages[partial], copy);
            self.pool.release(shared);
        }
        while (resident.pages.len() as u32) < length.div_ceil(PAGE_TOKENS) {
            let page = self.pool.allocate(uid).expect("the caller has seen that frames are free");
            resident.pages.push(page);
        }
    }

    /// Gives back what remnants have, when the worker is gone.
    pub(super) fn forget_remnants(&mut self) {
        self.aged.clear();
        for (_, remnant) in std::mem::take(&mut self.remnants) {
            remnant.resident.pages.into_iter().for_each(|page| self.pool.release(page));
            self.asids.give_back(remnant.resident.lease);
        }
    }

    /// Frames that remnants alone have.
    pub(super) fn frames_cached(&self) -> u32 {
        let pages = self.remnants.values().flat_map(|r| &r.resident.pages);
        self.pool.owned_alone(pages)
    }
}
