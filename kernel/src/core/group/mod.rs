//! Groups of processes, one inside another, as in cgroups.
//!
//! The device's time is shared between groups first, by weight, and then inside each (`sched/policy/fair.rs`). A group
//! has limits, on what its processes and those of the groups in it have together ([`limits`]), and pressure figures.
//! Every user is a group of the root, `user.UID`, unless a path says more: users make groups inside their own. A
//! process is in one group for its whole life. A group goes when it is empty and nobody has set anything of it.

mod limits;

use std::collections::{BTreeMap, BTreeSet};

use syscalls::limits::{GROUP_DEPTH_MAX, GROUPS_MAX, GROUPS_PER_USER_MAX, NAME_BYTES_MAX};
use syscalls::{Errno, Fault, Pid};

use super::event::Now;
use super::sched::{Bucket, Pressure};

/// A group, numbered by the kernel and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupId(pub u32);

impl GroupId {
    /// The group that all others are in.
    pub(super) const ROOT: GroupId = GroupId(0);
}

/// The weight of a group that has none of its own.
pub(super) const GROUP_WEIGHT: u32 = 100;

/// What the processes of a group may have together; nothing where there is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GroupLimits {
    pub contexts: Option<u64>,
    pub context_tokens: Option<u64>,
    pub resident_frames: Option<u64>,
    /// Above it the group gets no further frames while others wait for some.
    pub resident_frames_soft: Option<u64>,
    pub swap_pages: Option<u64>,
    pub tokens_per_second: Option<u64>,
}

/// One group.
#[derive(Debug)]
pub(super) struct Group {
    pub name: String,
    /// Absent for the root alone.
    pub parent: Option<GroupId>,
    /// Its share beside its siblings.
    pub weight: u32,
    pub limits: GroupLimits,
    pub bucket: Option<Bucket>,
    pub pressure: Pressure,
    pub members: BTreeSet<Pid>,
    /// The groups in it.
    pub children: BTreeSet<GroupId>,
    /// Somebody has set something of it, so it stays when it is empty.
    pub kept: bool,
}

impl Group {
    fn new(name: String, parent: Option<GroupId>) -> Self {
        Group {
            name,
            parent,
            weight: GROUP_WEIGHT,
            limits: GroupLimits::default(),
            bucket: None,
            pressure: Pressure::default(),
            members: BTreeSet::new(),
            children: BTreeSet::new(),
            kept: false,
        }
    }
}

/// All groups.
#[derive(Debug)]
pub(super) struct Groups {
    groups: BTreeMap<GroupId, Group>,
    by_name: BTreeMap<(GroupId, String), GroupId>,
    next: u32,
    /// Some group has a limit of tokens a second.
    rated: bool,
    /// Some group has a limit of tokens in its contexts.
    tokens_limited: bool,
}

impl Groups {
    /// The root alone.
    pub(super) fn new() -> Self {
        let root = Group::new(String::new(), None);
        Groups {
            groups: BTreeMap::from([(GroupId::ROOT, root)]),
            by_name: BTreeMap::new(),
            next: 1,
            rated: false,
            tokens_limited: false,
        }
    }

    /// A group.
    pub(super) fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    /// A group, to be changed.
    pub(super) fn get_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.get_mut(&id)
    }

    /// All groups, a group before those in it.
    pub(super) fn all(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        self.groups.iter().map(|(id, group)| (*id, group))
    }

    /// A group and those around it, up to but without the root, with parent and weight of each.
    pub(super) fn path(&self, id: GroupId) -> impl Iterator<Item = (GroupId, GroupId, u32)> {
        self.around(id).filter_map(|id| self.get(id).and_then(|g| Some((id, g.parent?, g.weight))))
    }

    /// A group and those around it, the root last.
    pub(super) fn around(&self, id: GroupId) -> impl Iterator<Item = GroupId> {
        std::iter::successors(Some(id), |id| self.get(*id)?.parent)
    }

    /// The names of a group and those around it, from the outside, with slashes.
    pub(super) fn name(&self, id: GroupId) -> String {
        let mut names: Vec<&str> =
            self.around(id).filter_map(|g| self.get(g)).map(|g| g.name.as_str()).collect();
        names.pop();
        if names.is_empty() { "/".into() } else { names.into_iter().rev().collect::<Vec<_>>().join("/") }
    }

    /// The group of a user.
    ///
    /// # Errors
    ///
    /// As [`Groups::enter`].
    pub(super) fn of_user(&mut self, uid: u32) -> Result<GroupId, Fault> {
        self.enter(GroupId::ROOT, &format!("user.{uid}"))
    }

    /// The group that a path names from the root on, if there is one.
    pub(super) fn find(&self, path: &str) -> Option<GroupId> {
        let inner = |parent, name: &str| self.by_name.get(&(parent, name.to_owned())).copied();
        path.split('/').try_fold(GroupId::ROOT, inner)
    }

    /// The group that a path names inside another, made where there is none.
    ///
    /// # Errors
    ///
    /// EINVAL for a name that is none, E2BIG where there are too many groups, or too many inside each other. Groups
    /// that were made on the way are empty, and go with the next one that goes.
    pub(super) fn enter(&mut self, from: GroupId, path: &str) -> Result<GroupId, Fault> {
        path.split('/').try_fold(from, |parent, name| self.enter_one(parent, name))
    }

    fn enter_one(&mut self, parent: GroupId, name: &str) -> Result<GroupId, Fault> {
        if let Some(id) = self.by_name.get(&(parent, name.to_owned())) {
            return Ok(*id);
        }
        let sound = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(sound) {
            let shown: String = name.chars().take(64).collect();
            let message = format!(
                "`{shown}` names no group; use 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes and underscores, with slashes between groups"
            );
            return Err(Fault::new(Errno::EINVAL, message));
        }
        let depth = self.path(parent).count();
        if depth >= GROUP_DEPTH_MAX || self.groups.len() >= GROUPS_MAX {
            let message = format!(
                "group {name} would be at depth {} and number {} of all; the limits are {GROUP_DEPTH_MAX} and {GROUPS_MAX}",
                depth + 1,
                self.groups.len() + 1
            );
            return Err(Fault::new(Errno::E2BIG, message));
        }
        // The outermost one is a user's, or of the administrator's making.
        if let Some((outermost, ..)) = self.path(parent).last()
            && self.within(outermost) >= GROUPS_PER_USER_MAX
        {
            let user = self.name(outermost);
            let message = format!(
                "group {name} would be number {} in {user}; the limit is {GROUPS_PER_USER_MAX}, remove some with setgroup",
                GROUPS_PER_USER_MAX + 1
            );
            return Err(Fault::new(Errno::E2BIG, message));
        }
        let id = GroupId(self.next);
        self.next += 1;
        self.groups.insert(id, Group::new(name.to_owned(), Some(parent)));
        self.by_name.insert((parent, name.to_owned()), id);
        if let Some(parent) = self.groups.get_mut(&parent) {
            parent.children.insert(id);
        }
        Ok(id)
    }

    /// How many groups are inside a group.
    fn within(&self, id: GroupId) -> usize {
        self.get(id).map_or(0, |group| group.children.iter().map(|child| 1 + self.within(*child)).sum())
    }

    /// Enters a process.
    pub(super) fn join(&mut self, id: GroupId, pid: Pid) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.members.insert(pid);
        }
    }

    /// Takes a process out, and removes the groups that are empty then. Tells which.
    pub(super) fn leave(&mut self, id: GroupId, pid: Pid, now: Now) -> Vec<GroupId> {
        if let Some(group) = self.groups.get_mut(&id) {
            group.members.remove(&pid);
        }
        self.prune(id, now)
    }

    /// Removes a group and those around it as far as they are empty. Rows of processes that were in it may be under way,
    /// and count for nobody from now on.
    pub(super) fn prune(&mut self, id: GroupId, now: Now) -> Vec<GroupId> {
        let mut gone = Vec::new();
        let mut at = Some(id);
        while let Some(id) = at {
            let Some(group) = self.groups.get(&id) else { break };
            let Some(parent) = group.parent else { break };
            if group.kept || !group.members.is_empty() || !group.children.is_empty() {
                break;
            }
            let (name, rows) = (group.name.clone(), group.pressure.tasks().in_step);
            self.count_tasks(id, now, 0, 0, -(rows as i32));
            self.by_name.remove(&(parent, name));
            self.groups.remove(&id);
            if let Some(parent) = self.groups.get_mut(&parent) {
                parent.children.remove(&id);
            }
            gone.push(id);
            at = Some(parent);
        }
        gone
    }

    /// Gives a group a limit of tokens a second, or lifts it.
    pub(super) fn set_rate(&mut self, id: GroupId, rate: Option<u64>, now: Now) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.limits.tokens_per_second = rate;
            let before = group.bucket;
            group.bucket = rate.map(|rate| Bucket::in_place_of(before, rate, now));
        }
        self.rated = self.groups.values().any(|group| group.bucket.is_some());
    }

    /// Gives a group a limit of tokens in its contexts, or lifts it.
    pub(super) fn limit_tokens(&mut self, id: GroupId, most: Option<u64>) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.limits.context_tokens = most;
        }
        self.tokens_limited = self.groups.values().any(|group| group.limits.context_tokens.is_some());
    }

    /// Whether some group has a limit of tokens in its contexts.
    pub(super) fn any_limits_tokens(&self) -> bool {
        self.tokens_limited
    }

    /// Counts tokens that were generated in a group.
    pub(super) fn take_tokens(&mut self, id: GroupId, now: Now, tokens: u64) {
        let mut at = Some(id).filter(|_| self.rated);
        while let Some(group) = at.and_then(|id| self.groups.get_mut(&id)) {
            if let Some(bucket) = &mut group.bucket {
                bucket.take(now, tokens);
            }
            at = group.parent;
        }
    }

    /// Whether some group has a limit of tokens a second.
    pub(super) fn any_rated(&self) -> bool {
        self.rated
    }

    /// When a group may generate again; nothing if it may now.
    pub(super) fn empty_until(&self, id: GroupId, now: Now) -> Option<Now> {
        if !self.rated {
            return None;
        }
        let buckets = self.around(id).filter_map(|id| self.get(id)?.bucket.as_ref());
        buckets.filter_map(|bucket| bucket.empty_until(now)).max()
    }

    /// Changes how many generations of a group, and of those around it, are where.
    pub(super) fn count_tasks(&mut self, id: GroupId, now: Now, waiting: i32, running: i32, in_step: i32) {
        let mut at = Some(id);
        while let Some(group) = at.and_then(|id| self.groups.get_mut(&id)) {
            let mut tasks = group.pressure.tasks();
            tasks.waiting = tasks.waiting.saturating_add_signed(waiting);
            tasks.running = tasks.running.saturating_add_signed(running);
            tasks.in_step = tasks.in_step.saturating_add_signed(in_step);
            group.pressure.change(now, tasks);
            at = group.parent;
        }
    }
}
