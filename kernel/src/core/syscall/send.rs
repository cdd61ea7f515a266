//! `send`: sends a message to a process of the same user, or to any as the administrator.

use syscalls::call::Send;
use syscalls::limits::{MAILBOX_MESSAGES_MAX, MESSAGE_BYTES_MAX};
use syscalls::{Errno, Fault, Reply};

use super::super::Kernel;
use super::super::call::{CallNo, Waits};
use super::super::image::{Entry, Kept};
use super::{Caller, DONE, Outcome};

impl Kernel {
    pub(super) fn sys_send(&mut self, caller: &Caller, args: Send) -> Outcome {
        let data = Kept::of(&args.data);
        let bytes = data.bytes();
        if bytes > MESSAGE_BYTES_MAX as u64 {
            let message = format!("the message has {bytes} bytes; the limit is {MESSAGE_BYTES_MAX}");
            return Err(Fault::new(Errno::EMSGSIZE, message));
        }
        let receiver = self.subject(caller, args.pid)?;
        let (waits, uid, persistent) = (receiver.mailbox.len(), receiver.id.uid, receiver.is_persistent());
        let waiting: Option<CallNo> =
            receiver.calls.iter().find(|call| self.calls.waits(**call) == Some(&Waits::Message)).copied();
        if waiting.is_none() {
            if waits >= MAILBOX_MESSAGES_MAX {
                let message = format!(
                    "{MAILBOX_MESSAGES_MAX} messages wait for process {}, which is the limit; try again later",
                    args.pid
                );
                return Err(Fault::new(Errno::EAGAIN, message));
            }
            self.processes.check_mail(uid, bytes)?;
        }
        if let Some(sender) = self.processes.living_mut(caller.pid) {
            sender.sent_to = Some(args.pid);
        }
        if let Some(call) = waiting {
            self.finish(call, Ok(Reply::Message { from: caller.pid, data: args.data }));
            return DONE;
        }
        if persistent {
            self.journal.add(Entry::Message { pid: args.pid, from: caller.pid, data: data.clone() });
        }
        self.processes.put_message(args.pid, caller.pid, data);
        DONE
    }
}
