//! `fork`: copies a context.

use syscalls::call::Fork;
use syscalls::limits::FORK_COPIES_MAX;
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::super::context::Work;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_fork(&self, caller: &Caller, args: Fork) -> Outcome {
        self.own_context(caller, args.context)?;
        let copies = args.copies;
        if copies == 0 || copies > FORK_COPIES_MAX {
            let message = format!("copies is {copies}; it must be from 1 to {FORK_COPIES_MAX}");
            return Err(Fault::new(Errno::EINVAL, message));
        }
        Ok(Next::Queue(args.context, Work::Fork(args)))
    }
}
