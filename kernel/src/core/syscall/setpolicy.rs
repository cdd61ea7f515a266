//! `setpolicy`: changes how the contexts of a class share a model.

use syscalls::call::Setpolicy;

use super::super::Kernel;
use super::{DONE, Outcome};

impl Kernel {
    pub(super) fn sys_setpolicy(&mut self, args: &Setpolicy) -> Outcome {
        self.set_policy(args.policy.parse()?);
        DONE
    }
}
