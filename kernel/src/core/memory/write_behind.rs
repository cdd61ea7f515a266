//! Writing pages to the disk tier before anybody needs their frames, so that they outlive the daemon: those of contexts
//! of persistent processes, of snapshots and of segments.
//!
//! Sequences that have got whole pages stand in a queue, each with the page that is looked at next. A page that is on
//! disk is passed over, one in the host tier is moved, and one that is in the pool alone is saved. All that costs a step
//! time: beside rows no more than a [`SHARE`] of what steps take, and without rows no longer than whoever comes then
//! should wait. Pages that are cheaper to compute than to load are not written. Each page is tried once; what did not
//! get there is saved when its frame is taken, or computed again.

use std::collections::BTreeMap;

use drivers::wire::{Op, PAGE_TOKENS, Slot};
use syscalls::ContextId;

use super::super::Kernel;
use super::super::event::{ModelId, Now};
use super::super::model::Model;
use super::paging::PageSent;
use super::tier::TierName;
use super::tree::{NodeId, Saved};

/// Steps give one part in so many of their time to it.
const SHARE: u64 = 50;

/// The most that is saved up for later, in microseconds.
const SPARE_US_MAX: u64 = 20_000;

/// Pages beside rows that decode: whoever reads along sees no step that is much longer than the others.
const BESIDE_DECODE_MAX: u64 = 2;

/// How long a step without rows may take, in microseconds, and how many pages it may have.
const ALONE_US: u64 = 10_000;
const ALONE_MAX: u64 = 64;

/// The part of a sequence that is to be looked at: pages from one up to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    next: u32,
    end: u32,
}

/// What is to be written of one model.
#[derive(Debug, Default)]
pub(in crate::core) struct WriteBehind {
    queue: BTreeMap<ContextId, Span>,
    spare_us: u64,
}

/// What a step has beside pages that are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::core) enum Beside {
    Nothing,
    Prompts,
    Decode,
}

impl WriteBehind {
    /// Has the pages of a sequence looked at from one on, all that it will have.
    pub(in crate::core) fn add(&mut self, id: ContextId, from: u32) {
        self.add_up_to(id, from, u32::MAX);
    }

    fn add_up_to(&mut self, id: ContextId, from: u32, end: u32) {
        let span = self.queue.entry(id).or_insert(Span { next: from, end });
        *span = Span { next: span.next.min(from), end: span.end.max(end) };
    }

    /// Lets it have its share of a step.
    pub(in crate::core) fn earn(&mut self, step_us: u64) {
        self.spare_us = self.spare_us.saturating_add(step_us / SHARE).min(SPARE_US_MAX);
    }

    /// Forgets what it was to write, when the pool is gone.
    pub(in crate::core) fn forget(&mut self) {
        self.queue.clear();
    }

    /// Whether there may be something to write.
    pub(in crate::core) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many pages a step may have.
    fn pages(&self, beside: Beside, page_us: u64) -> u64 {
        match beside {
            Beside::Nothing => (ALONE_US / page_us).clamp(1, ALONE_MAX),
            Beside::Prompts => self.spare_us / page_us,
            Beside::Decode => (self.spare_us / page_us).min(BESIDE_DECODE_MAX),
        }
    }
}

impl Kernel {
    /// Has the next step of a model write pages, as many as it may. Tells whether it has some.
    pub(in crate::core) fn write_behind(&mut self, id: ModelId, beside: Beside) -> bool {
        let now = self.now;
        let Some(model) = self.models.get_mut(&id).filter(|m| !m.behind.is_empty()) else { return false };
        if !model.writes_pages(now) {
            model.behind.forget();
            return false;
        }
        let page_us = model.paging.save_us().max(1);
        // What a page takes is found out with one.
        let most =
            model.behind.pages(beside, page_us).min(if model.paging.saves_measured() { u64::MAX } else { 1 });
        let mut written = 0;
        while written < most
            && let Some((sequence, at, node)) = self.next_unwritten(id)
        {
            written += u64::from(self.write_page(id, sequence, at, node));
        }
        if let Some(model) = self.models.get_mut(&id).filter(|_| beside != Beside::Nothing) {
            model.behind.spare_us = model.behind.spare_us.saturating_sub(written * page_us);
        }
        written > 0
    }

    /// Whether a model has pages that should be written and can be.
    pub(in crate::core) fn can_write(&mut self, id: ModelId) -> bool {
        self.models.get(&id).is_some_and(|m| m.writes_pages(self.now)) && self.next_unwritten(id).is_some()
    }

    /// The next page that is not on disk. Sequences without one leave the queue.
    fn next_unwritten(&mut self, id: ModelId) -> Option<(ContextId, u32, NodeId)> {
        loop {
            let model = self.models.get(&id)?;
            let (sequence, span) = model.behind.queue.first_key_value().map(|(s, span)| (*s, *span))?;
            let path = self.resident(id, sequence).map_or(&[][..], |r| &r.path[..r.held as usize]);
            let on_disk = |node: NodeId| match model.tree.saved(node) {
                Some(saved) => !saved.ready || matches!(saved.slot, Slot::Disk(_)),
                None => false,
            };
            let pages = (span.next..span.end).zip(path.iter().skip(span.next as usize));
            let next = pages.map(|(at, node)| (at, *node)).find(|(_, node)| !on_disk(*node));
            if let Some((at, node)) = next {
                return Some((sequence, at, node));
            }
            self.models.get_mut(&id)?.behind.queue.remove(&sequence);
        }
    }

    /// Has a page written. Tells whether it is; of a sequence for which there is no slot no more is written.
    fn write_page(&mut self, id: ModelId, sequence: ContextId, at: u32, node: NodeId) -> bool {
        let owner = self.contexts.get(&sequence).map(|c| c.owner);
        let Some(resident) = self.resident(id, sequence) else { return false };
        let (asid, path) = (resident.lease.asid(), resident.path.clone());
        let Some((model, mut payment)) = self.model_and_payment(id) else { return false };
        let saved = model.tree.saved(node);
        let may = saved.is_some() || payment.may_save(owner);
        if may {
            payment.take_from_rivals(&model.slots, &[TierName::Disk]);
        }
        let placed = may.then(|| model.slots.place_lasting(payment.budget, |oldest| path.contains(&oldest)));
        let Some(placed) = placed.flatten() else {
            model.behind.queue.remove(&sequence);
            return false;
        };
        if let Some(span) = model.behind.queue.get_mut(&sequence) {
            span.next = at + 1;
        }
        match saved {
            None => model.save(asid, owner, node, placed, &mut payment),
            Some(saved) => {
                model.make_way(&placed, &mut payment);
                model.slots.unlist(saved.slot, saved.tick, node);
                model.slots.leave(saved.slot);
                model.tree.set_saved(node, Some(Saved { slot: placed.slot, ready: false, ..saved }));
                let op = Op::Move { from: saved.slot, to: placed.slot };
                model.page_op(op, PageSent::Move { node, from: saved.slot, to: placed.slot });
            }
        }
        true
    }

    /// Has what a context has of the first so many tokens of its log written.
    pub(in crate::core) fn write_snapshot(&mut self, id: ContextId, length: u32) {
        let Some(context) = self.contexts.get(&id) else { return };
        if let Some(model) = self.models.get_mut(&context.model) {
            model.behind.add_up_to(id, 0, length / PAGE_TOKENS);
        }
    }

    /// Has everything looked at again that outlives the daemon.
    pub(in crate::core) fn write_all_lasting(&mut self, id: ModelId) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let lasting = |c: &&ContextId| self.contexts.get(c).is_some_and(|c| c.kept.is_some());
        let contexts = model.contexts.iter().filter(lasting);
        let remnants = model.memory.iter().flat_map(|m| &m.remnants).filter(|(_, r)| r.pinned);
        let all: Vec<ContextId> = contexts.chain(remnants.map(|(id, _)| id)).copied().collect();
        all.into_iter().for_each(|sequence| model.behind.add(sequence, 0));
    }
}

impl Model {
    /// Whether its pages can be written, and are worth it.
    fn writes_pages(&self, now: Now) -> bool {
        self.memory.as_ref().is_some_and(|m| m.ranges)
            && self.slots.room() > 0
            && self.paging.pays(self.sched.cost.prefill_us(PAGE_TOKENS), now)
    }
}
