//! `groups`: lists groups, with what they have and how their work waits. Users see the root and their own.

use syscalls::Reply;
use syscalls::call::Capability;
use syscalls::reply::{GroupInfo, PressureInfo};

use super::super::Kernel;
use super::super::group::{Group, GroupId};
use super::Caller;

impl Kernel {
    pub(super) fn sys_groups(&self, caller: &Caller) -> Reply {
        let own = format!("user.{}", caller.uid);
        let shown = |name: &str| {
            caller.caps.has(Capability::Resource)
                || name == "/"
                || name.split('/').next() == Some(own.as_str())
        };
        let all = self.groups.all().map(|(id, group)| (self.groups.name(id), id, group));
        let mut list: Vec<GroupInfo> = all
            .filter(|(name, ..)| shown(name))
            .map(|(name, id, group)| self.group_info(name, id, group))
            .collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Reply::Groups(list)
    }

    fn group_info(&self, name: String, id: GroupId, group: &Group) -> GroupInfo {
        let usage = self.group_usage(id);
        let percent = |averages: [u32; 3]| averages.map(|hundredths| hundredths as f32 / 100.0);
        let [memory_some, memory_full, steps_some, steps_full] =
            group.pressure.averages(self.now).map(percent);
        GroupInfo {
            name,
            weight: group.weight,
            processes: usage.processes,
            contexts: usage.contexts,
            contexts_max: group.limits.contexts,
            context_tokens: usage.context_tokens,
            context_tokens_max: group.limits.context_tokens,
            frames: usage.frames,
            frames_max: group.limits.resident_frames,
            frames_soft: group.limits.resident_frames_soft,
            swap_pages: usage.swap_pages,
            swap_pages_max: group.limits.swap_pages,
            tokens_per_second_max: group.limits.tokens_per_second,
            memory: PressureInfo { some: memory_some, full: memory_full },
            steps: PressureInfo { some: steps_some, full: steps_full },
        }
    }
}
