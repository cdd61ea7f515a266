//! Making the pool of a model in use smaller, to give memory to another model.
//!
//! A pool changes its size while it is empty, and between two steps: the pages of all contexts are given back, a
//! step with nothing but [`Op::Resize`] is run, and the contexts come in again as far as there is room. No pool gets
//! smaller than the largest context that is open on it, so that everybody can still be computed alone.

use drivers::wire::{DriverFault, Op};
use syscalls::ContextId;

use super::super::Kernel;
use super::super::effect::{Effect, LogLevel};
use super::super::event::ModelId;
use super::super::memory::{PageSent, Pool, loading};
use super::super::model::{Model, Resize};
use super::Placement;

impl Kernel {
    /// The smallest pool that a model can do with; none where it has no smaller one, or its mount fixed it.
    pub(super) fn pool_floor(&self, model: &Model) -> Option<u32> {
        let (placement, estimate) = (model.placement?, model.estimate.as_ref()?);
        let fixed = model.mount.context.is_some()
            || model.resize.is_some()
            || model.keeps_pool
            || model.evacuate.is_some();
        if fixed || !model.is_ready() {
            return None;
        }
        let floor = self
            .contexts_tokens_max(model)
            .max(self.config.pool_tokens_min)
            .next_multiple_of(estimate.pool_multiple.max(1));
        (floor < placement.pool_tokens).then_some(floor)
    }

    /// The tokens of the largest context that is open on a model: in a smaller pool it could not be computed.
    pub(super) fn contexts_tokens_max(&self, model: &Model) -> u32 {
        let open = model.contexts.iter().filter_map(|c| self.contexts.get(c)).map(|c| c.tokens_max);
        open.max().unwrap_or(0)
    }

    /// Has the pool of a model changed after the step that runs.
    pub(super) fn resize_pool(&mut self, id: ModelId, tokens: u32) {
        if let Some(model) = self.models.get_mut(&id) {
            model.resize = model.placement.map(|now| Resize { from: now.pool_tokens, to: tokens });
        }
    }

    /// Empties the pool that is to be changed and asks for the operation. False where there is none.
    pub(in crate::core) fn begin_resize(&mut self, id: ModelId) -> bool {
        let Some(Resize { to: tokens, .. }) = self.models.get(&id).and_then(|m| m.resize) else {
            return false;
        };
        // Pages that are on their way in come first.
        if self.models.get(&id).is_none_or(|m| !loading(&m.page_ops).is_empty()) {
            return false;
        }
        self.empty_pool(id);
        if let Some(model) = self.models.get_mut(&id) {
            model.ops.push(Op::Resize { tokens });
            model.page_ops.push(PageSent::Resize);
        }
        true
    }

    /// Takes the pages of all contexts of a model and of what closed ones have left. What can be saved is saved; the
    /// rest is computed again from the logs.
    pub(super) fn empty_pool(&mut self, id: ModelId) {
        let Some(model) = self.models.get(&id) else { return };
        let resident = |c: &ContextId| self.contexts.get(c).is_some_and(|c| c.resident.is_some());
        let resident: Vec<ContextId> = model.contexts.iter().copied().filter(resident).collect();
        let remnants = model.memory.iter().flat_map(|m| m.remnants.keys().copied());
        let all: Vec<ContextId> = resident.into_iter().chain(remnants).collect();
        all.into_iter().for_each(|holder| self.swap_out(id, holder));
    }

    /// A worker has changed its pool, or could not.
    pub(in crate::core) fn resized(&mut self, id: ModelId, outcome: Result<u64, DriverFault>) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let Some(Resize { from, to: tokens }) = model.resize.take() else { return };
        let name = model.name.clone();
        match outcome {
            Ok(_) => {
                if let (Some(memory), Some(description)) = (&mut model.memory, &mut model.description) {
                    memory.pool.check(0);
                    memory.pool = Pool::new(tokens);
                    description.pool_tokens = tokens;
                }
                self.enter_pool(id, tokens);
                let why = if tokens < from { "another model needs room" } else { "there is room for them" };
                let message = format!("the pool of model {name} has {tokens} tokens now: {why}");
                self.out.push(Effect::Log(LogLevel::Info, message));
            }
            Err(fault) => {
                // It is not asked again, and whoever waits for the memory has to look elsewhere.
                model.keeps_pool = true;
                self.enter_pool(id, from);
                self.devices.changed = true;
                let message = format!("the pool of model {name} stays at {from} tokens: {}", fault.message);
                self.out.push(Effect::Log(LogLevel::Warn, message));
            }
        }
    }

    /// A worker that starts gets the pool that the one before was about to get.
    pub(in crate::core) fn resize_at_start(&mut self, id: ModelId) {
        let resize = self.models.get_mut(&id).and_then(|m| m.resize.take());
        if let Some(Resize { to, .. }) = resize {
            self.enter_pool(id, to);
        }
    }

    /// Enters the pool of a model as it is now.
    pub(super) fn enter_pool(&mut self, id: ModelId, tokens: u32) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let (Some(placement), Some(estimate)) = (model.placement, model.estimate.clone()) else { return };
        let placement = Placement { pool_tokens: tokens, ..placement };
        model.placement = Some(placement);
        self.devices.enter(id, &placement, &estimate);
    }
}
