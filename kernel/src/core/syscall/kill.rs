//! `kill`: sends a signal.

use syscalls::call::{Capability, Kill};

use super::super::Kernel;
use super::{Caller, Next, Outcome};
use syscalls::Reply;

impl Kernel {
    /// A signal that ends its own sender is acted on after the reply, so that the sender hears it.
    pub(super) fn sys_kill(&mut self, caller: &Caller, args: &Kill) -> Outcome {
        // A zombie is there, and has nothing left to be signalled, as in Unix.
        if self
            .processes
            .zombie(args.pid)
            .is_some_and(|z| z.id.uid == caller.uid || caller.caps.has(Capability::Kill))
        {
            return Ok(Next::Reply(Reply::Done {}));
        }
        self.subject(caller, args.pid)?;
        Ok(Next::Signal(vec![args.pid], args.signal))
    }
}
