//! `send`: sends a message to a process of the same user, or to any as the administrator.

use syscalls::call::Send;
use syscalls::limits::{MAILBOX_MESSAGES_MAX, MESSAGE_BYTES_MAX};
use syscalls::{Errno, Fault, Reply};

use super::super::Kernel;
use super::super::call::{CallNo, Waits};
use super::super::image::Entry;
use super::{Caller, DONE, Outcome};

impl Kernel {
    pub(super) fn sys_send(&mut self, caller: &Caller, args: Send) -> Outcome {
        let bytes = args.data.to_string().len();
        if bytes > MESSAGE_BYTES_MAX {
            let message = format!("the message has {bytes} bytes; the limit is {MESSAGE_BYTES_MAX}");
            return Err(Fault::new(Errno::EMSGSIZE, message));
        }
        let receiver = self.subject(caller, args.pid)?;
        let waits = receiver.mailbox.len();
        let waiting: Option<CallNo> =
            receiver.calls.iter().find(|call| self.calls.waits(**call) == Some(&Waits::Message)).copied();
        if let Some(sender) = self.processes.living_mut(caller.pid) {
            sender.sent_to = Some(args.pid);
        }
        if let Some(call) = waiting {
            self.finish(call, Ok(Reply::Message { from: caller.pid, data: args.data }));
            return DONE;
        }
        if waits >= MAILBOX_MESSAGES_MAX {
            let message = format!(
                "{MAILBOX_MESSAGES_MAX} messages wait for process {}, which is the limit; try again later",
                args.pid
            );
            return Err(Fault::new(Errno::EAGAIN, message));
        }
        if let Some(receiver) = self.processes.living_mut(args.pid) {
            if receiver.is_persistent() {
                let (pid, from, data) = (args.pid, caller.pid, args.data.clone());
                self.journal.add(Entry::Message { pid, from, data });
            }
            receiver.mailbox.push_back((caller.pid, args.data));
        }
        DONE
    }
}
