//! Remnants: what closed contexts leave in the pool, so that the next one with the same beginning need not compute
//! it. A remnant keeps its sequence id and its frames until somebody wants them; the one that was used longest ago
//! goes first, those of published segments last. It belongs to no process, and is charged to none.

use std::sync::Arc;

use drivers::wire::{Op, PAGE_TOKENS};
use syscalls::{ContextId, Token};

use super::super::Kernel;
use super::super::event::ModelId;
use super::evict::Held;
use super::{Resident, Space};

/// What a closed context has left.
#[derive(Debug)]
pub(in crate::core) struct Remnant {
    pub resident: Resident,
    /// At least the tokens whose entries it has.
    pub log: Arc<Vec<Token>>,
    pub space: Space,
    /// It is the beginning of a published segment.
    pub pinned: bool,
    /// Orders remnants by their last use.
    pub tick: u64,
}

impl Kernel {
    /// Makes a remnant of what a context has in the pool, if it has a whole page that nobody else has. Otherwise
    /// all of it is given back.
    pub(in crate::core) fn leave_remnant(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get(&id) else { return };
        let (model_id, space) = (context.model, context.space);
        let alone = |r: &Resident| {
            let model = self.models.get(&model_id)?;
            let last = r.path.get((r.held as usize).checked_sub(1)?)?;
            Some(model.is_ready() && !model.tree.held_by_another(*last, id))
        };
        if !context.resident.as_ref().and_then(alone).unwrap_or(false) {
            return self.release_pages(id);
        }
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let Some(mut resident) = context.resident.take() else { return };
        let log = context.log.share();
        if let Some(process) = self.processes.living_mut(context.owner) {
            process.frames -= resident.pages.len() as u64;
        }
        self.settle(id);
        let Some(model) = self.models.get_mut(&model_id) else { return };
        let asid = resident.lease.asid();
        if resident.sampler.take().is_some() {
            model.ops.push(Op::SamplerClose { asid });
        }
        // A row that is under way will have added to it.
        model.ops.push(Op::Drop { asid, from: resident.computed });
        if let Some(memory) = &mut model.memory {
            let surplus = resident.pages.split_off(resident.computed.div_ceil(PAGE_TOKENS) as usize);
            surplus.into_iter().for_each(|page| memory.pool.release(page));
        }
        // The context may live on, so what it leaves has a number of its own.
        model.leave_tree(id, &mut resident);
        self.next_context += 1;
        let id = ContextId(self.next_context);
        model.enroll(id, &mut resident, &log, &space, false);
        self.enter_remnant(model_id, id, Remnant { resident, log, space, pinned: false, tick: 0 });
    }

    /// Keeps a remnant as the one that was used last.
    pub(in crate::core) fn enter_remnant(&mut self, model: ModelId, id: ContextId, mut remnant: Remnant) {
        let Some(model) = self.models.get_mut(&model) else { return };
        let Some(memory) = &mut model.memory else { return };
        remnant.tick = model.sched.tick(self.now);
        memory.aged.insert((remnant.pinned, remnant.tick, id));
        memory.remnants.insert(id, remnant);
    }

    /// Takes a remnant out, with its place in the order.
    pub(in crate::core) fn take_remnant(&mut self, model: ModelId, id: ContextId) -> Option<Remnant> {
        let memory = self.models.get_mut(&model)?.memory.as_mut()?;
        let remnant = memory.remnants.remove(&id)?;
        memory.aged.remove(&(remnant.pinned, remnant.tick, id));
        Some(remnant)
    }

    /// Notes that a remnant has been used, if this is one.
    pub(super) fn use_remnant(&mut self, model: ModelId, id: ContextId) {
        if let Some(remnant) = self.take_remnant(model, id) {
            self.enter_remnant(model, id, remnant);
        }
    }

    /// Takes a sequence from whoever has it. The caller puts it back, or gives up all of it.
    pub(super) fn take_held(&mut self, model: ModelId, id: ContextId) -> Option<Held> {
        if let Some(context) = self.contexts.get_mut(&id) {
            let resident = context.resident.take()?;
            let (log, space, owner) = (context.log.share(), context.space, Some(context.owner));
            let lasting = context.kept.is_some();
            return Some(Held { id, resident, log, space, owner, lasting, place: None });
        }
        // It keeps its place in the order: to lose pages is no use.
        let memory = self.models.get_mut(&model)?.memory.as_mut()?;
        let Remnant { resident, log, space, pinned, tick } = memory.remnants.remove(&id)?;
        memory.aged.remove(&(pinned, tick, id));
        let place = Some((pinned, tick));
        Some(Held { id, resident, log, space, owner: None, lasting: pinned, place })
    }

    /// Gives a sequence back to whoever had it; one without pages goes back to the worker.
    pub(super) fn put_back(&mut self, model_id: ModelId, held: Held) {
        let Held { id, resident, log, space, place, .. } = held;
        if let Some(context) = self.contexts.get_mut(&id) {
            let empty = resident.pages.is_empty();
            context.resident = Some(resident);
            if empty {
                self.release_pages(id);
            }
            return;
        }
        let Some(model) = self.models.get_mut(&model_id) else { return };
        if resident.pages.is_empty() {
            return model.give_up(id, resident);
        }
        let (Some(memory), Some((pinned, tick))) = (&mut model.memory, place) else { return };
        memory.aged.insert((pinned, tick, id));
        memory.remnants.insert(id, Remnant { resident, log, space, pinned, tick });
    }
}
