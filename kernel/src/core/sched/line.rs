//! The line of generations that wait for memory, one place in it for each process.

use std::collections::{BTreeMap, BTreeSet};

use syscalls::call::Class;
use syscalls::{ContextId, Pid};

use super::super::call::CallNo;
use super::super::event::Now;
use super::super::group::GroupId;
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

/// Where a process is in the line. The group is behind the pid, so it orders nothing: whoever passes over groups need
/// look nothing up.
type Key = (Standing, CallNo, Pid, GroupId);

#[derive(Debug)]
struct Member {
    /// The process's group, in which it stays for its whole life.
    group: GroupId,
    /// Absent until it has been told where it stands.
    key: Option<Key>,
    /// By deadline, those without one last, and then in the order in which they were asked for.
    contexts: BTreeMap<(Now, CallNo), ContextId>,
}

/// The line.
#[derive(Debug, Default)]
pub(in crate::core) struct Line {
    order: BTreeSet<Key>,
    members: BTreeMap<Pid, Member>,
}

impl Line {
    /// Puts the generation of a process of a group in line; [`Line::stand`] must follow.
    pub(super) fn insert(
        &mut self,
        (pid, group): (Pid, GroupId),
        (deadline, call): (Option<Now>, CallNo),
        context: ContextId,
    ) {
        let newcomer = || Member { group, key: None, contexts: BTreeMap::new() };
        let member = self.members.entry(pid).or_insert_with(newcomer);
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
        let key = (standing, *first, pid, member.group);
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

    /// The first generation of a class.
    pub(super) fn first_of_class(&self, class: Class) -> Option<ContextId> {
        let least = Standing { class, due: 0, load: 0, rank: Rank { due: 0, tier: 0, key: 0 } };
        let (standing, _, pid, _) = self.order.range((least, CallNo(0), Pid(0), GroupId(0))..).next()?;
        let member = self.members.get(pid).filter(|_| standing.class == class)?;
        member.contexts.values().next().copied()
    }

    /// The first generation that is not passed over.
    pub(super) fn first_but(&self, passed: &PassedOver) -> Option<ContextId> {
        let open = self.order.iter().filter(|(_, _, pid, group)| !passed.has(*pid, *group));
        let contexts = open.filter_map(|(_, _, pid, _)| self.members.get(pid));
        contexts.flat_map(|m| m.contexts.values()).find(|c| !passed.contexts.contains(c)).copied()
    }
}

/// Who is left out while others are looked for.
#[derive(Debug, Default)]
pub(super) struct PassedOver {
    pub contexts: BTreeSet<ContextId>,
    pub processes: BTreeSet<Pid>,
    pub groups: BTreeSet<GroupId>,
    /// Groups that let others go first. They are looked at again in the same step where there is nobody else.
    pub above_soft_limits: BTreeSet<GroupId>,
}

impl PassedOver {
    /// How many looks it took, but for those at groups above their soft limits: these cost little.
    pub(super) fn len(&self) -> usize {
        self.contexts.len() + self.processes.len() + self.groups.len()
    }

    fn has(&self, pid: Pid, group: GroupId) -> bool {
        !self.groups.is_empty() && self.groups.contains(&group)
            || !self.above_soft_limits.is_empty() && self.above_soft_limits.contains(&group)
            || !self.processes.is_empty() && self.processes.contains(&pid)
    }
}
