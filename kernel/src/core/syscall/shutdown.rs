//! `shutdown`: stops the daemon.

use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_shutdown(&self, caller: &Caller) -> Outcome {
        if !caller.admin {
            let message = "only the administrator can stop the daemon: root, or the user that it runs as";
            return Err(Fault::new(Errno::EPERM, message));
        }
        Ok(Next::Terminate)
    }
}
