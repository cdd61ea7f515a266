//! A context that slides when it is full: the oldest tokens behind its instructions go, and the rest moves up.
//!
//! Instructions are the system messages of a conversation, or the segment that the context was opened on, to the
//! token. Where these are longer than half of the window, too little would be left to slide: the first page alone
//! stays then, and the log says so. It stays in any case, because attention leans on the first positions whatever they
//! say (attention sinks): without them a model loses the thread at once. What moves up has other positions than it was
//! computed at, so it is computed again from the log; half of the window goes at a time, so that this is rare.

use std::ops::Range;

use drivers::wire::{PAGE_TOKENS, Question};
use syscalls::call::{Message, OnFull};
use syscalls::{ContextId, Event, Token, Tokens};

use super::super::Kernel;
use super::super::call::CallNo;
use super::super::effect::{Effect, LogLevel};
use super::{Context, compact};

impl Context {
    /// Tokens at the beginning that are to stay.
    fn instructed(&self) -> u32 {
        self.instructions.max(self.space.common)
    }

    /// Whether these are too many to stay.
    pub(super) fn is_overinstructed(&self) -> bool {
        self.instructed() > self.tokens_max / 2
    }

    /// Tokens at the beginning that stay for ever.
    fn sink(&self) -> u32 {
        let first_page = PAGE_TOKENS.min(self.tokens_max / 4);
        if self.is_overinstructed() { first_page } else { first_page.max(self.instructed()) }
    }

    /// Tokens that go at a time: half of what does not stay, in whole pages if it has one.
    pub(super) fn slide_tokens(&self) -> u32 {
        let half = ((self.tokens_max - self.sink()) / 2).max(1);
        if half > PAGE_TOKENS { half - half % PAGE_TOKENS } else { half }
    }

    /// The tokens that go when it is full. The last one stays: what comes next depends on it.
    pub(super) fn oldest(&self) -> (u32, u32) {
        let most = self.length().saturating_sub(self.sink() + 1);
        (self.sink(), self.sink() + self.slide_tokens().min(most))
    }

    /// Whether it makes room for so many tokens rather than being full.
    pub(super) fn slides_for(&self, tokens: u64) -> bool {
        self.on_full != OnFull::Stop && tokens <= u64::from(self.slide_tokens())
    }

    /// The call that is told when it slides.
    fn served(&self) -> Option<CallNo> {
        self.generating().or_else(|| self.queue.front().map(|q| q.call))
    }
}

impl Kernel {
    /// Drops the oldest tokens behind what stays: half of the window, or what is there.
    pub(in crate::core) fn slide(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get(&id) else { return };
        let (from, to) = context.oldest();
        if context.is_overinstructed() {
            let line = format!(
                "context {id} begins with {} tokens of instructions, more than half of its window of {}: they slide like the rest; open it with a larger tokens_max",
                context.instructed(),
                context.tokens_max
            );
            self.out.push(Effect::Log(LogLevel::Warn, line));
        }
        if from < to {
            self.replace(id, from, to, &[]);
        }
    }

    /// Puts a summary, or nothing, in the place of tokens. All from there on is computed again.
    pub(super) fn replace(&mut self, id: ContextId, from: u32, to: u32, summary: &[Token]) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let (range, added) = (from as usize..to as usize, summary.len() as u32);
        if let Some(generation) = &mut context.generation {
            generation.slide(&context.log, range.start, range.end, added);
        }
        if let (Some(resident), Some(model)) = (&mut context.resident, self.models.get_mut(&context.model)) {
            model.leave_tree(id, resident);
        }
        context.log.to_mut().splice(range, summary.iter().copied());
        let dropped = to - from;
        context.evaluated = context.evaluated.saturating_sub(dropped).max(from.min(context.evaluated));
        context.condemned = None;
        context.kept = context.kept.map(|kept| kept.min(from));
        context.instructions = if from < context.instructions { 0 } else { context.instructions };
        let (owner, served) = (context.owner, context.served());
        if let Some(process) = self.processes.living_mut(owner) {
            process.context_tokens -= u64::from(dropped - added);
        }
        self.rewind(id, from);
        self.leave_segment(id, from);
        self.enroll_context(id);
        self.touch(id);
        if let Some(call) = served {
            self.report(call, compact::event(from, dropped, summary.len()));
        }
    }

    /// Asks for the template again with half of the conversation, if the context slides and there is more than
    /// instructions and the last message. Tells whether it did.
    pub(super) fn slide_chat(&mut self, id: ContextId, call: CallNo, messages: &[Message]) -> bool {
        let Some(context) = self.contexts.get(&id).filter(|c| c.on_full != OnFull::Stop) else {
            return false;
        };
        let Some(oldest) = oldest_messages(messages) else { return false };
        let dropped = oldest.len();
        let kept = messages[..oldest.start].iter().chain(&messages[oldest.end..]);
        let request =
            drivers::wire::ChatRequest { messages: kept.cloned().collect(), held: context.log.to_vec() };
        let model = context.model;
        if self.ask(model, call, Some(id), Question::Chat(request)).is_err() {
            return false;
        }
        self.report(call, Event::Slid { kept: Tokens(0), tokens: Tokens(0), messages: dropped as u32 });
        true
    }
}

/// The oldest half of the messages behind the instructions, if there is more than these and the last one.
pub(super) fn oldest_messages(messages: &[Message]) -> Option<Range<usize>> {
    let instructions = messages.iter().take_while(|m| m.role == "system").count();
    let rest = messages.len() - instructions;
    (rest >= 2).then(|| instructions..instructions + rest / 2)
}
