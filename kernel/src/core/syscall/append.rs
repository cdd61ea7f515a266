//! `append`: adds text, tokens or messages to a context.

use drivers::wire::TokenizeRequest;
use syscalls::call::{Append, Message};
use syscalls::limits::MESSAGES_MAX;
use syscalls::{ContextId, Errno, Fault};

use super::super::Kernel;
use super::super::context::Work;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_append(&self, caller: &Caller, args: Append) -> Outcome {
        self.own_context(caller, args.context)?;
        let work = match (args.text, args.tokens, args.messages) {
            (Some(text), None, None) => {
                // Whether the beginning-of-text token comes first is settled when its turn comes.
                Work::AppendText(TokenizeRequest { text, bos: false, special: args.special })
            }
            (None, Some(tokens), None) => Work::AppendTokens(tokens),
            (None, None, Some(messages)) => {
                self.check_messages(args.context, &messages)?;
                Work::AppendMessages(messages)
            }
            _ => {
                let message = "give exactly one of text, tokens and messages";
                return Err(Fault::new(Errno::EINVAL, message));
            }
        };
        if args.special && !matches!(work, Work::AppendText(_)) {
            return Err(Fault::new(Errno::EINVAL, "special goes with text only; leave it out"));
        }
        Ok(Next::Queue(args.context, work))
    }

    fn check_messages(&self, id: ContextId, messages: &[Message]) -> Result<(), Fault> {
        let model = self.model(self.context(id)?.model)?;
        if model.description.as_ref().is_some_and(|d| !d.chat_template) {
            let message = format!(
                "model {} has no chat template; append text, or mount a model that was trained to chat",
                model.name
            );
            return Err(Fault::new(Errno::ENOSYS, message));
        }
        match messages.len() {
            0 => Err(Fault::new(Errno::EINVAL, "messages is empty; give at least one")),
            n if n > MESSAGES_MAX => {
                Err(Fault::new(Errno::E2BIG, format!("{n} messages; the limit is {MESSAGES_MAX}")))
            }
            _ => Ok(()),
        }
    }
}
