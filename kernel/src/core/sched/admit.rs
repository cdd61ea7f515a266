//! Who has memory, before anybody has a row: frames for what running contexts have grown by, then room for those
//! that wait.

use std::collections::BTreeSet;

use syscalls::ContextId;

use super::super::Kernel;
use super::super::event::{ModelId, Now};
use super::super::group::GroupId;
use super::super::memory::{Behind, Outlook, Reach, Room};
use super::super::model::Model;
use super::PrefixWaits;
use super::line::PassedOver;

/// Generations in line that are looked at in vain before a step; more would make the step wait. The next step goes on
/// behind them, so nobody waits for ever behind however many that are at limits of their own.
const ADMISSIONS_LOOKED_AT: usize = 32;

/// When a look at the line goes on where no step comes that it could go on with, in microseconds: the kernel has time for
/// others in between.
const LOOK_ON_US: u64 = 1000;

/// What came of looking at the line.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission {
    /// Who waits for a prefix, and for whom.
    pub for_prefixes: PrefixWaits,
    /// When the first of those who have used their rates up may go on.
    pub throttled_until: Option<Now>,
}

/// A look along the line, which may take several steps.
#[derive(Debug, Default)]
pub(super) struct Look {
    passed: PassedOver,
    admission: Admission,
}

/// How far a look has come in a step.
enum Looked {
    /// Nobody is left who could come in.
    AtAll,
    /// As many were passed over as a step has time for.
    AtEnough,
}

impl Kernel {
    /// Gives running contexts that lack frames those for what came to their logs, in this order. Those that must wait
    /// are named.
    pub(super) fn grow_running(&mut self, model: ModelId, lacking: &[ContextId]) -> BTreeSet<ContextId> {
        let mut waits = BTreeSet::new();
        let before = self.models.get(&model).map_or(0, |m| m.sched.running.len());
        for id in lacking.iter().copied() {
            // One before it may have taken its pages in the meantime.
            let Some(context) = self.contexts.get(&id).filter(|c| c.resident.is_some()) else { continue };
            // Who has used his rate up has no rows to write into them, and none in this step.
            if self.is_throttled(context.id) {
                continue;
            }
            match self.grow_in_group(id) {
                Room::Made => {}
                Room::Wait | Room::OwnLimit(_) => drop(waits.insert(id)),
                Room::Never(fault) => self.fail_generation(id, fault),
            }
        }
        if let Some(model) = self.models.get_mut(&model) {
            model.sched.full |= model.sched.running.len() < before;
        }
        waits
    }

    /// Brings generations that wait into memory, as far as there is room.
    pub(super) fn admit_waiting(&mut self, model: ModelId) -> Admission {
        self.stand_in_period(model);
        let mut look = self.take_up_look(model);
        self.admit_guest(model, &mut look.admission);
        match self.admit_in_turn(model, &mut look) {
            Looked::AtAll => look.admission,
            Looked::AtEnough => self.go_on_later(model, look),
        }
    }

    /// The look that the last step has left, unless somebody whom it passed over because of his rate may go on by now;
    /// else a new one.
    fn take_up_look(&mut self, model: ModelId) -> Look {
        let now = self.now;
        let left = self.models.get_mut(&model).and_then(|m| m.sched.look.take());
        let holds = |look: &Look| look.admission.throttled_until.is_none_or(|at| at > now);
        left.filter(holds).unwrap_or_default()
    }

    /// Leaves a look to the next step. Where nobody runs who may have rows there is none, and the kernel is to be woken
    /// for it.
    fn go_on_later(&mut self, model: ModelId, look: Look) -> Admission {
        let (mut admission, now) = (look.admission.clone(), self.now);
        let stands_still = self.models.get(&model).is_some_and(|model| {
            model.sched.running.iter().all(|runner| self.throttled_until(&runner.owner).is_some())
        });
        let Some(model) = self.models.get_mut(&model) else { return admission };
        if stands_still {
            let soon = Now(now.0.saturating_add(LOOK_ON_US));
            admission.throttled_until = Some(admission.throttled_until.map_or(soon, |at| at.min(soon)));
        }
        model.sched.look = Some(look);
        admission
    }

    /// In the order of the line, but first those whose groups are within their soft limits. The others come in behind
    /// them, in their order, where nobody is left who could: a soft limit holds nobody who is alone.
    fn admit_in_turn(&mut self, model: ModelId, look: &mut Look) -> Looked {
        let Look { passed, admission } = look;
        let (before, mut courteous) = (passed.len(), true);
        passed.above_soft_limits.clear();
        while passed.len() < before + ADMISSIONS_LOOKED_AT {
            let Some(sched) = self.models.get(&model).map(|m| &m.sched) else { return Looked::AtAll };
            let Some(first) = sched.line.first_but(passed) else {
                if !courteous || passed.above_soft_limits.is_empty() {
                    return Looked::AtAll;
                }
                passed.above_soft_limits.clear();
                courteous = false;
                continue;
            };
            if sched.full && !self.may_come_in_beside(model, first) {
                return Looked::AtAll;
            }
            if courteous && let Some(group) = self.group_above_soft_limit(first) {
                passed.above_soft_limits.insert(group);
                continue;
            }
            if self.pass_over_throttled(first, passed, admission) {
                continue;
            }
            match self.bring_in(first, Reach::LowerClasses, &mut admission.for_prefixes) {
                Room::Made => {}
                Room::Wait => {
                    self.lacks_frames(model);
                    return Looked::AtAll;
                }
                Room::OwnLimit(behind) => self.pass_over(first, behind, passed),
                Room::Never(fault) => self.fail_generation(first, fault),
            }
        }
        Looked::AtEnough
    }

    /// Passes over a generation that waits at a limit of its own, and those that stay behind it.
    fn pass_over(&self, id: ContextId, behind: Behind, passed: &mut PassedOver) {
        let owner = self.contexts.get(&id).and_then(|c| self.processes.living(c.owner));
        match (behind, owner) {
            (Behind::Process, Some(process)) => drop(passed.processes.insert(process.id.pid)),
            (Behind::Group, Some(process)) => drop(passed.groups.insert(process.id.group)),
            (Behind::Nobody, _) | (_, None) => drop(passed.contexts.insert(id)),
        }
    }

    /// Generations wait for frames, so a pool that could be larger has a reason to be.
    fn lacks_frames(&mut self, model: ModelId) {
        if self.models.get(&model).is_some_and(Model::lacks_room) {
            self.devices.reconsider();
        }
    }

    fn is_guest(&self, id: ContextId) -> bool {
        let model = self.contexts.get(&id).and_then(|c| self.models.get(&c.model));
        model.is_some_and(|model| model.sched.is_guest(id))
    }

    /// Whether the process of a context, or its group, has used its rate up.
    pub(super) fn is_throttled(&self, id: ContextId) -> bool {
        let owner = self.contexts.get(&id).and_then(|c| self.processes.living(c.owner));
        owner.is_some_and(|process| self.empty_until(process).is_some())
    }

    /// Passes over a generation whose process, or group, has used its rate up: in memory it would have no rows.
    fn pass_over_throttled(&self, id: ContextId, passed: &mut PassedOver, admission: &mut Admission) -> bool {
        let owner = self.contexts.get(&id).and_then(|c| self.processes.living(c.owner));
        let Some((process, until)) = owner.and_then(|p| Some((p, self.empty_until(p)?))) else {
            return false;
        };
        match self.groups.empty_until(process.id.group, self.now) {
            Some(_) => passed.groups.insert(process.id.group),
            None => passed.processes.insert(process.id.pid),
        };
        admission.throttled_until = Some(admission.throttled_until.map_or(until, |at| at.min(until)));
        true
    }

    /// Brings a generation into memory, if its groups and the pool have room. Those behind one that waits for a prefix
    /// need not wait with it.
    pub(super) fn bring_in(&mut self, id: ContextId, reach: Reach, for_prefixes: &mut PrefixWaits) -> Room {
        let share = match self.outlook(id) {
            Outlook::Wait(computing) => {
                self.note_prefix_wait(for_prefixes, computing, id);
                return Room::OwnLimit(Behind::Nobody);
            }
            Outlook::Share(share) => share,
        };
        let pages = self.contexts.get(&id).map_or(0, |c| c.pages());
        match self.group_room(id, pages, false) {
            Room::Made => self.admit(id, share, reach),
            other => other,
        }
    }

    fn grow_in_group(&mut self, id: ContextId) -> Room {
        let Some(context) = self.contexts.get(&id) else { return Room::Wait };
        // A page of its own in place of a shared one is no page more.
        let more = context.pages().saturating_sub(context.frames());
        match self.group_room(id, more, true) {
            Room::Made => self.grow(id, if self.is_guest(id) { Reach::All } else { Reach::Juniors }),
            other => other,
        }
    }

    /// The group of a context's process, if that or one around it is above its soft limit.
    fn group_above_soft_limit(&self, id: ContextId) -> Option<GroupId> {
        let owner = self.contexts.get(&id)?.owner;
        let group = self.processes.living(owner)?.id.group;
        self.above_soft_limit(owner).then_some(group)
    }

    /// Whether a context that waits may come in although a running one has had to give way: it is of a higher class than
    /// some context that runs, or one of its own class rests, or nobody runs.
    fn may_come_in_beside(&self, id: ModelId, waiting: ContextId) -> bool {
        let Some(model) = self.models.get(&id) else { return false };
        let Some((own, _)) = self.seniority(waiting) else { return false };
        let mut running = model.sched.running.iter();
        model.sched.running.len() == 0
            || running.any(|r| own < r.owner.class || own == r.owner.class && self.rests(model, r))
    }
}
