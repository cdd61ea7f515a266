//! `sigwait`: waits for a signal that asks the process to end.

use syscalls::call::Sigwait;
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::super::call::Waits;
use super::{Caller, Next, Outcome};

impl Kernel {
    /// One call at a time, because a signal answers one.
    pub(super) fn sys_sigwait(&self, caller: &Caller, args: &Sigwait) -> Outcome {
        let process = self.process(caller.pid)?;
        if process.calls.iter().any(|call| self.calls.waits(*call) == Some(&Waits::Signal)) {
            let message = format!("process {} waits for signals already", caller.pid);
            return Err(Fault::new(Errno::EBUSY, message));
        }
        Ok(Next::Wait(Waits::Signal, args.timeout_ms))
    }
}
