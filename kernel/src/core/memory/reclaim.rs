//! Making room: who has to give pages back when somebody needs them.

use drivers::wire::PAGE_TOKENS;
use syscalls::call::Class;
use syscalls::{ContextId, Fault, Pid};

use super::super::Kernel;
use super::super::call::CallNo;
use super::super::event::ModelId;
use super::super::model::Model;
use super::super::sched::{Place, Runner};

/// What came of asking for room.
pub(in crate::core) enum Room {
    /// It is there, and taken.
    Made,
    /// It is not there while others run.
    Wait,
    /// It is not there while certain others run: whoever is behind it in line need not wait, but for these.
    OwnLimit(Behind),
    /// It cannot be there.
    Never(Fault),
}

/// Who stays behind a context in line that waits at a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) enum Behind {
    /// Nobody: it waits for what another context computes.
    Nobody,
    /// The other contexts of its process, which has no room: the first of them would wait for ever if smaller ones took
    /// what it waits for.
    Process,
    /// Those of its group, for the same reason.
    Group,
}

/// How much a context may take from running ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::core) enum Reach {
    /// From those of lower classes: it wants to come in.
    LowerClasses,
    /// From those of lower classes and from later generations: it is in and grows.
    Juniors,
    /// From all but those of the class realtime: it has a turn in memory.
    All,
}

/// Whoever gives pages back.
#[derive(Clone, Copy)]
enum Victim {
    /// A remnant, or a context that does not run: it gives single pages.
    Cached(ContextId),
    /// A context that runs: it gives all.
    Running(ContextId),
}

impl Kernel {
    /// Brings a context that waits into memory, with room for its whole log.
    pub(in crate::core) fn admit(
        &mut self,
        id: ContextId,
        share: Option<(ContextId, u32)>,
        reach: Reach,
    ) -> Room {
        let Some(context) = self.contexts.get(&id) else { return Room::Wait };
        let (model, owner, pages) = (context.model, context.owner, context.pages());
        if let Some(room) = self.within_limit(owner, id, pages) {
            return room;
        }
        if self.is_out_of_reach(model, id, share, reach) {
            return self.no_room(model, id);
        }
        self.keep_saved(id, share);
        let room = self.admit_with(model, id, share, reach);
        if let Some(model) = self.models.get_mut(&model) {
            model.slots.keep_none();
        }
        room
    }

    /// Whether a context that wants to come in, and may share what another sequence has, would lack frames although all
    /// gave theirs that have to. Then nobody gives any.
    fn is_out_of_reach(
        &self,
        model_id: ModelId,
        id: ContextId,
        share: Option<(ContextId, u32)>,
        reach: Reach,
    ) -> bool {
        let (Some(model), Some(context)) = (self.models.get(&model_id), self.contexts.get(&id)) else {
            return true;
        };
        let (Some(memory), Some(own)) = (&model.memory, self.seniority(id)) else { return true };
        let stays = |runner: &&Runner| !self.gives(model, runner, own, reach);
        let giver = share.map(|(giver, _)| giver);
        let giver_stays = model.sched.running.iter().filter(stays).any(|r| Some(r.context) == giver);
        let stay = model.sched.running.iter().filter(stays);
        let stay = stay.filter_map(|runner| self.contexts.get(&runner.context)?.resident.as_ref());
        // Of a page that is shared in part it needs a copy of its own.
        let shared = share.map_or(0, |(_, length)| length / PAGE_TOKENS);
        // Whoever shares pages keeps them in the pool, although the one that they are of gives its own.
        let kept = giver.filter(|_| !giver_stays).and_then(|giver| self.resident(model_id, giver));
        let kept = kept.into_iter().flat_map(|r| r.pages.iter().take(shared as usize));
        let taken = memory.pool.frames_of(stay.flat_map(|r| &r.pages).chain(kept));
        memory.pool.total() + shared < taken + context.pages()
    }

    fn admit_with(
        &mut self,
        model: ModelId,
        id: ContextId,
        mut share: Option<(ContextId, u32)>,
        reach: Reach,
    ) -> Room {
        if share.is_some_and(|(giver, length)| self.adopt(giver, id, length, false)) {
            share = None;
        }
        while self.lacks_sequence(model, id) {
            let spare = share.map(|(giver, _)| giver);
            match self.victim(model, id, spare, reach) {
                Some(Victim::Cached(victim) | Victim::Running(victim)) => self.swap_out(model, victim),
                // There is no sequence for both: it takes the other's, or what could be shared is worth less than
                // going on.
                None => match share.take() {
                    Some((giver, length)) => drop(self.adopt(giver, id, length, true)),
                    None => return Room::Wait,
                },
            }
        }
        if let Some((giver, length)) = share {
            self.share_pages(giver, id, length);
        }
        if self.contexts.get(&id).is_some_and(|c| c.resident.is_none()) && !self.lend_sequence(id) {
            return Room::Wait;
        }
        let room = self.grow(id, reach);
        if !matches!(room, Room::Made) {
            self.leave_remnant(id);
        }
        room
    }

    fn lacks_sequence(&self, model: ModelId, id: ContextId) -> bool {
        let free =
            self.models.get(&model).and_then(|m| m.memory.as_ref()).is_some_and(|m| m.asids.any_free());
        !free && self.contexts.get(&id).is_some_and(|c| c.resident.is_none())
    }

    /// Takes the frames that a resident context lacks for its whole log.
    pub(in crate::core) fn grow(&mut self, id: ContextId, reach: Reach) -> Room {
        loop {
            let Some(context) = self.contexts.get(&id) else { return Room::Wait };
            let (model_id, owner, length) = (context.model, context.owner, context.length());
            // A page of its own in place of a shared one is no page more.
            let more = context.pages().saturating_sub(context.frames());
            let Some(memory) = self.models.get(&model_id).and_then(|m| m.memory.as_ref()) else {
                return Room::Wait;
            };
            let Some(resident) = context.resident.as_ref() else { return Room::Wait };
            let lacks = memory.lacks(resident, length);
            if lacks == 0 {
                return Room::Made;
            }
            if let Some(room) = self.within_limit(owner, id, more) {
                return room;
            }
            if self.frames_free(model_id) >= lacks {
                self.take_frames(id, length);
                return Room::Made;
            }
            match self.victim(model_id, id, None, reach) {
                Some(Victim::Cached(victim)) => self.evict(model_id, victim, lacks),
                Some(Victim::Running(victim)) => self.swap_out(model_id, victim),
                None => return self.no_room(model_id, id),
            }
        }
    }

    fn frames_free(&self, model: ModelId) -> u32 {
        self.models.get(&model).map_or(0, |m| m.frames().1)
    }

    fn take_frames(&mut self, id: ContextId, length: u32) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let memory = self.models.get_mut(&context.model).and_then(|m| m.memory.as_mut());
        let (Some(memory), Some(resident)) = (memory, context.resident.as_mut()) else { return };
        let before = resident.pages.len();
        memory.fill(resident, length, context.space.uid);
        let more = (resident.pages.len() - before) as u64;
        if let Some(process) = self.processes.living_mut(context.owner) {
            process.frames += more;
        }
    }

    /// Checks a process's own limit of frames: contexts of its own that do not run give theirs first.
    fn within_limit(&mut self, owner: Pid, id: ContextId, more: u32) -> Option<Room> {
        loop {
            let process = self.processes.living(owner)?;
            let most = process.limits.resident_frames?;
            if process.frames + u64::from(more) <= most {
                return None;
            }
            let others =
                || process.contexts.iter().filter(|c| **c != id).filter_map(|c| self.contexts.get(c));
            let idle = others().filter(|c| matches!(c.place, Place::Idle(_)) && !c.in_step);
            if let Some(idle) = idle.max_by_key(|c| self.gain_of_idle(c.id)) {
                let (model, idle) = (idle.model, idle.id);
                self.swap_out(model, idle);
                continue;
            }
            // Of those that run, later ones give way to earlier ones, as between processes.
            let own = self.seniority(id);
            let last = others().filter(|c| c.resident.is_some() && !c.in_step);
            let last = last.filter_map(|c| Some((self.seniority(c.id)?, c.model, c.id))).max();
            if let Some((_, model, junior)) = last.filter(|(theirs, _, _)| Some(*theirs) > own) {
                self.swap_out(model, junior);
                continue;
            }
            return Some(match others().any(|c| c.resident.is_some()) {
                true => Room::OwnLimit(Behind::Process),
                false => self.no_room_alone(id),
            });
        }
    }

    /// Who gives pages back next: a sequence that nobody runs, else a running one within reach that comes last.
    fn victim(
        &self,
        model: ModelId,
        id: ContextId,
        spare: Option<ContextId>,
        reach: Reach,
    ) -> Option<Victim> {
        let usable = |c: &ContextId| *c != id && Some(*c) != spare;
        if let Some(cached) = self.cached_victim(model, &usable) {
            return Some(Victim::Cached(cached));
        }
        let own = self.seniority(id)?;
        let model = self.models.get(&model)?;
        let in_step = |c: &ContextId| self.contexts.get(c).is_some_and(|c| c.in_step);
        let mut last = None;
        // Whether one is in the step is looked up last, and of few.
        for runner in model.sched.running.iter().rev() {
            let found = Some((runner.seniority(), runner.context));
            if found > last
                && self.gives(model, runner, own, reach)
                && usable(&runner.context)
                && !in_step(&runner.context)
            {
                last = found;
            }
        }
        last.map(|(_, context)| Victim::Running(context))
    }

    /// Whether a running context gives its pages to one of that seniority.
    fn gives(&self, model: &Model, runner: &Runner, to: (Class, CallNo), reach: Reach) -> bool {
        let theirs = runner.seniority();
        let within = match reach {
            Reach::LowerClasses => theirs.0 > to.0,
            Reach::Juniors => theirs > to,
            Reach::All => theirs.0 > Class::Realtime,
        };
        match model.sched.is_guest(runner.context) {
            true => within && to.0 == Class::Realtime,
            false => within || theirs.0 == to.0 && self.rests(model, runner),
        }
    }

    /// Whether a running context gives its pages to those of its class as one that is idle does: its process, or group,
    /// has used its rate up, and it has been in memory for longer than its return would take. So at most half of its
    /// time goes into returns, however low its rate is.
    pub(in crate::core) fn rests(&self, model: &Model, runner: &Runner) -> bool {
        if self.throttled_until(&runner.owner).is_none() {
            return false;
        }
        let frames = self.contexts.get(&runner.context).map_or(0, |c| c.frames());
        let return_us = model.return_us(false).saturating_mul(frames.into());
        self.now.0.saturating_sub(runner.since.0) > return_us
    }

    /// The order among running contexts: the class, then the time at which the generation was asked for.
    pub(in crate::core) fn seniority(&self, id: ContextId) -> Option<(Class, CallNo)> {
        let context = self.contexts.get(&id)?;
        let class = self.processes.living(context.owner)?.class();
        Some((class, context.generating()?))
    }

    fn no_room(&self, model: ModelId, id: ContextId) -> Room {
        let Some(model) = self.models.get(&model) else { return Room::Wait };
        match model.sched.running.iter().any(|runner| runner.context != id) || model.in_flight.is_some() {
            true => Room::Wait,
            false => self.no_room_alone(id),
        }
    }
}
