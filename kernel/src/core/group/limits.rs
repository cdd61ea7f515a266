//! What a group has, and whether it may have more. Sums are made when somebody asks and only where there is a limit, so
//! that a group without one costs nothing.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use syscalls::reply::Finish;
use syscalls::{ContextId, Errno, Fault, Pid};

use super::super::Kernel;
use super::super::context::Context;
use super::super::memory::{Behind, Room};
use super::super::process::ProcessTable;
use super::super::sched::{Place, RowSent};
use super::{GroupId, GroupLimits, Groups};

/// What the processes of a group have together.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::core) struct Usage {
    pub processes: u64,
    pub contexts: u64,
    pub context_tokens: u64,
    pub frames: u64,
    pub swap_pages: u64,
}

impl Groups {
    /// What the processes of a group and of those in it have.
    pub(in crate::core) fn usage(&self, processes: &ProcessTable, id: GroupId) -> Usage {
        let Some(group) = self.get(id) else { return Usage::default() };
        let mut usage = Usage::default();
        for process in group.members.iter().filter_map(|pid| processes.living(*pid)) {
            usage.processes += 1;
            usage.contexts += process.contexts.len() as u64;
            usage.context_tokens += process.context_tokens;
            usage.frames += process.frames;
            usage.swap_pages += process.swap_pages;
        }
        for child in &group.children {
            let more = self.usage(processes, *child);
            usage.processes += more.processes;
            usage.contexts += more.contexts;
            usage.context_tokens += more.context_tokens;
            usage.frames += more.frames;
            usage.swap_pages += more.swap_pages;
        }
        usage
    }

    /// Whether the limits of a group and those around it let them have one more page in the swap area.
    pub(in crate::core) fn may_save(&self, processes: &ProcessTable, id: GroupId) -> bool {
        self.have_room(processes, id, |limits| limits.swap_pages, |usage| usage.swap_pages + 1)
    }

    /// Whether the limits of a group and those around it let them have so many frames more as they are.
    pub(in crate::core) fn may_map(&self, processes: &ProcessTable, id: GroupId, frames: u64) -> bool {
        self.have_room(processes, id, |limits| limits.resident_frames, |usage| usage.frames + frames)
    }

    /// Whether a group and those around it have room for one more token in their contexts.
    fn may_add_token(&self, processes: &ProcessTable, id: GroupId) -> bool {
        self.have_room(processes, id, |limits| limits.context_tokens, |usage| usage.context_tokens + 1)
    }

    /// Whether a group and those around it stay within a limit of theirs with what they would have.
    fn have_room(
        &self,
        processes: &ProcessTable,
        id: GroupId,
        limit: impl Fn(&GroupLimits) -> Option<u64>,
        would_have: impl Fn(Usage) -> u64,
    ) -> bool {
        self.around(id).all(|id| {
            let most = self.get(id).and_then(|group| limit(&group.limits));
            most.is_none_or(|most| would_have(self.usage(processes, id)) <= most)
        })
    }
}

impl Kernel {
    /// What the processes of a group and of those in it have.
    pub(in crate::core) fn group_usage(&self, id: GroupId) -> Usage {
        self.groups.usage(&self.processes, id)
    }

    /// Checks that a process may have more contexts and tokens, as far as its groups go.
    pub(in crate::core) fn check_groups(&self, pid: Pid, contexts: u64, tokens: u64) -> Result<(), Fault> {
        let Some(process) = self.processes.living(pid) else { return Ok(()) };
        let limited = |l: &GroupLimits| l.contexts.is_some() || l.context_tokens.is_some();
        for id in self.groups.around(process.id.group) {
            let Some(group) = self.groups.get(id).filter(|g| limited(&g.limits)) else { continue };
            let has = self.group_usage(id);
            let over = |what, has: u64, more: u64, limit: Option<u64>, errno| match limit {
                Some(most) if more > 0 && has + more > most => {
                    let name = self.groups.name(id);
                    let message = format!(
                        "group {name} has {has} {what} and would get {more} more; its limit is {most}, raise it with setgroup"
                    );
                    Err(Fault::new(errno, message))
                }
                _ => Ok(()),
            };
            over("contexts", has.contexts, contexts, group.limits.contexts, Errno::EMFILE)?;
            let most = group.limits.context_tokens;
            over("tokens in its contexts", has.context_tokens, tokens, most, Errno::E2BIG)?;
        }
        Ok(())
    }

    /// Ends the generations that had a part in a step and whose groups have all the tokens in their contexts that they may
    /// have, as if these were full. So a group has no more beyond its limit than one step gives.
    pub(in crate::core) fn end_where_groups_are_full(&mut self, rows: &[RowSent]) {
        if !self.groups.any_limits_tokens() {
            return;
        }
        let groups: BTreeSet<GroupId> = rows.iter().map(|row| row.group).collect();
        let is_full = |id: &GroupId| !self.groups.may_add_token(&self.processes, *id);
        let full: BTreeSet<GroupId> = groups.into_iter().filter(is_full).collect();
        for row in rows.iter().filter(|row| row.sample && full.contains(&row.group)) {
            if self.contexts.get(&row.context).and_then(Context::generating) == Some(row.call) {
                self.end_generation(row.context, Finish::ContextFull);
            }
        }
    }

    /// Makes room for so many frames more of a context inside the limits of its groups. Idle contexts of a group give
    /// theirs first, then, for one that is `resident` and grows, generations of the group that began later.
    pub(in crate::core) fn group_room(&mut self, id: ContextId, lacks: u32, resident: bool) -> Room {
        if lacks == 0 {
            return Room::Made;
        }
        let owner = self.contexts.get(&id).map(|c| c.owner);
        let Some(process) = owner.and_then(|pid| self.processes.living(pid)) else { return Room::Wait };
        if let Some(fault) = self.too_large(id) {
            return Room::Never(fault);
        }
        let groups: Vec<GroupId> = self.groups.around(process.id.group).collect();
        for group in groups {
            let Some(most) = self.groups.get(group).and_then(|g| g.limits.resident_frames) else { continue };
            while self.group_usage(group).frames + u64::from(lacks) > most {
                let members = self.resident_in(group, id);
                match members.iter().find(|c| self.gives_way(id, **c, resident)) {
                    Some(other) => self.push_out(*other),
                    None => return Room::OwnLimit(Behind::Group),
                }
            }
        }
        Room::Made
    }

    fn push_out(&mut self, id: ContextId) {
        if let Some(model) = self.contexts.get(&id).map(|c| c.model) {
            self.swap_out(model, id);
        }
    }

    /// The contexts of a group that have frames, but for one, in the order in which they give them: idle ones by what is
    /// gained, then those whose generation was asked for last.
    fn resident_in(&self, group: GroupId, but: ContextId) -> Vec<ContextId> {
        let mut pids = Vec::new();
        let mut groups = vec![group];
        while let Some(group) = groups.pop().and_then(|id| self.groups.get(id)) {
            pids.extend(group.members.iter().copied());
            groups.extend(group.children.iter().copied());
        }
        let contexts = pids.iter().filter_map(|pid| self.processes.living(*pid)).flat_map(|p| &p.contexts);
        let resident =
            contexts.filter(|c| **c != but && self.contexts.get(c).is_some_and(|c| c.frames() > 0));
        let mut resident: Vec<ContextId> = resident.copied().collect();
        resident.sort_by_cached_key(|c| {
            let seniority = self.seniority(*c);
            (seniority.is_some(), Reverse(seniority), Reverse(self.gain_of_idle(*c)))
        });
        resident
    }

    fn gives_way(&self, id: ContextId, other: ContextId, resident: bool) -> bool {
        let Some(context) = self.contexts.get(&other).filter(|c| !c.in_step) else { return false };
        match context.place {
            Place::Idle(_) => true,
            Place::Running => resident && self.seniority(other) > self.seniority(id),
            Place::Parked | Place::Waiting => false,
        }
    }

    /// Whether a group of a process is above its soft limit of frames.
    pub(in crate::core) fn above_soft_limit(&self, pid: Pid) -> bool {
        let Some(process) = self.processes.living(pid) else { return false };
        self.groups.around(process.id.group).any(|id| {
            let soft = self.groups.get(id).and_then(|g| g.limits.resident_frames_soft);
            soft.is_some_and(|soft| self.group_usage(id).frames >= soft)
        })
    }
}
