//! `tokens`: reads tokens of a context.

use syscalls::call::ReadTokens;

use super::super::Kernel;
use super::super::context::Work;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_tokens(&self, caller: &Caller, args: ReadTokens) -> Outcome {
        let asleep = self.asleep.get(&args.context).is_some_and(|image| image.owner == caller.pid);
        if let Some(read) = self.read_asleep(args.context, &args).filter(|_| asleep) {
            return read.map(Next::Reply);
        }
        self.own_context(caller, args.context)?;
        Ok(Next::Queue(args.context, Work::Read(args)))
    }
}
