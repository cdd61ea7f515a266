//! `tokenize`: turns text into tokens.

use drivers::wire::{Question, TokenizeRequest};
use syscalls::call::Tokenize;

use super::super::Kernel;
use super::{Next, Outcome};

impl Kernel {
    pub(super) fn sys_tokenize(&self, args: Tokenize) -> Outcome {
        let model = self.choose_model(args.model.as_deref(), |_| true)?;
        let request = TokenizeRequest { text: args.text, bos: args.bos, special: args.special };
        Ok(Next::Ask(model.id, Question::Tokenize(request)))
    }
}
