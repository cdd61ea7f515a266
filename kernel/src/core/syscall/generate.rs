//! `generate`: continues a context.

use syscalls::call::Generate;

use super::super::Kernel;
use super::super::context::Work;
use super::super::generate::Valid;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_generate(&mut self, caller: &Caller, args: Generate) -> Outcome {
        let context = args.context;
        self.own_context(caller, context)?;
        let seed = self.seeds.draw();
        let valid = Valid::check(args, seed)?;
        Ok(Next::Queue(context, Work::Generate(Box::new(valid))))
    }
}
