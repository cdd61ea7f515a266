//! `detokenize`: turns tokens into text.

use drivers::wire::Question;
use syscalls::call::Detokenize;

use super::super::Kernel;
use super::{Next, Outcome};

impl Kernel {
    pub(super) fn sys_detokenize(&self, args: Detokenize) -> Outcome {
        let model = self.choose_model(args.model.as_deref(), |_| true)?;
        Ok(Next::Ask(model.id, Question::Detokenize(args.tokens)))
    }
}
