//! `trace`: streams the calls of a process to its user. What it tells has prompts and texts in it, so nobody else may,
//! and none of it goes to the log.

use syscalls::call::{Capability, Trace};
use syscalls::limits::{TRACES_MAX, TRACES_PER_USER_MAX};
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::super::call::Waits;
use super::super::user::check_part;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_trace(&self, caller: &Caller, args: Trace) -> Outcome {
        if args.pid.is_some() == args.os_pid.is_some() {
            let message = "give either pid or os_pid, the process that is to be traced";
            return Err(Fault::new(Errno::EINVAL, message));
        }
        if let Some(pid) = args.pid {
            if pid == caller.pid {
                let message = format!("process {pid} cannot trace itself; trace it from another one");
                return Err(Fault::new(Errno::EINVAL, message));
            }
            self.subject(caller, pid)?;
        } else {
            caller.caps.need(Capability::Signal, "tracing programs that are no descendants")?;
        }
        if self.traces.len() >= TRACES_MAX {
            let message = format!("{TRACES_MAX} traces run, which is the limit; end one");
            return Err(Fault::new(Errno::EAGAIN, message));
        }
        let own = self.traces.count_of(caller.uid);
        check_part(caller.uid, caller.caps, own, TRACES_PER_USER_MAX, "traces")?;
        Ok(Next::Wait(Waits::Calls(Box::new(args)), None))
    }
}
