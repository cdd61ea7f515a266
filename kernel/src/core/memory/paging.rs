//! What came of saving, loading and moving pages, and what it costs.

use drivers::wire::{DriverFault, Op, PAGE_TOKENS, PageLabel, Slot};
use syscalls::event::PageChange;
use syscalls::{ContextId, Errno};

use super::super::Kernel;
use super::super::effect::{Effect, LogLevel};
use super::super::event::{ModelId, Now};
use super::super::model::Model;
use super::evict::Payment;
use super::tier::TierName;
use super::tree::{NodeId, Saved};

/// What a page is thought to cost before anything has been measured, in microseconds: what a model of half a
/// billion weights takes on two cores.
const LOAD_US_GUESSED: u64 = 150;
const SAVE_US_GUESSED: u64 = 150;
const COMPUTE_US_GUESSED: u64 = 85_000;

/// How long a measurement keeps pages from being saved or loaded, in microseconds: a disk that was busy once may not be any
/// more, and nothing would say so. A page a minute costs nobody anything where it is.
const HOLDS_US: u64 = 60_000_000;

/// So many times as long as usual is wild, and counts as so much: a worker that the system keeps waiting in the midst of
/// one page says nothing of the next. ...
const WILD: u64 = 2;

/// ... But when so many in a row are wild, the cost has changed.
const WILD_IN_A_ROW_MAX: u32 = 2;

/// What takes less than one so many times as long as usual was thought dear by mistake, and counts so many times.
const DEAR: u64 = 2;
const DEAR_TIMES: u32 = 4;

/// An operation on pages that a worker has been, or will be, told to do, and what it is for.
#[derive(Clone, Debug)]
pub(in crate::core) enum PageSent {
    Save { node: NodeId, slot: Slot },
    Load { context: ContextId, node: NodeId, slot: Slot, page: PageLabel, keep: u32 },
    Move { node: NodeId, from: Slot, to: Slot },
    Resize,
}

impl PageSent {
    /// The slot that it writes.
    pub(in crate::core) fn writes(&self) -> Option<Slot> {
        match self {
            PageSent::Save { slot: to, .. } | PageSent::Move { to, .. } => Some(*to),
            PageSent::Load { .. } | PageSent::Resize => None,
        }
    }
}

/// What an operation on a page takes, in microseconds: a moving average, as those of steps, and when it was last measured.
#[derive(Clone, Copy, Debug)]
struct Measured {
    us: u64,
    at: Now,
    wild_in_a_row: u32,
}

impl Measured {
    fn first(us: u64, now: Now) -> Measured {
        Measured { us, at: now, wild_in_a_row: 0 }
    }

    /// What is known after a further measurement.
    fn then(self, us: u64, now: Now) -> Measured {
        // It may be the only page in a minute, so it is believed at once.
        if self.is_old(now) && us < self.us {
            return Measured::first(us, now);
        }
        let most = self.us.saturating_mul(WILD);
        let wild_in_a_row = if us > most { self.wild_in_a_row.saturating_add(1) } else { 0 };
        let tamed = if wild_in_a_row > WILD_IN_A_ROW_MAX { us } else { us.min(most) };
        let times = if us.saturating_mul(DEAR) < self.us { DEAR_TIMES } else { 1 };
        let us = (0..times).fold(self.us, |mean, _| mean.saturating_mul(7).saturating_add(tamed) / 8);
        Measured { us, at: now, wild_in_a_row }
    }

    fn is_old(self, now: Now) -> bool {
        now.0.saturating_sub(self.at.0) >= HOLDS_US
    }

    /// What counts of it when it is to be decided whether a page is moved.
    fn holding_us(self, now: Now) -> u64 {
        if self.is_old(now) { 0 } else { self.us }
    }
}

/// What paging costs here, by measurement.
#[derive(Clone, Debug, Default)]
pub(in crate::core) struct PagingCost {
    load_host: Option<Measured>,
    load_disk: Option<Measured>,
    save: Option<Measured>,
}

impl PagingCost {
    fn learn(&mut self, sent: &PageSent, us: u64, now: Now) {
        let measured = match sent {
            PageSent::Save { .. } => &mut self.save,
            PageSent::Load { slot: Slot::Host(_), .. } => &mut self.load_host,
            PageSent::Load { slot: Slot::Disk(_), .. } => &mut self.load_disk,
            PageSent::Move { .. } | PageSent::Resize => return,
        };
        *measured = Some(measured.map_or(Measured::first(us, now), |old| old.then(us, now)));
    }

    fn load(&self, slot: Slot) -> Option<Measured> {
        match slot {
            Slot::Host(_) => self.load_host,
            Slot::Disk(_) => self.load_disk,
        }
    }

    /// What it is expected to take to save a page.
    pub(super) fn save_us(&self) -> u64 {
        self.save.map_or(SAVE_US_GUESSED, |save| save.us)
    }

    /// Whether that has been measured.
    pub(super) fn saves_measured(&self) -> bool {
        self.save.is_some()
    }

    /// Whether saving a page and loading it again is expected to cost less than to compute it again. What has not
    /// been measured lately is tried.
    pub(super) fn pays(&self, compute_us: Option<u64>, now: Now) -> bool {
        let load = self.load_host.or(self.load_disk);
        let (Some(save), Some(load), Some(compute_us)) = (self.save, load, compute_us) else { return true };
        save.holding_us(now).saturating_add(load.holding_us(now)) < compute_us.max(1)
    }

    /// Whether saving a page has last cost more than to compute it, so that one is enough to try it.
    pub(super) fn saves_were_dear(&self, compute_us: Option<u64>) -> bool {
        self.save.zip(compute_us).is_some_and(|(save, compute_us)| save.us >= compute_us.max(1))
    }

    /// Whether loading a saved page is expected to cost less than to compute it.
    pub(super) fn load_pays(&self, slot: Slot, compute_us: Option<u64>) -> bool {
        self.load(slot).zip(compute_us).is_none_or(|(load, compute_us)| load.us <= compute_us)
    }

    /// Whether that was measured so long ago that a page should be tried.
    pub(super) fn load_is_doubted(&self, slot: Slot, now: Now) -> bool {
        self.load(slot).is_some_and(|load| load.is_old(now))
    }
}

impl Kernel {
    /// Takes what came of the operations on pages of a step, before what came of its rows.
    pub(in crate::core) fn pages_done(
        &mut self,
        model: ModelId,
        sent: &[PageSent],
        done: Vec<Result<u64, DriverFault>>,
    ) {
        // A load behind one that failed has failed with it, and says nothing of its own page.
        let mut failed: Option<ContextId> = None;
        let now = self.now;
        for (sent, done) in sent.iter().zip(done) {
            if let PageSent::Move { from, .. } = sent {
                self.page_left(model, *from);
            }
            if let (Ok(us), Some(model)) = (&done, self.models.get_mut(&model)) {
                model.paging.learn(sent, *us, now);
            }
            match (sent, done) {
                (PageSent::Save { node, slot }, Ok(_)) => self.page_saved(model, *node, *slot, true),
                (PageSent::Move { node, to, .. }, Ok(_)) => self.page_saved(model, *node, *to, false),
                (PageSent::Save { node, slot: to } | PageSent::Move { node, to, .. }, Err(fault)) => {
                    self.page_not_saved(model, *node, *to, &fault);
                }
                (PageSent::Load { context, .. }, _) if failed == Some(*context) => {}
                (PageSent::Load { context, node, slot, page, keep }, Ok(_)) => {
                    self.page_loaded(model, *context, (*node, *slot), page, *keep);
                }
                (PageSent::Load { context, .. }, Err(fault)) if fault.errno == Errno::ENOMEM => {
                    failed = Some(*context);
                }
                (PageSent::Load { context, node, slot, .. }, Err(fault)) => {
                    failed = Some(*context);
                    self.page_corrupted(model, *node, *slot, &fault);
                }
                (PageSent::Resize, outcome) => self.resized(model, outcome),
            }
        }
        for context in loading(sent) {
            if let Some(context) = self.contexts.get_mut(&context) {
                context.in_step = false;
            }
            self.advance(context);
        }
    }

    fn page_saved(&mut self, id: ModelId, node: NodeId, slot: Slot, written: bool) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let bytes = model.page_bytes();
        let Some(saved) = model.tree.saved(node).filter(|s| s.slot == slot) else { return };
        model.tree.set_saved(node, Some(Saved { ready: true, ..saved }));
        model.slots.list(slot, saved.tick, node);
        if written {
            model.counters.swap_out_bytes += bytes;
            self.counters.swap_out_bytes += bytes;
            let owner = saved.charged.and_then(|pid| self.processes.living_mut(pid));
            owner.into_iter().for_each(|p| p.id.counters.swap_out_bytes += bytes);
        }
    }

    /// The tier is smaller than was thought. The page will be computed again.
    fn page_not_saved(&mut self, id: ModelId, node: NodeId, slot: Slot, fault: &DriverFault) {
        let Some((model, mut payment)) = self.model_and_payment(id) else { return };
        if let Some(saved) = model.tree.saved(node).filter(|s| s.slot == slot) {
            payment.refund(Some(saved));
            model.tree.set_saved(node, None);
        }
        if model.slots.retire(slot, payment.budget) {
            let (host, disk) = model.slots.taken();
            let (tier, pages) = match TierName::of(slot) {
                TierName::Host => ("host", host),
                TierName::Disk => ("disk", disk),
            };
            let line = format!("the {tier} tier of model {} stays at {pages} pages: {fault}", model.name);
            self.out.push(Effect::Log(LogLevel::Warn, line));
        }
        // A part of the page may have come there.
        self.clear_slot(id, slot);
    }

    fn page_loaded(
        &mut self,
        id: ModelId,
        context_id: ContextId,
        (node, slot): (NodeId, Slot),
        page: &PageLabel,
        keep: u32,
    ) {
        let Some(model) = self.models.get_mut(&id) else { return };
        if let Some(saved) = model.tree.saved(node).filter(|s| s.slot == slot) {
            model.touch(node, saved, &mut self.swap);
        }
        let bytes = model.page_bytes();
        let Some(context) = self.contexts.get_mut(&context_id) else { return };
        let Some(resident) = &mut context.resident else { return };
        if keep < page.to {
            model.ops.push(Op::Drop { asid: resident.lease.asid(), from: keep });
        }
        resident.computed = keep;
        let again = page.from < context.evaluated;
        let owner = context.owner;
        self.pages_changed(context_id, PageChange::SwappedIn, keep - page.from);
        self.count(id, owner, |c| {
            c.swap_in_bytes += bytes;
            c.refaults += u64::from(again);
        });
        self.enroll_context(context_id);
    }

    /// The page in a slot is not what it should be. It will be computed.
    fn page_corrupted(&mut self, id: ModelId, node: NodeId, slot: Slot, fault: &DriverFault) {
        let Some(model) = self.models.get_mut(&id) else { return };
        model.counters.pages_corrupted += 1;
        self.counters.pages_corrupted += 1;
        let line = format!("a saved page of model {} is computed again: {fault}", model.name);
        self.out.push(Effect::Log(LogLevel::Warn, line));
        let Some(saved) = model.tree.saved(node).filter(|s| s.slot == slot && s.ready) else { return };
        model.slots.unlist(slot, saved.tick, node);
        self.free_slot(id, node, saved);
    }

    /// Gives the slot of a page back.
    fn free_slot(&mut self, id: ModelId, node: NodeId, saved: Saved) {
        let Some((model, mut payment)) = self.model_and_payment(id) else { return };
        payment.refund(Some(saved));
        model.slots.give_back(saved.slot, payment.budget);
        model.tree.set_saved(node, None);
        self.clear_slot(id, saved.slot);
    }

    /// Gives a slot back that a page has left for another one, or was to.
    fn page_left(&mut self, id: ModelId, slot: Slot) {
        let Some(model) = self.models.get_mut(&id) else { return };
        if model.slots.has_left(slot, &mut self.swap) {
            self.clear_slot(id, slot);
        }
    }

    /// Has a slot cleared that nobody has any more.
    pub(super) fn clear_slot(&mut self, id: ModelId, slot: Slot) {
        self.out.extend(self.models.get(&id).map(|model| model.clearing(slot)));
    }

    /// Gives back what a model that goes had of the swap area.
    pub(in crate::core) fn give_slots_back(&mut self, model: &Model) {
        model.slots.give_all_back(&mut self.swap);
        let mut payment = Payment {
            budget: &mut self.swap,
            processes: &mut self.processes,
            groups: &self.groups,
            rivals: Vec::new(),
            now: self.now,
            out: &mut self.out,
        };
        model.tree.all_saved().for_each(|(_, saved)| payment.refund(Some(saved)));
    }

    /// What a dead worker was told to write is not known to be written.
    pub(in crate::core) fn forget_unwritten(&mut self, id: ModelId) {
        let Some(model) = self.models.get_mut(&id) else { return };
        model.page_ops.clear();
        model.behind.forget();
        let unwritten: Vec<_> = model.tree.all_saved().filter(|(_, saved)| !saved.ready).collect();
        let left: Vec<Slot> = model.slots.leaving().collect();
        for (node, saved) in unwritten {
            self.free_slot(id, node, saved);
        }
        left.into_iter().for_each(|slot| self.page_left(id, slot));
    }
}

impl Model {
    /// What it is expected to cost to take a page and to bring it back, in microseconds.
    pub(super) fn return_us(&self, saved: bool) -> u64 {
        let compute_us = self.sched.cost.prefill_us(PAGE_TOKENS).unwrap_or(COMPUTE_US_GUESSED);
        if self.slots.room() == 0 {
            return compute_us;
        }
        let load = self.paging.load_host.or(self.paging.load_disk);
        let load_us = load.map_or(LOAD_US_GUESSED, |load| load.us);
        compute_us.min(load_us.saturating_add(if saved { 0 } else { self.paging.save_us() }))
    }

    /// Bytes of a saved page.
    pub(in crate::core) fn page_bytes(&self) -> u64 {
        self.description.as_ref().map_or(0, |d| d.page_bytes)
    }

    /// Whether its worker is to load a page from a slot.
    pub(super) fn loads_from(&self, slot: Slot) -> bool {
        let mut told = self.in_flight.iter().flat_map(|step| &step.pages).chain(&self.page_ops);
        told.any(|sent| matches!(sent, PageSent::Load { slot: from, .. } if *from == slot))
    }
}

/// The contexts that pages are loaded for, each once.
pub(in crate::core) fn loading(sent: &[PageSent]) -> Vec<ContextId> {
    let mut contexts: Vec<ContextId> = sent
        .iter()
        .filter_map(|sent| match sent {
            PageSent::Load { context, .. } => Some(*context),
            _ => None,
        })
        .collect();
    contexts.dedup();
    contexts
}

impl Model {
    /// Has a slot cleared that nobody has any more.
    pub(super) fn clearing(&self, slot: Slot) -> Effect {
        Effect::ClearSlot { model: self.id, slot, bytes: self.slots.room() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a page is thought to take after these measurements, a millisecond apart.
    fn after(all: &[u64]) -> u64 {
        let measured = |known: Option<Measured>, (ms, us): (u64, &u64)| {
            let now = Now(ms * 1000);
            Some(known.map_or(Measured::first(*us, now), |old| old.then(*us, now)))
        };
        (1..).zip(all).fold(None, measured).map_or(0, |known| known.us)
    }

    #[test]
    fn page_that_takes_long_by_chance_is_hardly_counted() {
        assert!(after(&[100, 100, 30_000]) <= 125);
        assert!(after(&[100, 100, 30_000, 100, 30_000]) <= 150);
        assert!(after(&[30_000, 100, 100, 100, 100, 100]) < 3_000, "not even where it was the first");
    }

    #[test]
    fn pages_that_all_take_long_are_believed_soon() {
        assert!(after(&[100, 100, 30_000, 30_000, 30_000]) > 3_000);
    }
}
