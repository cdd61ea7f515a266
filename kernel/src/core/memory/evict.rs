//! Taking pages from sequences, from the end, and saving those that nobody else has.

use std::sync::Arc;

use drivers::wire::{Asid, Op, PAGE_TOKENS};
use syscalls::event::PageChange;
use syscalls::{ContextId, Pid, Token};

use super::super::Kernel;
use super::super::effect::Effect;
use super::super::event::{ModelId, Now};
use super::super::group::Groups;
use super::super::model::Model;
use super::super::process::ProcessTable;
use super::paging::PageSent;
use super::slots::Placed;
use super::tier::{Budget, TierName};
use super::tree::{NodeId, Saved, Space};
use super::{PageRef, Resident};

/// Tokens below which a page is saved only where slots are free for it and all pages before it: it takes as much room as
/// a whole one, and none of these is to go for it.
const DISPLACING_TOKENS_MIN: u32 = 16;

/// A sequence with what is known of it, whoever has it.
pub(super) struct Held {
    pub id: ContextId,
    pub resident: Resident,
    pub log: Arc<Vec<Token>>,
    pub space: Space,
    /// The process that its slots are charged to; none for a remnant.
    pub owner: Option<Pid>,
    /// It outlives the daemon, so its pages should.
    pub lasting: bool,
    /// A remnant's place in the order of use.
    pub place: Option<(bool, u64)>,
}

/// What saving a page needs beside the model.
pub(super) struct Payment<'a> {
    pub budget: &'a mut Budget,
    pub processes: &'a mut ProcessTable,
    pub groups: &'a Groups,
    /// The other models, which share the budget.
    pub rivals: Vec<&'a mut Model>,
    pub now: Now,
    pub out: &'a mut Vec<Effect>,
}

impl Kernel {
    /// A model, and what saving a page of it needs beside it.
    pub(super) fn model_and_payment(&mut self, id: ModelId) -> Option<(&mut Model, Payment<'_>)> {
        let (mut own, mut rivals) = (None, Vec::new());
        for (other, model) in &mut self.models {
            match *other == id {
                true => own = Some(model),
                false => rivals.push(model),
            }
        }
        let payment = Payment {
            budget: &mut self.swap,
            processes: &mut self.processes,
            groups: &self.groups,
            rivals,
            now: self.now,
            out: &mut self.out,
        };
        own.map(|model| (model, payment))
    }

    /// Takes pages from the end of a sequence until so many frames of its model are free, or it has none left.
    /// Pages that nobody else has are saved.
    pub(super) fn evict(&mut self, model: ModelId, id: ContextId, frames_wanted: u32) {
        let Some(mut held) = self.take_held(model, id) else { return };
        let (before, computed) = (held.resident.pages.len(), held.resident.computed);
        let saves = |kernel: &Kernel| kernel.models.get(&model).map_or(0, |m| m.page_ops.len());
        let saves_before = saves(self);
        if let Some((model, mut payment)) = self.model_and_payment(model) {
            model.trim(&mut held, frames_wanted, &mut payment);
        }
        let given = (before - held.resident.pages.len()) as u64;
        if let Some(process) = held.owner.and_then(|pid| self.processes.living_mut(pid)) {
            process.frames -= given;
        }
        let (id, taken) = (held.id, computed - held.resident.computed);
        let change = if saves(self) > saves_before { PageChange::SwappedOut } else { PageChange::Dropped };
        self.put_back(model, held);
        if taken > 0 {
            self.pages_changed(id, change, taken);
        }
    }

    /// Takes everything from a sequence, saving what nobody else has.
    pub(in crate::core) fn swap_out(&mut self, model: ModelId, id: ContextId) {
        self.evict(model, id, u32::MAX);
    }
}

impl Kernel {
    /// Lets the whole pages that are saved of a context which comes in, behind those that it shares, keep their slots,
    /// whoever else is saved meanwhile: they are about to be loaded. The first ones count as used last.
    pub(super) fn keep_saved(&mut self, id: ContextId, share: Option<(ContextId, u32)>) {
        let Some(context) = self.contexts.get(&id) else { return };
        let model_id = context.model;
        let shared = share.map_or(0, |(_, length)| (length / PAGE_TOKENS) as usize);
        let path = share.and_then(|(giver, _)| self.resident(model_id, giver)).map(|r| r.path.as_slice());
        let mut parent = shared.checked_sub(1).and_then(|last| path?.get(last).copied());
        let Some(model) = self.models.get_mut(&model_id) else { return };
        model.slots.keep(&self.swap);
        let mut saved = Vec::new();
        for page in context.log.chunks_exact(PAGE_TOKENS as usize).skip(shared) {
            let found = model.tree.saved_behind(&context.space, parent, page);
            let Some((node, PAGE_TOKENS)) = found else { break };
            saved.push(node);
            parent = Some(node);
        }
        for node in saved.into_iter().rev() {
            if let Some(saved) = model.tree.saved(node) {
                model.touch(node, saved, &mut self.swap);
            }
        }
    }
}

impl Model {
    /// Takes pages from the end of a sequence until so many frames are free.
    fn trim(&mut self, held: &mut Held, frames_wanted: u32, payment: &mut Payment) {
        let computed = held.resident.computed;
        // A model that keeps or loses whole sequences loses this one.
        let ranges = self.memory.as_ref().is_some_and(|m| m.ranges);
        let frames_wanted = if ranges { frames_wanted } else { u32::MAX };
        while self.memory.as_ref().is_some_and(|m| m.pool.free() < frames_wanted) {
            let Some(page) = held.resident.pages.pop() else { break };
            let from = held.resident.pages.len() as u32 * PAGE_TOKENS;
            self.save_if_last(held, &page, (from, computed.min(from + PAGE_TOKENS)), payment);
            if let Some(memory) = &mut self.memory {
                memory.pool.release(page);
            }
        }
        let left = held.resident.pages.len() as u32 * PAGE_TOKENS;
        // Whoever gives a sequence without pages back drops what is in it.
        if left < computed && left > 0 {
            self.ops.push(Op::Drop { asid: held.resident.lease.asid(), from: left });
        }
        held.resident.computed = computed.min(left);
        self.enroll(held.id, &mut held.resident, &held.log, &held.space, false);
    }

    /// Saves the entries of a page, unless another sequence has the page, it is saved already, or it is not worth
    /// a slot.
    fn save_if_last(&mut self, held: &Held, page: &PageRef, (from, to): (u32, u32), payment: &mut Payment) {
        let shared = self.memory.as_ref().is_none_or(|m| m.pool.is_shared(page) || !m.ranges);
        if shared || to <= from || self.slots.room() == 0 {
            return;
        }
        let spare = || self.slots.free(payment.budget) > u64::from(from / PAGE_TOKENS);
        if to - from < DISPLACING_TOKENS_MIN && !spare() {
            return;
        }
        let compute_us = self.sched.cost.prefill_us(to - from);
        let tried = self.paging.saves_were_dear(compute_us) && !self.page_ops.is_empty();
        if tried || !self.paging.pays(compute_us, payment.now) {
            return;
        }
        let parent = (from / PAGE_TOKENS).checked_sub(1).map(|n| held.resident.path[n as usize]);
        let node = self.tree.child(&held.space, parent, &held.log[from as usize..to as usize]);
        match self.tree.saved(node) {
            Some(saved) => self.touch(node, saved, payment.budget),
            None if payment.may_save(held.owner) => {
                if held.lasting {
                    payment.take_from_rivals(&self.slots, &[TierName::Disk]);
                }
                payment.take_from_rivals(&self.slots, &[TierName::Host, TierName::Disk]);
                let placed = self.slots.place(payment.budget, held.lasting);
                let asid = held.resident.lease.asid();
                placed.into_iter().for_each(|placed| self.save(asid, held.owner, node, placed, payment));
            }
            None => {}
        }
        self.tree.prune(node);
    }

    /// Has the entries of a node's page, which a sequence has in the pool, written to a slot.
    pub(super) fn save(
        &mut self,
        asid: Asid,
        owner: Option<Pid>,
        node: NodeId,
        placed: Placed,
        payment: &mut Payment,
    ) {
        self.make_way(&placed, payment);
        let (slot, tick) = (placed.slot, payment.budget.tick());
        let charged = payment.charge(owner);
        self.tree.set_saved(node, Some(Saved { slot, ready: false, tick, charged }));
        let op = Op::Save { asid, page: self.tree.label(node), slot };
        self.page_op(op, PageSent::Save { node, slot });
    }

    /// Does what had to be done for a free slot.
    pub(super) fn make_way(&mut self, placed: &Placed, payment: &mut Payment) {
        if let Some(lost) = placed.lost {
            payment.refund(self.tree.saved(lost));
            self.tree.set_saved(lost, None);
        }
        if let Some((moved, to)) = placed.moved
            && let Some(saved) = self.tree.saved(moved)
        {
            self.tree.set_saved(moved, Some(Saved { slot: to, ready: false, ..saved }));
            let op = Op::Move { from: placed.slot, to };
            self.page_op(op, PageSent::Move { node: moved, from: placed.slot, to });
        }
    }

    /// Notes that a saved page has been used.
    pub(super) fn touch(&mut self, node: NodeId, saved: Saved, budget: &mut Budget) {
        if !saved.ready {
            return;
        }
        let tick = budget.tick();
        self.slots.unlist(saved.slot, saved.tick, node);
        self.slots.list(saved.slot, tick, node);
        self.tree.set_saved(node, Some(Saved { tick, ..saved }));
    }

    /// Adds an operation on pages to the next step, with what it is for.
    pub(in crate::core) fn page_op(&mut self, op: Op, sent: PageSent) {
        debug_assert!(op.is_paging());
        self.ops.push(op);
        self.page_ops.push(sent);
    }
}

impl Payment<'_> {
    /// Whether the limits of a process and its groups let it have one more page in the swap area.
    pub(super) fn may_save(&self, owner: Option<Pid>) -> bool {
        let Some(process) = owner.and_then(|pid| self.processes.living(pid)) else { return true };
        process.limits.swap_pages.is_none_or(|most| process.swap_pages < most)
            && self.groups.may_save(self.processes, process.id.group)
    }

    pub(super) fn charge(&mut self, owner: Option<Pid>) -> Option<Pid> {
        let process = owner.and_then(|pid| self.processes.living_mut(pid))?;
        process.swap_pages += 1;
        Some(process.id.pid)
    }

    /// Takes a page that is gone off the account of whoever it was charged to.
    pub(super) fn refund(&mut self, saved: Option<Saved>) {
        let process = saved.and_then(|s| s.charged).and_then(|pid| self.processes.living_mut(pid));
        if let Some(process) = process {
            process.swap_pages -= 1;
        }
    }
}
