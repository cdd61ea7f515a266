//! `tokens`: reads tokens of a context.

use syscalls::call::ReadTokens;

use super::super::Kernel;
use super::super::context::Work;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_tokens(&self, caller: &Caller, args: ReadTokens) -> Outcome {
        self.own_context(caller, args.context)?;
        Ok(Next::Queue(args.context, Work::Read(args)))
    }
}
