//! `receive`: takes a message, or waits for one.

use syscalls::call::Receive;
use syscalls::{Errno, Fault, Reply};

use super::super::Kernel;
use super::super::call::Waits;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_receive(&mut self, caller: &Caller, args: &Receive) -> Outcome {
        let message = self.processes.living_mut(caller.pid).and_then(|p| p.mailbox.pop_front());
        match message {
            Some((from, data)) => Ok(Next::Reply(Reply::Message { from, data })),
            None if args.timeout_ms == Some(0) => {
                Err(Fault::new(Errno::ETIMEDOUT, "no message is there, and timeout_ms is 0"))
            }
            None => Ok(Next::Wait(Waits::Message, args.timeout_ms)),
        }
    }
}
