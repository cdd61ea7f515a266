//! Making room for a model: which others are unloaded or give a part of their pools, so that nobody is disturbed
//! in vain and nobody more than need be.

use drivers::estimate::Needs;

use super::super::Kernel;
use super::super::effect::{Effect, LogLevel};
use super::super::event::ModelId;
use super::super::model::{Model, State};
use super::Placement;
use super::fit::Wish;

/// What makes room for a model.
#[derive(Debug, Default)]
pub(super) struct Plan {
    unload: Vec<ModelId>,
    /// Pools that get so many tokens.
    shrink: Vec<(ModelId, u32)>,
}

impl Kernel {
    /// Bytes of each device that are free, or will be when all that was begun is done.
    pub(super) fn free_soon(&self) -> Vec<u64> {
        let mut free = self.devices.free_soon();
        for model in self.models.values() {
            if let Some(tokens) = model.resize {
                give_part(&mut free, model, tokens);
            }
        }
        free
    }

    /// The least that makes room for the smallest pool that will do; none where nothing does.
    pub(super) fn room_for(&self, id: ModelId, wish: &Wish) -> Option<Plan> {
        let mut plan = Plan { unload: self.idle_models(id), ..Plan::default() };
        let mut free = self.free_soon();
        let mut enough = 0;
        while enough < plan.unload.len() && !wish.fits_at_least(&free) {
            give_all(&mut free, &self.models[&plan.unload[enough]]);
            enough += 1;
        }
        plan.unload.truncate(enough);
        let found = wish.fits_at_least(&free) || self.shrink_until(id, wish, &mut free, &mut plan);
        if !found {
            return None;
        }
        self.spare_who_can_stay(wish, &mut plan);
        Some(plan)
    }

    /// Whether others may still make room that cannot now: they are being loaded, or end what was begun before they are
    /// idle. The devices suffice for the model alone.
    pub(super) fn room_may_come(&self, id: ModelId, wish: &Wish) -> bool {
        let changing =
            |m: &Model| m.placement.is_some() && (!m.is_ready() || m.resize.is_some() || m.ends_soon());
        wish.fits_at_least(&self.devices.sizes()) && self.models.values().any(|m| m.id != id && changing(m))
    }

    /// Models that nobody uses, the one that was used longest ago first.
    fn idle_models(&self, but: ModelId) -> Vec<ModelId> {
        let idle = self.models.values().filter(|m| m.id != but && m.is_idle());
        let mut idle: Vec<_> = idle.map(|m| (m.last_use, m.id)).collect();
        idle.sort_unstable();
        idle.into_iter().map(|(_, id)| id).collect()
    }

    /// Takes from the pools of models in use, the one with most to give first, and from the last one no more than
    /// is needed.
    fn shrink_until(&self, but: ModelId, wish: &Wish, free: &mut Vec<u64>, plan: &mut Plan) -> bool {
        let floors = self.models.values().filter(|m| m.id != but && !plan.unload.contains(&m.id));
        let floors = floors.filter_map(|m| Some((m, self.pool_floor(m)?)));
        let mut givers: Vec<_> = floors.map(|(m, floor)| (gain(m, floor), m, floor)).collect();
        givers.sort_by_key(|(gain, m, _)| (std::cmp::Reverse(*gain), m.id));
        for (_, model, floor) in givers {
            let mut given = free.clone();
            give_part(&mut given, model, floor);
            if !wish.fits_at_least(&given) {
                *free = given;
                plan.shrink.push((model.id, floor));
                continue;
            }
            plan.shrink.push((model.id, largest_that_helps(model, floor, wish, free)));
            return true;
        }
        false
    }

    /// Leaves those loaded whose memory turned out not to be needed, the most recently used first.
    fn spare_who_can_stay(&self, wish: &Wish, plan: &mut Plan) {
        for at in (0..plan.unload.len()).rev() {
            let mut free = self.free_soon();
            let others = plan.unload.iter().enumerate().filter(|(n, _)| *n != at);
            others.for_each(|(_, id)| give_all(&mut free, &self.models[id]));
            plan.shrink.iter().for_each(|(id, tokens)| give_part(&mut free, &self.models[id], *tokens));
            if wish.fits_at_least(&free) {
                plan.unload.remove(at);
            }
        }
    }

    /// Carries a plan out.
    pub(super) fn make_room(&mut self, plan: Plan) {
        plan.unload.into_iter().for_each(|id| self.unload(id));
        for (id, tokens) in plan.shrink {
            self.shrink(id, tokens);
        }
    }

    /// Takes the memory of a model that nobody uses. It stays mounted.
    fn unload(&mut self, id: ModelId) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let worker = model.worker();
        model.state = State::Unloaded;
        model.placement = None;
        model.resize = None;
        // What its worker still says is not heard.
        model.incarnation += 1;
        model.worker_os_pid = 0;
        let message = format!("model {} is unloaded: another one needs its memory", model.name);
        self.lose_pages(id);
        self.devices.leave(worker);
        self.out.push(Effect::StopWorker { worker });
        self.out.push(Effect::Log(LogLevel::Info, message));
    }
}

impl Model {
    /// Whether it could be unloaded without anybody noticing but by the time of the next call.
    fn is_idle(&self) -> bool {
        self.is_ready() && self.is_left() && self.in_flight.is_none() && !self.questions.any()
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
fn give_all(free: &mut [u64], model: &Model) {
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
