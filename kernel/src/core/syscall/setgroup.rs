//! `setgroup`: makes a group, and sets its weight and limits. Users make groups inside their own and set what they like
//! of these; their own group's share and limits are for the administrator to set, as are all groups of others.

use syscalls::call::{Capability, GroupLimit, Setgroup};
use syscalls::limits::{GROUP_WEIGHT_MAX, GROUP_WEIGHT_MIN};
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::super::group::{GROUP_WEIGHT, GroupId, GroupLimits};
use super::{Caller, DONE, Outcome};

impl Kernel {
    pub(super) fn sys_setgroup(&mut self, caller: &Caller, args: &Setgroup) -> Outcome {
        if let Some(weight) = args.weight.filter(|w| !(GROUP_WEIGHT_MIN..=GROUP_WEIGHT_MAX).contains(w)) {
            let message =
                format!("weight is {weight}; it must be from {GROUP_WEIGHT_MIN} to {GROUP_WEIGHT_MAX}");
            return Err(Fault::new(Errno::EINVAL, message));
        }
        if args.limit.is_none() && args.value.is_some() {
            return Err(Fault::new(Errno::EINVAL, "value is given without limit; say which one"));
        }
        if args.limit == Some(GroupLimit::TokensPerSecond) {
            check_rate(args.value)?;
        }
        let own = self.groups.of_user(caller.uid)?;
        let (from, path) = match args.group.strip_prefix('/') {
            Some(path) => (GroupId::ROOT, path),
            None => (own, args.group.as_str()),
        };
        if from == own {
            // Others of the user may be in it, and be held up, or get more than those who began them let them have.
            caller.caps.need(Capability::Signal, "setting a group")?;
        } else {
            let what = format!("setting a group that is not inside user.{} (leave out the /)", caller.uid);
            caller.caps.need(Capability::Resource, &what)?;
        }
        let id = self.groups.enter(from, path)?;
        let now = self.now;
        let Some(group) = self.groups.get_mut(id) else { return DONE };
        group.kept = !args.remove;
        if args.remove {
            (group.limits, group.weight) = (GroupLimits::default(), GROUP_WEIGHT);
            self.groups.set_rate(id, None, now);
            self.groups.limit_tokens(id, None);
            self.forget_groups(id);
            return DONE;
        }
        group.weight = args.weight.unwrap_or(group.weight);
        match args.limit {
            Some(GroupLimit::Contexts) => group.limits.contexts = args.value,
            Some(GroupLimit::ContextTokens) => self.groups.limit_tokens(id, args.value),
            Some(GroupLimit::ResidentFrames) => group.limits.resident_frames = args.value,
            Some(GroupLimit::ResidentFramesSoft) => group.limits.resident_frames_soft = args.value,
            Some(GroupLimit::SwapPages) => group.limits.swap_pages = args.value,
            Some(GroupLimit::TokensPerSecond) => self.groups.set_rate(id, args.value, now),
            None => {}
        }
        DONE
    }

    /// Removes a group and those around it as far as they are empty, with what they have attained.
    pub(in crate::core) fn forget_groups(&mut self, id: GroupId) {
        for gone in self.groups.prune(id, self.now) {
            self.models.values_mut().for_each(|m| m.sched.accounts.forget_group(gone));
        }
    }
}

/// Checks a rate: one of 0 would hold generations for ever.
pub(super) fn check_rate(rate: Option<u64>) -> Result<(), Fault> {
    match rate {
        Some(0) => {
            let message =
                "tokens_per_second is 0, at which nothing ever ends; give at least 1, or STOP the process";
            Err(Fault::new(Errno::EINVAL, message))
        }
        _ => Ok(()),
    }
}
