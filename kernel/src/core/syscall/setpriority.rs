//! `setpriority`: changes the class or the nice value of a process.

use syscalls::call::Setpriority;

use super::super::Kernel;
use super::hello::check_priority;
use super::{Caller, DONE, Outcome};

impl Kernel {
    pub(super) fn sys_setpriority(&mut self, caller: &Caller, args: &Setpriority) -> Outcome {
        let process = self.subject(caller, args.pid)?;
        let had = (process.id.class, process.id.nice);
        let wanted = (args.class.unwrap_or(had.0), args.nice.unwrap_or(had.1));
        check_priority(caller.caps, had, wanted)?;
        if let Some(process) = self.processes.living_mut(args.pid) {
            (process.id.class, process.id.nice) = wanted;
        }
        for model in self.models.values_mut() {
            model.sched.accounts.renice(args.pid, wanted.0, wanted.1);
        }
        self.touch_process(args.pid);
        self.class_changed(args.pid);
        self.inherit(args.pid);
        DONE
    }
}
