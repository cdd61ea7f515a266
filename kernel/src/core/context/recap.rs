//! A conversation that compacts when a message does not fit: its oldest messages behind the instructions are replaced
//! with an exchange in which the model was asked to sum them up, and did.
//!
//! The exchange is a conversation of the kernel's own: the instructions, the messages that go, and the question. It
//! begins as the context's log does, so next to nothing of it is computed again. The call of `append` waits for it; the
//! template is asked again with the exchange in the place of the messages. Where there is no summary, or it all is too
//! long with it, messages are dropped as in a context that slides.

use std::ops::Range;

use drivers::wire::{ChatRequest, Question};
use syscalls::call::{Message, OnFull};
use syscalls::{ContextId, Event, Reply, Tokens};

use super::super::Kernel;
use super::super::call::CallNo;
use super::Work;
use super::compact::{Replaces, SUMMARY_PART};
use super::slide::oldest_messages;

/// What the model is asked for its summary, and what stands before it in the conversation from then on.
const QUESTION: &str = "Sum up our conversation so far in a few sentences.";

/// Messages that a summary is to replace.
#[derive(Debug)]
pub(super) struct Recap {
    /// The call of `append` that they were too long for.
    append: CallNo,
    /// The whole conversation, with what is appended.
    messages: Vec<Message>,
    oldest: Range<usize>,
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into() }
}

impl Kernel {
    /// Begins to write a summary of the oldest messages of a conversation that is too long, for the call that made it
    /// so. Tells whether it could; for one call it does so once.
    pub(super) fn compact_chat(&mut self, id: ContextId, call: CallNo, messages: &[Message]) -> bool {
        let Some(context) = self.contexts.get(&id) else { return false };
        let (owner, model, tokens_max) = (context.owner, context.model, context.tokens_max);
        let compacts = context.on_full == OnFull::Compact
            && !context.is_overinstructed()
            && !context.is_compacting()
            && context.may_wait_for_summary(call);
        let budget = context.slide_tokens() / SUMMARY_PART;
        let Some(oldest) = oldest_messages(messages).filter(|_| compacts && budget > 0) else { return false };
        // Templates want questions and answers in turns: what follows the answer is to be a question.
        let is_question = |at: &usize| messages[*at].role == "user";
        let end = (oldest.end..messages.len()).find(is_question).unwrap_or(oldest.end);
        let Ok(helper) = self.new_context(owner, model, tokens_max, OnFull::Stop, None) else { return false };
        self.note_waits_for_summary(id, call, None);
        let mut asked = messages[..end].to_vec();
        asked.push(message("user", QUESTION));
        let recap = Recap { append: call, messages: messages.to_vec(), oldest: oldest.start..end };
        self.begin_summary(id, helper, Work::AppendMessages(asked), budget, Replaces::Messages(recap));
        true
    }

    /// Goes on with the call of `append` when the summary is there, or there is none.
    pub(super) fn recapped(&mut self, id: ContextId, recap: Recap, reply: Option<Reply>) {
        let Recap { append, mut messages, oldest } = recap;
        if self.contexts.get(&id).is_none_or(|c| c.head(append).is_none()) {
            return;
        }
        let dropped = oldest.len() as u32;
        let generated = reply.and_then(|reply| match reply {
            Reply::Generated(generated) if !generated.text.trim().is_empty() => Some(generated),
            _ => None,
        });
        match generated {
            Some(generated) => {
                let exchange = [message("user", QUESTION), message("assistant", generated.text.trim())];
                messages.splice(oldest, exchange);
                let (none, summary) = (Tokens(0), Tokens(generated.tokens.len() as u32));
                self.report(
                    append,
                    Event::Compacted { kept: none, tokens: none, summary, messages: dropped },
                );
            }
            None if self.slide_chat(id, append, &messages) => return,
            // The answer is what it was, and so is what becomes of it.
            None => {}
        }
        let Some(context) = self.contexts.get(&id) else { return };
        let question = Question::Chat(ChatRequest { messages, held: context.log.to_vec() });
        if let Err(fault) = self.ask(context.model, append, Some(id), question) {
            self.finish_head(id, append, Err(fault));
        }
    }
}
