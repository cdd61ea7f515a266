//! `detach`: takes a process off its connection.

use syscalls::call::Detach;

use super::super::Kernel;
use super::{Caller, Next, Outcome};

impl Kernel {
    /// The process is let go after the reply, which is the last word on the connection if it was the connection's own.
    pub(super) fn sys_detach(&self, caller: &Caller, args: &Detach) -> Outcome {
        let pid = args.pid.unwrap_or(caller.pid);
        self.subject(caller, pid)?;
        let new = self.flock(pid).into_iter().filter(|pid| self.processes.is_bound(*pid)).count();
        self.processes.check_lasting(self.process(pid)?.id.uid, new)?;
        Ok(Next::Detach(pid))
    }
}
