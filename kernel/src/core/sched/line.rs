//! The line of generations that wait for memory, one place in it for each process.

use std::collections::{BTreeMap, BTreeSet};

use syscalls::call::Class;
use syscalls::{ContextId, Pid};

use super::super::call::CallNo;

/// What orders processes in the line; the least is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::core) struct Standing {
    pub class: Class,
    /// Contexts that it has running already, for its weight.
    pub load: u64,
    /// Its virtual time.
    pub service: u64,
}

#[derive(Debug)]
struct Member {
    key: (Standing, CallNo, Pid),
    contexts: BTreeMap<CallNo, ContextId>,
}

/// The line.
#[derive(Debug, Default)]
pub(in crate::core) struct Line {
    order: BTreeSet<(Standing, CallNo, Pid)>,
    members: BTreeMap<Pid, Member>,
}

impl Line {
    /// Puts the generation of a process in line.
    pub(super) fn insert(&mut self, pid: Pid, call: CallNo, context: ContextId, standing: Standing) {
        let member = self
            .members
            .entry(pid)
            .or_insert_with(|| Member { key: (standing, call, pid), contexts: BTreeMap::new() });
        member.contexts.insert(call, context);
        self.stand(pid, standing);
    }

    /// Takes a generation out of the line.
    pub(super) fn remove(&mut self, pid: Pid, context: ContextId) {
        let Some(member) = self.members.get_mut(&pid) else { return };
        member.contexts.retain(|_, c| *c != context);
        if member.contexts.is_empty() {
            self.order.remove(&member.key);
            self.members.remove(&pid);
        }
    }

    /// Moves a process that is in line to where it stands now.
    pub(super) fn stand(&mut self, pid: Pid, standing: Standing) {
        let Some(member) = self.members.get_mut(&pid) else { return };
        let Some((first, _)) = member.contexts.first_key_value() else { return };
        self.order.remove(&member.key);
        member.key = (standing, *first, pid);
        self.order.insert(member.key);
    }

    /// Whether a process has a generation in line.
    pub(super) fn has(&self, pid: Pid) -> bool {
        self.members.contains_key(&pid)
    }

    /// The first generation that `skip` does not name.
    pub(super) fn first_but(&self, skip: &BTreeSet<ContextId>) -> Option<ContextId> {
        let contexts = self.order.iter().filter_map(|(_, _, pid)| self.members.get(pid));
        contexts.flat_map(|m| m.contexts.values()).find(|c| !skip.contains(c)).copied()
    }
}
