//! `kill_group`: sends a signal to all processes of a group, and of those in it.

use syscalls::call::KillGroup;
use syscalls::{Errno, Fault, Pid};

use super::super::Kernel;
use super::super::group::GroupId;
use super::{Caller, Next, Outcome};

impl Kernel {
    /// Those of others are left alone, as in Unix: it is a fault only where nobody is left.
    pub(super) fn sys_kill_group(&self, caller: &Caller, args: &KillGroup) -> Outcome {
        let path = match args.group.strip_prefix('/') {
            Some(path) => path.to_owned(),
            None => format!("user.{}/{}", caller.uid, args.group),
        };
        let Some(group) = self.groups.find(&path) else {
            return Err(Fault::new(Errno::ESRCH, format!("there is no group {path}; groups lists them")));
        };
        let all = self.members(group);
        let mine = |pid: &Pid| self.subject(caller, *pid).is_ok();
        let mut pids: Vec<Pid> = all.iter().copied().filter(mine).collect();
        if pids.is_empty() {
            let fault = match all.len() {
                0 => Fault::new(Errno::ESRCH, format!("no process is in group {path}")),
                others => {
                    Fault::new(Errno::EPERM, format!("the {others} processes of group {path} are not yours"))
                }
            };
            return Err(fault);
        }
        // The caller is the last one, since its end may be that of those that it acts for.
        pids.sort_by_key(|pid| *pid == caller.pid);
        Ok(Next::Signal(pids, args.signal))
    }

    /// The processes of a group and of those in it.
    fn members(&self, group: GroupId) -> Vec<Pid> {
        let Some(group) = self.groups.get(group) else { return vec![] };
        let inner = group.children.iter().flat_map(|child| self.members(*child));
        group.members.iter().copied().chain(inner).collect()
    }
}
