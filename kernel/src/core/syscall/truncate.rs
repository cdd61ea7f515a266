//! `truncate`: cuts a context to a length.

use syscalls::call::Truncate;

use super::super::Kernel;
use super::super::context::Work;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_truncate(&self, caller: &Caller, args: &Truncate) -> Outcome {
        self.own_context(caller, args.context)?;
        Ok(Next::Queue(args.context, Work::Truncate(args.length.0)))
    }
}
