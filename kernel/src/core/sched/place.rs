//! Keeping every context where the scheduler should have it. Whoever changes what decides that (the generation,
//! the pages, the process's state or class, the reader's) calls [`Kernel::settle`] afterwards, so that a step looks
//! at contexts that can run and at no others, however many there are.

use syscalls::event::PageChange;
use syscalls::{ContextId, Pid};

use super::super::Kernel;
use super::super::event::ModelId;
use super::super::process::Run;
use super::line::Standing;
use super::{Place, weight};

impl Kernel {
    /// Moves a context to its place.
    pub(in crate::core) fn settle(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get(&id) else { return };
        let owner = context.owner;
        let Some(process) = self.processes.living(owner) else { return };
        let congested = self.connections.get(&process.conn).is_none_or(|c| c.congested);
        let may_run = process.run == Run::Going && !congested && !context.is_compacting();
        let runs = context.generation.is_some() && may_run;
        let wanted = match (runs, context.resident.is_some()) {
            (true, true) => Place::Running,
            (true, false) => Place::Waiting,
            (false, true) => Place::Idle(0),
            (false, false) => Place::Parked,
        };
        let stays = match (context.place, wanted) {
            (Place::Idle(_), Place::Idle(_)) => true,
            (now, wanted) => now == wanted,
        };
        let model = context.model;
        if !stays {
            self.unplace(id);
            self.enter_place(id, owner, wanted);
        }
        self.enroll_context(id);
        self.stand_in_line(model, owner);
    }

    /// Takes a context out of the scheduler.
    pub(in crate::core) fn unplace(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let Some(model) = self.models.get_mut(&context.model) else { return };
        match std::mem::replace(&mut context.place, Place::Parked) {
            Place::Parked => {}
            Place::Idle(tick) => {
                model.sched.idle.remove(&(tick, id));
            }
            Place::Waiting => model.sched.line.remove(context.owner, id),
            Place::Running => {
                model.sched.running.remove(&(context.owner, id));
                model.sched.full = false;
            }
        }
    }

    fn enter_place(&mut self, id: ContextId, owner: Pid, place: Place) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let (model_id, call) = (context.model, context.generating());
        if matches!(place, Place::Waiting | Place::Running) {
            self.wake(model_id, owner);
        }
        let Some(standing) = self.standing(model_id, owner) else { return };
        let (Some(context), Some(model)) = (self.contexts.get_mut(&id), self.models.get_mut(&model_id))
        else {
            return;
        };
        let sched = &mut model.sched;
        let length = context.length();
        context.place = place;
        match (place, call) {
            (Place::Idle(_), _) => {
                let tick = sched.tick();
                context.place = Place::Idle(tick);
                sched.idle.insert((tick, id));
            }
            (Place::Waiting, Some(call)) => sched.line.insert(owner, call, id, standing),
            (Place::Running, _) => {
                sched.running.insert((owner, id));
            }
            (Place::Parked | Place::Waiting, _) => {}
        }
        if place == Place::Waiting {
            self.pages_changed(id, PageChange::Waits, length);
        }
    }

    /// A process that had nothing to run begins at the virtual time of its class, so that a rest earns no credit.
    fn wake(&mut self, model: ModelId, pid: Pid) {
        let Some(process) = self.processes.living(pid) else { return };
        let Some(model) = self.models.get_mut(&model) else { return };
        let sched = &mut model.sched;
        if sched.line.has(pid) || sched.running_of(pid) > 0 {
            return;
        }
        let clock = *sched.clock(process.id.class);
        let fair = sched.fair.entry(pid).or_default();
        *fair = fair.later(clock);
    }

    /// Brings a process that has generations in line to where it stands now.
    pub(super) fn stand_in_line(&mut self, model: ModelId, pid: Pid) {
        let Some(standing) = self.standing(model, pid) else { return };
        if let Some(model) = self.models.get_mut(&model) {
            model.sched.line.stand(pid, standing);
        }
    }

    fn standing(&self, model: ModelId, pid: Pid) -> Option<Standing> {
        let process = self.processes.living(pid)?;
        let sched = &self.models.get(&model)?.sched;
        let load = sched.running_of(pid) as u64 * (1 << 20) / weight(process.id.nice);
        Some(Standing { class: process.id.class, load, service: sched.attained(pid).service })
    }
}
