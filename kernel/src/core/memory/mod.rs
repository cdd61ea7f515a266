//! The worker's pool as memory: frames, pages, and who has which.
//!
//! The worker places entries itself, cell by cell. The kernel accounts for them by pages, and always for at least
//! as many as there are: of each page, all owners but one only read what it held when it was shared, so the cells
//! behind a page never exceed its frame. A context that writes into a page with other owners takes a frame of its
//! own first.
//!
//! What a context needs beyond what is free comes, in this order, from contexts that do not run (least recently
//! used first), and from running ones that come after it: those of a lower class, or, where it is resident itself
//! and only grows, those whose generation began later. Otherwise it waits. The context whose generation is first
//! of all can take from every other, so somebody always gets on, and a context that cannot have enough although
//! it is alone is larger than the pool.

mod asid;
mod frame;
mod reclaim;
mod residency;

use std::collections::{BTreeMap, BTreeSet};

use drivers::wire::{ModelDescription, PAGE_TOKENS};
use syscalls::ContextId;

use super::call::CallNo;

pub(super) use asid::{Asids, Lease};
pub(super) use frame::{PageRef, Pool};
pub(super) use reclaim::{Reach, Room};
pub(super) use residency::Kin;

/// The part of the pool that a context has.
#[derive(Debug)]
pub(super) struct Resident {
    pub lease: Lease,
    /// Entries in the pool: those of the first so many tokens of the log.
    pub computed: u32,
    /// Pages for at least these entries.
    pub pages: Vec<PageRef>,
    /// The generation that the worker has a sampler for.
    pub sampler: Option<CallNo>,
}

impl Resident {
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
    /// The resident contexts, by family.
    pub families: BTreeMap<ContextId, BTreeSet<ContextId>>,
}

impl Memory {
    /// The empty memory of a worker that has just started.
    pub(super) fn new(description: &ModelDescription) -> Self {
        Memory {
            pool: Pool::new(description.pool_tokens),
            asids: Asids::new(description.sequences),
            ranges: description.ranges,
            families: BTreeMap::new(),
        }
    }

    /// Frames that a context lacks before `length` entries of it can be in the pool.
    pub(super) fn lacks(&self, resident: &Resident, length: u32) -> u32 {
        let copies = resident.partial_page().is_some_and(|page| self.pool.is_shared(page));
        let more = length.div_ceil(PAGE_TOKENS).saturating_sub(resident.pages.len() as u32);
        more + u32::from(copies && length > resident.computed)
    }

    /// Takes the frames that a context lacks; the caller has seen that they are free.
    pub(super) fn fill(&mut self, resident: &mut Resident, length: u32) {
        let partial = (resident.computed / PAGE_TOKENS) as usize;
        if resident.partial_page().is_some_and(|page| self.pool.is_shared(page)) && length > resident.computed
        {
            let copy = self.pool.allocate().expect("the caller has seen that a frame is free");
            let shared = std::mem::replace(&mut resident.pages[partial], copy);
            self.pool.release(shared);
        }
        while (resident.pages.len() as u32) < length.div_ceil(PAGE_TOKENS) {
            let page = self.pool.allocate().expect("the caller has seen that frames are free");
            resident.pages.push(page);
        }
    }
}
