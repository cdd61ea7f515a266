//! `wait`: waits for the end of a child.

use syscalls::call::Wait;
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::super::call::Waits;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_wait(&mut self, caller: &Caller, args: &Wait) -> Outcome {
        match self.try_wait(caller.pid, args.pid)? {
            Some(reply) => Ok(Next::Reply(reply)),
            None if args.timeout_ms == Some(0) => {
                Err(Fault::new(Errno::ETIMEDOUT, "no child has ended, and timeout_ms is 0"))
            }
            None => Ok(Next::Wait(Waits::Child(args.pid), args.timeout_ms)),
        }
    }
}
