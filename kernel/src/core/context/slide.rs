//! A context that slides when it is full: the oldest tokens behind the first page go, and the rest moves up.
//!
//! The first page stays because attention leans on the first positions whatever they say (attention sinks): without
//! them a model loses the thread at once. What moves up has other positions than it was computed at, so it is
//! computed again from the log; half of the window goes at a time, so that this is rare.

use std::sync::Arc;

use drivers::wire::{PAGE_TOKENS, Question};
use syscalls::call::{Message, OnFull};
use syscalls::{ContextId, Event, Tokens};

use super::super::Kernel;
use super::super::call::CallNo;
use super::Context;

impl Context {
    /// Tokens at the beginning that stay for ever.
    fn sink(&self) -> u32 {
        PAGE_TOKENS.min(self.tokens_max / 4)
    }

    /// Tokens that go at a time: half of what does not stay, in whole pages if it has one.
    fn slide_tokens(&self) -> u32 {
        let half = ((self.tokens_max - self.sink()) / 2).max(1);
        if half > PAGE_TOKENS { half - half % PAGE_TOKENS } else { half }
    }

    /// Whether it makes room for so many tokens rather than being full.
    pub(super) fn slides_for(&self, tokens: u64) -> bool {
        self.on_full == OnFull::Slide && tokens <= u64::from(self.slide_tokens())
    }

    /// The call that is told when it slides.
    fn served(&self) -> Option<CallNo> {
        self.generating().or_else(|| self.queue.front().map(|q| q.call))
    }
}

impl Kernel {
    /// Drops the oldest tokens behind the first page: half of the window, or what is there.
    pub(in crate::core) fn slide(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let (sink, length) = (context.sink(), context.length());
        // The last token stays: what comes next depends on it.
        let dropped = context.slide_tokens().min(length.saturating_sub(sink + 1));
        if dropped == 0 {
            return;
        }
        let (from, to) = (sink as usize, (sink + dropped) as usize);
        if let Some(generation) = &mut context.generation {
            generation.slide(&context.log, from, to);
        }
        if let (Some(resident), Some(model)) = (&mut context.resident, self.models.get_mut(&context.model)) {
            model.leave_tree(id, resident);
        }
        Arc::make_mut(&mut context.log).drain(from..to);
        context.evaluated = context.evaluated.saturating_sub(dropped).max(sink.min(context.evaluated));
        context.condemned = None;
        let (owner, served) = (context.owner, context.served());
        if let Some(process) = self.processes.living_mut(owner) {
            process.context_tokens -= u64::from(dropped);
        }
        self.rewind(id, sink);
        self.leave_segment(id, sink);
        self.enroll_context(id);
        if let Some(call) = served {
            self.report(call, Event::Slid { tokens: Tokens(dropped), messages: 0 });
        }
    }

    /// Asks for the template again with half of the conversation, if the context slides and there is more than
    /// instructions and the last message. Tells whether it did.
    pub(super) fn slide_chat(&mut self, id: ContextId, call: CallNo, messages: &[Message]) -> bool {
        let Some(context) = self.contexts.get(&id).filter(|c| c.on_full == OnFull::Slide) else {
            return false;
        };
        let instructions = messages.iter().take_while(|m| m.role == "system").count();
        let rest = messages.len() - instructions;
        if rest < 2 {
            return false;
        }
        let dropped = rest / 2;
        let kept = messages[..instructions].iter().chain(&messages[instructions + dropped..]);
        let request =
            drivers::wire::ChatRequest { messages: kept.cloned().collect(), held: context.log.to_vec() };
        let model = context.model;
        if self.ask(model, call, Some(id), Question::Chat(request)).is_err() {
            return false;
        }
        self.report(call, Event::Slid { tokens: Tokens(0), messages: dropped as u32 });
        true
    }
}
