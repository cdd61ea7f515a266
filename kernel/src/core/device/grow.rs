//! Making the pool of a model larger again, when another one has given its memory back.
//!
//! It is the same step as for a smaller one (`shrink.rs`), and empties the pool. So it is taken while the model rests and
//! nothing of its pool would be lost, or while generations wait for frames, for whom it pays. Models that wait for a place
//! come first. What the larger pool takes is entered in the ledger before the step, and taken out if the worker cannot.

use super::super::Kernel;
use super::super::event::ModelId;
use super::super::model::{Model, State};
use super::Placement;
use super::room::give_all;

/// A pool does not grow by less than this part of it, unless it gets all that it should have.
const GROWTH_PART_MIN: u32 = 8;

/// A pool is short where generations wait and less than this part of it is free.
const SHORT_PART: u32 = 4;

impl Model {
    /// Whether a place, or more of one, would be of use to generations that wait for memory.
    pub(in crate::core) fn lacks_room(&self) -> bool {
        let wanted = self.estimate.as_ref().map_or(0, |estimate| estimate.pool_tokens);
        self.placement.is_none_or(|placement| placement.pool_tokens < wanted)
    }
}

impl Kernel {
    /// Has pools made larger for which there is room that nobody waits for.
    pub(super) fn enlarge_pools(&mut self) {
        let waits = |m: &Model| m.state == State::Unloaded && self.is_wanted(m);
        if !self.devices.line.is_empty() || self.models.values().any(waits) {
            return;
        }
        let may: Vec<ModelId> = self.models.values().filter(|m| self.may_grow(m)).map(|m| m.id).collect();
        for id in may {
            if let Some(tokens) = self.larger_pool(id) {
                self.resize_pool(id, tokens);
                self.enter_pool(id, tokens);
            }
        }
    }

    fn may_grow(&self, model: &Model) -> bool {
        let fixed = model.mount.context.is_some() || model.keeps_pool;
        if fixed || !model.is_ready() || model.resize.is_some() || model.evacuate.is_some() {
            return false;
        }
        let saves =
            model.slots.room() > 0 && self.config.swap_host_bytes.max(self.config.swap_disk_bytes) > 0;
        let (total, free) = model.frames();
        let waits = !model.sched.line.is_empty() && free < total / SHORT_PART;
        waits || (model.rests() && (saves || total == free))
    }

    /// The pool that a model could have where it is, if that is worth the step.
    fn larger_pool(&self, id: ModelId) -> Option<u32> {
        let model = self.models.get(&id)?;
        let (placement, estimate) = (model.placement?, model.estimate.as_ref()?);
        let mut free = self.devices.free();
        give_all(&mut free, model);
        let fits = |pool_tokens| {
            let shares = Placement { pool_tokens, ..placement }.shares(estimate);
            shares.iter().all(|(device, needs)| needs.total() <= free[*device])
        };
        let (now, wanted) = (placement.pool_tokens, estimate.pool_tokens);
        let multiple = estimate.pool_multiple.max(1);
        let (mut has_room, mut too_large) = (now / multiple, wanted / multiple + 1);
        while has_room + 1 < too_large {
            let middle = has_room + (too_large - has_room) / 2;
            if fits(middle * multiple) { has_room = middle } else { too_large = middle }
        }
        let larger = has_room * multiple;
        let worth = larger >= now + now / GROWTH_PART_MIN || larger == wanted;
        (larger > now && worth).then_some(larger)
    }
}
