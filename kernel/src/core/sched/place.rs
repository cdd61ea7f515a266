//! Keeping every context where the scheduler should have it. Whoever changes what decides that (the generation,
//! the pages, the process's state or class, the reader's) calls [`Kernel::settle`] afterwards, so that a step looks
//! at contexts that can run and at no others, however many there are.

use syscalls::event::PageChange;
use syscalls::{ContextId, Pid};

use super::super::Kernel;
use super::super::event::ModelId;
use super::super::group::GroupId;
use super::super::model::Model;
use super::super::process::{Process, Run};
use super::Place;
use super::line::Standing;
use super::policy::{Policy, View};
use super::running::{Owner, Runner};
use super::weight::weight;

impl Kernel {
    /// Moves a context to its place.
    pub(in crate::core) fn settle(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get(&id) else { return };
        let owner = context.owner;
        let Some(process) = self.processes.living(owner) else { return };
        let may_run = process.run == Run::Going && self.is_read(process) && !context.is_compacting();
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
            let before = self.leave_place(id);
            // One that was pushed out, or found no room after all, has left none that others could have.
            if before == Place::Running && wanted != Place::Waiting {
                self.let_others_in(model);
            }
            self.enter_place(id, owner, wanted);
            if before.runs() && !wanted.runs() {
                self.note_rest(model);
            }
        }
        self.enroll_context(id);
        self.stand_in_line(model, owner);
    }

    /// Takes a context out of the scheduler.
    pub(in crate::core) fn unplace(&mut self, id: ContextId) {
        let Some(model) = self.contexts.get(&id).map(|c| c.model) else { return };
        if self.leave_place(id) == Place::Running {
            self.let_others_in(model);
        }
    }

    /// A generation has ended or was stopped, so there may be room where there was none.
    fn let_others_in(&mut self, model: ModelId) {
        self.models.get_mut(&model).into_iter().for_each(|model| model.sched.full = false);
    }

    /// Takes a context from where it is, and tells where that was.
    fn leave_place(&mut self, id: ContextId) -> Place {
        self.count_place(id, -1);
        let Some(context) = self.contexts.get_mut(&id) else { return Place::Parked };
        let Some(model) = self.models.get_mut(&context.model) else { return Place::Parked };
        let before = std::mem::replace(&mut context.place, Place::Parked);
        match before {
            Place::Parked => {}
            Place::Idle(due) => drop(model.sched.idle.remove(&(due, id))),
            Place::Waiting => model.sched.line.remove(context.owner, id),
            Place::Running => model.sched.running.leave(context.owner, id),
        }
        before
    }

    fn enter_place(&mut self, id: ContextId, owner: Pid, place: Place) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let generation = context.generation.as_ref().map(|g| (g.call, g.deadline));
        let Some(model) = self.models.get_mut(&context.model) else { return };
        let lacks_room = model.lacks_room();
        let sched = &mut model.sched;
        let length = context.length();
        context.place = place;
        let mut group = GroupId::ROOT;
        if let (true, Some(process)) = (place.runs(), self.processes.living(owner)) {
            group = process.id.group;
            sched.arrive(process.class());
        }
        match (place, generation) {
            (Place::Idle(_), _) => {
                let usual = self.processes.living(owner).and_then(|process| process.idle_us);
                let due = sched.tick(self.now).saturating_add(usual.unwrap_or(0));
                context.place = Place::Idle(due);
                sched.idle.insert((due, id));
            }
            (Place::Waiting, Some((call, deadline))) => {
                if let Some(process) = self.processes.living(owner) {
                    sched.accounts.open(owner, (process.class(), process.id.group), model.steps_begun);
                }
                sched.line.insert((owner, group), (deadline, call), id);
            }
            (Place::Running, Some((call, _))) => {
                if let Some(process) = self.processes.living(owner) {
                    let standing = (process.class(), process.id.group);
                    let account = sched.accounts.open(owner, standing, model.steps_begun);
                    let owner = Owner::of(process, account);
                    sched.running.enter(Runner { context: id, call, owner, since: self.now });
                }
            }
            (Place::Parked | Place::Waiting | Place::Running, _) => {}
        }
        self.count_place(id, 1);
        if place == Place::Waiting {
            if lacks_room {
                self.devices.reconsider();
            }
            self.pages_changed(id, PageChange::Waits, length);
        }
    }

    /// Counts a context that has come to where it is, or leaves from there, for the pressure on its groups.
    fn count_place(&mut self, id: ContextId, by: i32) {
        let Some(context) = self.contexts.get(&id) else { return };
        let Some(process) = self.processes.living(context.owner) else { return };
        let (waiting, running) = match context.place {
            Place::Waiting => (by, 0),
            Place::Running => (0, by),
            Place::Parked | Place::Idle(_) => return,
        };
        self.groups.count_tasks(process.id.group, self.now, waiting, running, 0);
    }

    /// Counts the rows of a step that begins or is over, for the pressure on their groups.
    pub(in crate::core) fn count_rows(&mut self, rows: &[(GroupId, i32)], by: i32) {
        for (group, count) in rows {
            self.groups.count_tasks(*group, self.now, 0, 0, count * by);
        }
    }

    /// Brings a process that has generations in line to where it stands now.
    pub(super) fn stand_in_line(&mut self, model: ModelId, pid: Pid) {
        let Some(model) = self.models.get_mut(&model) else { return };
        let Some((deadline, call)) = model.sched.line.first_of(pid) else { return };
        let Some(process) = self.processes.living(pid) else { return };
        let (class, account) = (process.class(), model.sched.accounts.process(pid));
        let policy = self.config.policy;
        let rank = policy.rank(&View { class, now: self.now, call, deadline, account });
        let load = match policy.is_fair() {
            true => model.sched.running.of(pid) as u64 * (1 << 20) / weight(process.id.nice),
            false => 0,
        };
        model.sched.line.stand(pid, Standing { class, due: rank.due, load, rank });
    }

    /// Brings those in line to where they stand in a new period of the policy, since they do nothing that would.
    pub(super) fn stand_in_period(&mut self, id: ModelId) {
        let period = self.config.policy.period(self.now);
        let Some(model) = self.models.get_mut(&id) else { return };
        if std::mem::replace(&mut model.sched.period, period) == period {
            return;
        }
        let pids: Vec<Pid> = model.sched.line.pids().collect();
        pids.into_iter().for_each(|pid| self.stand_in_line(id, pid));
    }

    /// Brings a process to where it stands in another class, and notes it as an arrival where it has something to run.
    pub(in crate::core) fn class_changed(&mut self, pid: Pid) {
        let Some(class) = self.processes.living(pid).map(Process::class) else { return };
        self.recall(pid);
        let models: Vec<ModelId> = self.models.keys().copied().collect();
        for id in models {
            self.stand_in_line(id, pid);
            let Some(model) = self.models.get_mut(&id) else { continue };
            if model.sched.running.of(pid) > 0 || model.sched.line.first_of(pid).is_some() {
                model.sched.arrive(class);
            }
        }
    }

    /// Takes again what is copied of a process into the array of generations in memory: its class, its nice value, and
    /// whether it has a rate. Whoever changes one of these calls this.
    pub(in crate::core) fn recall(&mut self, pid: Pid) {
        let Some(process) = self.processes.living(pid) else { return };
        self.models.values_mut().for_each(|model| model.sched.running.recall(process));
    }

    /// Changes how the contexts of a class share a model. What processes have attained under another policy says nothing
    /// under the new one, so all begin level.
    pub(in crate::core) fn set_policy(&mut self, policy: Policy) {
        if policy == self.config.policy {
            return;
        }
        self.config.policy = policy;
        self.models.values_mut().for_each(|model| model.sched.accounts.level());
        let waiting =
            |(id, m): (&ModelId, &Model)| m.sched.line.pids().map(|pid| (*id, pid)).collect::<Vec<_>>();
        let all: Vec<(ModelId, Pid)> = self.models.iter().flat_map(waiting).collect();
        for (model, pid) in all {
            self.stand_in_line(model, pid);
        }
    }
}
