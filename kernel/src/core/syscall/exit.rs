//! `exit`: ends the acting process.

use syscalls::call::Exit;

use super::super::Kernel;
use super::{Caller, Next, Outcome};

impl Kernel {
    /// The process ends after the reply, so that its client hears it before the connection is hung up.
    pub(super) fn sys_exit(&self, caller: &Caller, args: &Exit) -> Outcome {
        Ok(Next::End(caller.pid, args.status))
    }
}
