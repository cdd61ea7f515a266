//! `shutdown`: stops the daemon.

use super::super::Kernel;
use super::{Next, Outcome};

impl Kernel {
    pub(super) fn sys_shutdown(&self) -> Outcome {
        Ok(Next::Terminate)
    }
}
