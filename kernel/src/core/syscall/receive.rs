//! `receive`: takes a message, or waits for one.

use syscalls::call::Receive;
use syscalls::{Errno, Fault, Reply};

use super::super::Kernel;
use super::super::call::Waits;
use super::super::image::Entry;
use super::super::process::Process;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_receive(&mut self, caller: &Caller, args: &Receive) -> Outcome {
        let persistent = self.processes.living(caller.pid).is_some_and(Process::is_persistent);
        let message = self.processes.take_message(caller.pid);
        if persistent && message.is_some() {
            self.journal.add(Entry::MessageTaken { pid: caller.pid });
        }
        match message {
            Some((from, data)) => Ok(Next::Reply(Reply::Message { from, data: data.read()? })),
            None if args.timeout_ms == Some(0) => {
                Err(Fault::new(Errno::ETIMEDOUT, "no message is there, and timeout_ms is 0"))
            }
            None => Ok(Next::Wait(Waits::Message, args.timeout_ms)),
        }
    }
}
