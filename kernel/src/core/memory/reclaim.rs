//! Making room: who has to give pages back when somebody needs them.

use syscalls::call::Class;
use syscalls::{ContextId, Errno, Fault, Pid};

use super::super::Kernel;
use super::super::call::CallNo;
use super::super::event::ModelId;
use super::super::sched::Place;

/// What came of asking for room.
pub(in crate::core) enum Room {
    /// It is there, and taken.
    Made,
    /// It is not there while others run.
    Wait,
    /// It cannot be there.
    Never(Fault),
}

/// How much a context may take from running ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::core) enum Reach {
    /// From those of lower classes: it wants to come in.
    LowerClasses,
    /// From those of lower classes and from later generations: it is in and grows.
    Juniors,
}

impl Kernel {
    /// Brings a context that waits into memory, with room for its whole log.
    pub(in crate::core) fn admit(&mut self, id: ContextId, mut share: Option<(ContextId, u32)>) -> Room {
        let Some(context) = self.contexts.get(&id) else { return Room::Wait };
        let model = context.model;
        while !self.models.get(&model).and_then(|m| m.memory.as_ref()).is_some_and(|m| m.asids.any_free()) {
            let spare = share.map(|(giver, _)| giver);
            match self.victim(model, id, spare, Reach::LowerClasses) {
                Some(victim) => self.release_pages(victim),
                // There is no sequence for both: what could be shared is worth less than going on.
                None if share.take().is_some() => {}
                None => return Room::Wait,
            }
        }
        if let Some((giver, length)) = share {
            self.share_pages(giver, id, length);
        }
        if self.contexts.get(&id).is_some_and(|c| c.resident.is_none()) && !self.lend_sequence(id) {
            return Room::Wait;
        }
        let room = self.grow(id, Reach::LowerClasses);
        if !matches!(room, Room::Made) {
            self.release_pages(id);
        }
        room
    }

    /// Takes the frames that a resident context lacks for its whole log.
    pub(in crate::core) fn grow(&mut self, id: ContextId, reach: Reach) -> Room {
        loop {
            let Some(context) = self.contexts.get(&id) else { return Room::Wait };
            let (model_id, owner, length) = (context.model, context.owner, context.length());
            let Some(memory) = self.models.get(&model_id).and_then(|m| m.memory.as_ref()) else {
                return Room::Wait;
            };
            let Some(resident) = context.resident.as_ref() else { return Room::Wait };
            let lacks = memory.lacks(resident, length);
            if lacks == 0 {
                return Room::Made;
            }
            if let Some(room) = self.within_limit(owner, id, lacks) {
                return room;
            }
            if self.frames_free(model_id) >= lacks {
                self.take_frames(id, length);
                return Room::Made;
            }
            match self.victim(model_id, id, None, reach) {
                Some(victim) => self.release_pages(victim),
                None => return self.no_room(model_id, id, lacks),
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
        memory.fill(resident, length);
        let more = (resident.pages.len() - before) as u64;
        if let Some(process) = self.processes.living_mut(context.owner) {
            process.frames += more;
        }
    }

    /// Checks a process's own limit of frames: contexts of its own that do not run give theirs first.
    fn within_limit(&mut self, owner: Pid, id: ContextId, lacks: u32) -> Option<Room> {
        loop {
            let process = self.processes.living(owner)?;
            let most = process.limits.resident_frames?;
            if process.frames + u64::from(lacks) <= most {
                return None;
            }
            let others =
                || process.contexts.iter().filter(|c| **c != id).filter_map(|c| self.contexts.get(c));
            if let Some(idle) = others().find(|c| matches!(c.place, Place::Idle(_)) && !c.in_step) {
                let idle = idle.id;
                self.release_pages(idle);
                continue;
            }
            if others().any(|c| c.resident.is_some()) {
                return Some(Room::Wait);
            }
            let (has, pid) = (process.frames, owner);
            return Some(Room::Never(Fault::new(
                Errno::ENOMEM,
                format!(
                    "process {pid} has {has} frames and needs {lacks} more; its limit is {most}, raise it with setlimit"
                ),
            )));
        }
    }

    /// Who gives pages back next: the context that has not run for longest, else a running one within reach that
    /// comes last.
    fn victim(
        &self,
        model: ModelId,
        id: ContextId,
        spare: Option<ContextId>,
        reach: Reach,
    ) -> Option<ContextId> {
        let sched = &self.models.get(&model)?.sched;
        let usable = |c: &ContextId| *c != id && Some(*c) != spare;
        let in_step = |c: &ContextId| self.contexts.get(c).is_some_and(|c| c.in_step);
        let idle = sched.idle().find(|c| usable(c) && !in_step(c));
        if idle.is_some() {
            return idle;
        }
        let own = self.seniority(id)?;
        let running = sched.running().filter(|c| usable(c) && !in_step(c));
        let last = running.filter_map(|c| Some((self.seniority(c)?, c))).max()?;
        let taken = match reach {
            Reach::LowerClasses => last.0.0 > own.0,
            Reach::Juniors => last.0 > own,
        };
        taken.then_some(last.1)
    }

    /// The order among running contexts: the class, then the time at which the generation was asked for.
    pub(in crate::core) fn seniority(&self, id: ContextId) -> Option<(Class, CallNo)> {
        let context = self.contexts.get(&id)?;
        let class = self.processes.living(context.owner)?.class();
        Some((class, context.generating()?))
    }

    fn no_room(&self, model: ModelId, id: ContextId, lacks: u32) -> Room {
        let Some(model) = self.models.get(&model) else { return Room::Wait };
        let Some(memory) = &model.memory else { return Room::Wait };
        let others = model.sched.running().any(|c| c != id) || model.in_flight.is_some();
        if others {
            return Room::Wait;
        }
        let (free, total) = (memory.pool.free(), memory.pool.total());
        Room::Never(Fault::new(
            Errno::ENOMEM,
            format!(
                "context {id} needs {lacks} more frames; {free} of {total} are free and nobody can give more: mount the model with a larger --context"
            ),
        ))
    }
}
