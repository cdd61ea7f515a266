//! The line of generations that wait for memory, one place in it for each process.

use std::collections::{BTreeMap, BTreeSet};

use syscalls::call::Class;
use syscalls::{ContextId, Pid};

use super::super::call::CallNo;
use super::super::event::Now;
use super::policy::Rank;

/// Later than any deadline.
const NEVER: Now = Now(u64::MAX);

/// What orders processes in the line; the least is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::core) struct Standing {
    pub class: Class,
    /// The deadline of its first generation, where that counts.
    pub due: u64,
    /// Contexts that it has running already, for its weight, where that counts.
    pub load: u64,
    /// What the policy says.
    pub rank: Rank,
}

#[derive(Debug, Default)]
struct Member {
    /// Absent until it has been told where it stands.
    key: Option<(Standing, CallNo, Pid)>,
    /// By deadline, those without one last, and then in the order in which they were asked for.
    contexts: BTreeMap<(Now, CallNo), ContextId>,
}

/// The line.
#[derive(Debug, Default)]
pub(in crate::core) struct Line {
    order: BTreeSet<(Standing, CallNo, Pid)>,
    members: BTreeMap<Pid, Member>,
}

impl Line {
    /// Puts the generation of a process in line; [`Line::stand`] must follow.
    pub(super) fn insert(&mut self, pid: Pid, deadline: Option<Now>, call: CallNo, context: ContextId) {
        let member = self.members.entry(pid).or_default();
        member.contexts.insert((deadline.unwrap_or(NEVER), call), context);
    }

    /// Takes a generation out of the line.
    pub(super) fn remove(&mut self, pid: Pid, context: ContextId) {
        let Some(member) = self.members.get_mut(&pid) else { return };
        member.contexts.retain(|_, c| *c != context);
        if member.contexts.is_empty() {
            if let Some(key) = member.key {
                self.order.remove(&key);
            }
            self.members.remove(&pid);
        }
    }

    /// Moves a process that is in line to where it stands now.
    pub(super) fn stand(&mut self, pid: Pid, standing: Standing) {
        let Some(member) = self.members.get_mut(&pid) else { return };
        let Some(((_, first), _)) = member.contexts.first_key_value() else { return };
        let key = (standing, *first, pid);
        if member.key == Some(key) {
            return;
        }
        if let Some(before) = member.key.replace(key) {
            self.order.remove(&before);
        }
        self.order.insert(key);
    }

    /// Deadline and number of the first generation of a process in line.
    pub(super) fn first_of(&self, pid: Pid) -> Option<(Option<Now>, CallNo)> {
        let ((deadline, call), _) = self.members.get(&pid)?.contexts.first_key_value()?;
        Some((Some(*deadline).filter(|at| *at != NEVER), *call))
    }

    /// The processes in line.
    pub(super) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.members.keys().copied()
    }

    /// Generations in line.
    pub(in crate::core) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The first generation that `skip` does not name.
    pub(super) fn first_but(&self, skip: &BTreeSet<ContextId>) -> Option<ContextId> {
        let contexts = self.order.iter().filter_map(|(_, _, pid)| self.members.get(pid));
        contexts.flat_map(|m| m.contexts.values()).find(|c| !skip.contains(c)).copied()
    }
}
