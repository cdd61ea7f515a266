//! Making room for a model: which others are unloaded, evacuated or give a part of their pools, so that nobody is
//! disturbed in vain and nobody more than need be.

use drivers::estimate::Needs;

use super::super::Kernel;
use super::super::event::{ModelId, Now};
use super::super::model::Model;
use super::Placement;
use super::evacuate::Evacuation;
use super::fit::Wish;

/// Something that makes room for a model.
#[derive(Clone, Copy, Debug)]
enum Measure {
    /// A model that nobody uses gives all.
    Unload(ModelId),
    /// A pool gets so many tokens.
    Shrink(ModelId, u32),
    /// A model that has contexts gives all.
    Evacuate(ModelId, Evacuation),
}

impl Measure {
    fn model(self) -> ModelId {
        match self {
            Measure::Unload(id) | Measure::Shrink(id, _) | Measure::Evacuate(id, _) => id,
        }
    }
}

/// What makes room for a model, in the order of how much it disturbs.
#[derive(Debug, Default)]
pub(super) struct Plan(Vec<Measure>);

impl Kernel {
    /// Bytes of each device that are free, or will be when all that was begun is done.
    pub(super) fn free_soon(&self) -> Vec<u64> {
        let mut free = self.devices.free_soon();
        for model in self.models.values() {
            match model.resize {
                _ if model.evacuate.is_some() => give_all(&mut free, model),
                Some(resize) => give_part(&mut free, model, resize.to),
                None => {}
            }
        }
        free
    }

    /// The least that makes room for the smallest pool that will do, where models rest on until a time; none where
    /// nothing does.
    pub(super) fn room_for(&self, id: ModelId, wish: &Wish, by: Now) -> Option<Plan> {
        let mut plan = Plan::default();
        let found = self.unload_until(id, wish, &mut plan)
            || self.shrink_until(id, wish, &mut plan, Model::rests)
            || self.evacuate_until(id, wish, &mut plan, by)
            || self.shrink_until(id, wish, &mut plan, |model| !model.rests())
            || self.force_until(id, wish, &mut plan);
        found.then(|| self.without_surplus(wish, plan))
    }

    /// Whether others may still make room that cannot now: they are being loaded, end what was begun before they are
    /// idle, or have not rested long enough. The devices suffice for the model alone.
    pub(super) fn room_may_come(&self, id: ModelId, wish: &Wish) -> bool {
        let begun =
            |m: &Model| !m.is_settled() || m.resize.is_some() || m.evacuate.is_some() || m.ends_soon();
        let changing = |m: &Model| m.id != id && m.placement.is_some() && begun(m);
        wish.fits_at_least(&self.devices.sizes())
            && (self.models.values().any(changing) || self.room_for(id, wish, Now(u64::MAX)).is_some())
    }

    /// Bytes of each device that are free when a plan is carried out.
    fn free_with(&self, plan: &Plan) -> Vec<u64> {
        let mut free = self.free_soon();
        for measure in &plan.0 {
            match measure {
                Measure::Unload(id) | Measure::Evacuate(id, _) => give_all(&mut free, &self.models[id]),
                Measure::Shrink(id, tokens) => give_part(&mut free, &self.models[id], *tokens),
            }
        }
        free
    }

    fn suffices(&self, wish: &Wish, plan: &Plan) -> bool {
        wish.fits_at_least(&self.free_with(plan))
    }

    /// Unloads models that nobody uses, the one that was used longest ago first.
    fn unload_until(&self, but: ModelId, wish: &Wish, plan: &mut Plan) -> bool {
        let idle = self.models.values().filter(|m| m.id != but && m.is_idle());
        let mut idle: Vec<_> = idle.map(|m| (m.last_use, m.id)).collect();
        idle.sort_unstable();
        for (_, id) in idle {
            if self.suffices(wish, plan) {
                return true;
            }
            plan.0.push(Measure::Unload(id));
        }
        self.suffices(wish, plan)
    }

    /// Takes from the pools of some models in use, the one with most to give first, and from the last one no more than
    /// is needed.
    fn shrink_until(
        &self,
        but: ModelId,
        wish: &Wish,
        plan: &mut Plan,
        which: impl Fn(&Model) -> bool,
    ) -> bool {
        let planned = |id| plan.0.iter().any(|measure| measure.model() == id);
        let others = self.models.values().filter(|m| m.id != but && !planned(m.id) && which(m));
        let floors = others.filter_map(|m| Some((m, self.pool_floor(m)?)));
        let mut givers: Vec<_> = floors.map(|(m, floor)| (gain(m, floor), m, floor)).collect();
        givers.sort_by_key(|(gain, m, _)| (std::cmp::Reverse(*gain), m.id));
        for (_, model, floor) in givers {
            plan.0.push(Measure::Shrink(model.id, floor));
            if self.suffices(wish, plan) {
                return true;
            }
        }
        false
    }

    /// Evacuates models that have rested long enough by a time, the one that was used longest ago first.
    fn evacuate_until(&self, but: ModelId, wish: &Wish, plan: &mut Plan, by: Now) -> bool {
        self.evacuate_all_until(self.resting_models(but, by), Evacuation::WhileItRests, wish, plan)
    }

    /// Forces out models that have had their turns, where it is that of the one that waits.
    fn force_until(&self, id: ModelId, wish: &Wish, plan: &mut Plan) -> bool {
        self.evacuate_all_until(self.turns_over_for(id), Evacuation::ByForce, wish, plan)
    }

    fn evacuate_all_until(&self, all: Vec<ModelId>, how: Evacuation, wish: &Wish, plan: &mut Plan) -> bool {
        all.into_iter().any(|id| {
            plan.0.retain(|measure| measure.model() != id);
            plan.0.push(Measure::Evacuate(id, how));
            self.suffices(wish, plan)
        })
    }

    /// Leaves out what turned out not to be needed, what disturbs most first and of models the one that was used last;
    /// pools give no more than they have to.
    fn without_surplus(&self, wish: &Wish, mut plan: Plan) -> Plan {
        for at in (0..plan.0.len()).rev() {
            let measure = plan.0.remove(at);
            let free = self.free_with(&plan);
            match measure {
                _ if wish.fits_at_least(&free) => {}
                Measure::Shrink(id, floor) => {
                    let tokens = largest_that_helps(&self.models[&id], floor, wish, &free);
                    plan.0.insert(at, Measure::Shrink(id, tokens));
                }
                needed => plan.0.insert(at, needed),
            }
        }
        plan
    }

    /// Carries a plan out.
    pub(super) fn make_room(&mut self, plan: Plan) {
        for measure in plan.0 {
            match measure {
                Measure::Unload(id) => self.unload(id),
                Measure::Shrink(id, tokens) => self.resize_pool(id, tokens),
                Measure::Evacuate(id, how) => self.evacuate(id, how),
            }
        }
    }
}

impl Model {
    /// Whether it could be unloaded without anybody noticing but by the time of the next call.
    fn is_idle(&self) -> bool {
        self.rests() && self.contexts.is_empty()
    }

    /// Whether it is idle as soon as its worker has done what it was told.
    fn ends_soon(&self) -> bool {
        self.is_ready() && self.is_left() && !self.is_idle()
    }

    /// Whether nobody has a context here, or waits for one.
    pub(in crate::core) fn is_left(&self) -> bool {
        self.contexts.is_empty() && self.waiters.is_empty()
    }
}

/// Adds to what is free all that a model takes.
pub(super) fn give_all(free: &mut [u64], model: &Model) {
    if let (Some(placement), Some(estimate)) = (&model.placement, &model.estimate) {
        add(free, placement.shares(estimate), [(0, Needs::default()); 2]);
    }
}

/// Adds to what is free what a model does not take any more when its pool has so many tokens.
fn give_part(free: &mut [u64], model: &Model, tokens: u32) {
    if let (Some(placement), Some(estimate)) = (&model.placement, &model.estimate) {
        let less = Placement { pool_tokens: tokens, ..*placement };
        add(free, placement.shares(estimate), less.shares(estimate));
    }
}

fn add(free: &mut [u64], before: [(usize, Needs); 2], after: [(usize, Needs); 2]) {
    for ((device, before), (_, after)) in before.into_iter().zip(after) {
        free[device] = free[device].saturating_add(before.total().saturating_sub(after.total()));
    }
}

/// Bytes that a smaller pool frees.
fn gain(model: &Model, tokens: u32) -> u64 {
    let mut free = vec![0; model.placement.map_or(0, |p| p.device) + 1];
    give_part(&mut free, model, tokens);
    free.iter().sum()
}

/// The largest pool down to `floor` by which a model gives enough; the floor itself does.
fn largest_that_helps(model: &Model, floor: u32, wish: &Wish, free: &[u64]) -> u32 {
    let multiple = model.estimate.as_ref().map_or(1, |e| e.pool_multiple.max(1));
    let (mut helps, mut too_large) =
        (floor / multiple, model.placement.map_or(0, |p| p.pool_tokens) / multiple);
    while helps + 1 < too_large {
        let middle = helps + (too_large - helps) / 2;
        let mut given = free.to_vec();
        give_part(&mut given, model, middle * multiple);
        if wish.fits_at_least(&given) { helps = middle } else { too_large = middle }
    }
    helps * multiple
}
