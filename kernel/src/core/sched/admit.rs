//! Who has memory, before anybody has a row: frames for what running contexts have grown by, then room for those
//! that wait.

use std::collections::BTreeSet;

use syscalls::ContextId;

use super::super::Kernel;
use super::super::event::ModelId;
use super::super::memory::{Outlook, Reach, Room};
use super::PrefixWaits;

/// Generations in line that are looked at before a step; more would make the step wait.
const ADMISSIONS_LOOKED_AT: usize = 32;

impl Kernel {
    /// Gives running contexts that lack frames those for what came to their logs, in this order. Those that must wait
    /// are named.
    pub(super) fn grow_running(&mut self, model: ModelId, lacking: &[ContextId]) -> BTreeSet<ContextId> {
        let mut waits = BTreeSet::new();
        let before = self.models.get(&model).map_or(0, |m| m.sched.running.len());
        for id in lacking.iter().copied() {
            // One before it may have taken its pages in the meantime.
            if self.contexts.get(&id).is_none_or(|c| c.resident.is_none()) {
                continue;
            }
            match self.grow_in_group(id) {
                Room::Made => {}
                Room::Wait | Room::OwnLimit => drop(waits.insert(id)),
                Room::Never(fault) => self.fail_generation(id, fault),
            }
        }
        if let Some(model) = self.models.get_mut(&model) {
            model.sched.full |= model.sched.running.len() < before;
        }
        waits
    }

    /// Brings generations that wait into memory, as far as there is room. Tells who of them waits for a prefix, and
    /// for whom.
    pub(super) fn admit_waiting(&mut self, model: ModelId) -> PrefixWaits {
        let mut for_prefixes = PrefixWaits::new();
        self.admit_in_turn(model, &mut for_prefixes);
        for_prefixes
    }

    fn admit_in_turn(&mut self, model: ModelId, for_prefixes: &mut PrefixWaits) {
        let mut passed = BTreeSet::new();
        while passed.len() < ADMISSIONS_LOOKED_AT {
            let Some(sched) = self.models.get(&model).map(|m| &m.sched) else { return };
            let Some(first) = sched.line.first_but(&passed) else { return };
            if sched.full && !self.outranks_running(model, first) {
                return;
            }
            let share = match self.outlook(first) {
                Outlook::Wait(computing) => {
                    self.note_prefix_wait(for_prefixes, computing, first);
                    passed.insert(first);
                    continue;
                }
                Outlook::Share(share) => share,
            };
            match self.room_in_group(first, &passed) {
                Room::Made => {}
                Room::Wait | Room::OwnLimit => {
                    passed.insert(first);
                    continue;
                }
                Room::Never(fault) => {
                    self.fail_generation(first, fault);
                    continue;
                }
            }
            match self.admit(first, share) {
                Room::Made => {}
                Room::Wait => return,
                Room::OwnLimit => drop(passed.insert(first)),
                Room::Never(fault) => self.fail_generation(first, fault),
            }
        }
        self.admit_anyway(model);
    }

    /// Brings the first in line in where nobody runs and all that were looked at have let others go first: the soft
    /// limit of a group holds nobody who is alone.
    fn admit_anyway(&mut self, model: ModelId) {
        let Some(sched) = self.models.get(&model).map(|m| &m.sched) else { return };
        let first = sched.line.first_but(&BTreeSet::new()).filter(|_| sched.running.len() == 0);
        let Some((id, Outlook::Share(share))) = first.map(|id| (id, self.outlook(id))) else { return };
        let pages = self.contexts.get(&id).map_or(0, |c| c.pages());
        let room = match self.group_room(id, pages, false) {
            Room::Made => self.admit(id, share),
            other => other,
        };
        if let Room::Never(fault) = room {
            self.fail_generation(id, fault);
        }
    }

    fn grow_in_group(&mut self, id: ContextId) -> Room {
        let Some(context) = self.contexts.get(&id) else { return Room::Wait };
        // A page of its own in place of a shared one is no page more.
        let more = context.pages().saturating_sub(context.frames());
        match self.group_room(id, more, true) {
            Room::Made => self.grow(id, Reach::Juniors),
            other => other,
        }
    }

    /// Whether the groups of a context that waits have room for it. Those above their soft limit let others go first.
    fn room_in_group(&mut self, id: ContextId, passed: &BTreeSet<ContextId>) -> Room {
        let Some(context) = self.contexts.get(&id) else { return Room::Wait };
        let (owner, model) = (context.owner, context.model);
        let lacks = context.pages();
        if self.above_soft_limit(owner) {
            let mut passed = passed.clone();
            passed.insert(id);
            let others = self.models.get(&model).and_then(|m| m.sched.line.first_but(&passed));
            if others.is_some() {
                return Room::Wait;
            }
        }
        self.group_room(id, lacks, false)
    }

    /// Whether a context that waits is of a higher class than some context that runs, or nobody runs.
    fn outranks_running(&self, model: ModelId, id: ContextId) -> bool {
        let Some(sched) = self.models.get(&model).map(|m| &m.sched) else { return false };
        let lowest = sched.running.iter().map(|runner| runner.owner.class).max();
        let own = self.seniority(id).map(|(class, _)| class);
        lowest.is_none_or(|lowest| own.is_some_and(|own| own < lowest))
    }
}
