//! Adding to the end of a context. Text and messages are turned into tokens by the worker first; whatever the way,
//! either all tokens are added or none.

use drivers::wire::{Answer, ChatDelta, ChatRequest, Question, TokenizeRequest};
use syscalls::call::Message;
use syscalls::limits::MESSAGES_MAX;
use syscalls::{ContextId, Errno, Fault, Reply, Token, Tokens};

use super::super::Kernel;
use super::super::call::CallNo;
use super::super::event::ModelId;
use super::super::process::Process;
use super::Context;
use super::queue::Started;

impl Kernel {
    /// Has the worker tokenise text.
    pub(super) fn ask_tokens(
        &mut self,
        id: ContextId,
        call: CallNo,
        mut request: TokenizeRequest,
    ) -> Started {
        let Some(context) = self.contexts.get(&id) else { return Started::GoesOn };
        request.bos = context.log.is_empty();
        let model = context.model;
        self.ask_for_context(id, call, model, Question::Tokenize(request))
    }

    /// Has the worker put the conversation so far and further messages into the model's template.
    pub(super) fn ask_chat(&mut self, id: ContextId, call: CallNo, more: Vec<Message>) -> Started {
        let Some(context) = self.contexts.get_mut(&id) else { return Started::GoesOn };
        if context.messages.len() + more.len() > MESSAGES_MAX {
            let (had, more) = (context.messages.len(), more.len());
            let message = format!(
                "context {id} has {had} messages and would get {more} more; the limit is {MESSAGES_MAX}"
            );
            return Started::Done(Err(Fault::new(Errno::E2BIG, message)));
        }
        let mut messages = context.messages.clone();
        messages.extend(more);
        let question = Question::Chat(ChatRequest { messages, held: context.log.to_vec() });
        let model = context.model;
        self.ask_for_context(id, call, model, question)
    }

    fn ask_for_context(
        &mut self,
        id: ContextId,
        call: CallNo,
        model: ModelId,
        question: Question,
    ) -> Started {
        match self.ask(model, call, Some(id), question) {
            Ok(()) => Started::GoesOn,
            Err(fault) => Started::Done(Err(fault)),
        }
    }

    /// Takes the worker's answer to a question that was asked for the call at the head of a context's line.
    pub(in crate::core) fn answered_for_context(
        &mut self,
        id: ContextId,
        call: CallNo,
        question: Question,
        answer: Result<Answer, Fault>,
    ) {
        if let (Question::Chat(request), Ok(Answer::Chat(delta))) = (&question, &answer)
            && self.is_too_long(id, delta)
            && (self.compact_chat(id, call, &request.messages)
                || self.slide_chat(id, call, &request.messages))
        {
            return;
        }
        if let (Question::Tokenize(_), Ok(Answer::Tokens(tokens))) = (&question, &answer) {
            if let Started::Done(result) = self.add_tokens(id, call, tokens) {
                self.finish_head(id, call, result);
            }
            return;
        }
        let result = answer.and_then(|answer| match (question, answer) {
            (Question::Chat(request), Answer::Chat(delta)) => self.append_chat(id, request, &delta),
            _ => Err(Fault::new(Errno::EIO, "the worker answered another question than was asked")),
        });
        self.finish_head(id, call, result);
    }

    /// Adds tokens to the log for a call, which waits for a summary where the context compacts and lacks room for them.
    pub(super) fn add_tokens(&mut self, id: ContextId, call: CallNo, tokens: &[Token]) -> Started {
        let overflows = |c: &&Context| u64::from(c.length()) + tokens.len() as u64 > u64::from(c.tokens_max);
        let overflowing = self.contexts.get(&id).filter(overflows);
        let waits = overflowing.is_some_and(|c| {
            let slides = c.slides_for(tokens.len() as u64);
            c.may_wait_for_summary(call) && self.check_room(id, c.length(), tokens, slides).is_ok()
        });
        if waits && self.compact(id, Some((call, tokens))) {
            return Started::GoesOn;
        }
        Started::Done(self.append_tokens(id, tokens))
    }

    /// Adds tokens to the log. A context that slides makes room first.
    pub(super) fn append_tokens(&mut self, id: ContextId, tokens: &[Token]) -> Result<Reply, Fault> {
        let context = self.context(id)?;
        let (length, most) = (context.length(), context.tokens_max as usize);
        self.check_room(id, length, tokens, context.slides_for(tokens.len() as u64))?;
        if length as usize + tokens.len() > most {
            self.slide(id);
        }
        self.extend(id, tokens);
        let context = self.context(id)?;
        Ok(Reply::Appended { length: Tokens(context.length()), added: Tokens(tokens.len() as u32) })
    }

    fn is_too_long(&self, id: ContextId, delta: &ChatDelta) -> bool {
        let wanted = u64::from(delta.keep) + delta.append.len() as u64;
        self.contexts.get(&id).is_some_and(|c| wanted > u64::from(c.tokens_max))
    }

    fn append_chat(
        &mut self,
        id: ContextId,
        request: ChatRequest,
        delta: &ChatDelta,
    ) -> Result<Reply, Fault> {
        let length = self.context(id)?.length();
        if delta.keep > length {
            let message =
                format!("the worker wants to keep {} tokens of a context that has {length}", delta.keep);
            return Err(Fault::new(Errno::EIO, message));
        }
        self.check_room(id, delta.keep, &delta.append, false)?;
        self.cut(id, delta.keep);
        self.extend(id, &delta.append);
        let Some(context) = self.contexts.get_mut(&id) else { return Ok(Reply::Done {}) };
        context.instructions = delta.instructions.min(context.length());
        context.messages = request.messages;
        context.answering = false;
        let length = Tokens(context.length());
        Ok(Reply::Appended { length, added: Tokens(delta.append.len() as u32) })
    }

    /// Checks that tokens can come behind the first `keep`: that they exist, and that there is room.
    fn check_room(&self, id: ContextId, keep: u32, tokens: &[Token], slides: bool) -> Result<(), Fault> {
        let context = self.context(id)?;
        let vocabulary = self.model(context.model)?.vocabulary();
        if let Some(bad) = tokens.iter().find(|t| t.0 >= vocabulary) {
            let message = format!("token {bad} is not in the vocabulary, which has {vocabulary}");
            return Err(Fault::new(Errno::EINVAL, message));
        }
        let (wanted, most) = (u64::from(keep) + tokens.len() as u64, u64::from(context.tokens_max));
        if wanted > most && !slides {
            let message = format!(
                "the context would have {wanted} tokens and holds {most}; shorten the text, or mount the model with a larger --context"
            );
            return Err(Fault::new(Errno::ENOSPC, message));
        }
        let process = self.process(context.owner)?;
        let added = wanted.saturating_sub(u64::from(context.length()));
        if added > process.context_tokens_left() {
            let (has, most) = (process.context_tokens, process.limits.context_tokens.unwrap_or_default());
            let message = format!(
                "process {} has {has} tokens in its contexts and would get {added} more; its limit is {most}, raise it with setlimit",
                process.id.pid
            );
            return Err(Fault::new(Errno::E2BIG, message));
        }
        self.check_groups(context.owner, 0, added)?;
        Ok(())
    }

    /// Adds tokens that were checked.
    pub(in crate::core) fn extend(&mut self, id: ContextId, tokens: &[Token]) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        if let Some(owner) = self.processes.living_mut(context.owner) {
            context.extend(owner, tokens);
        }
    }
}

impl Context {
    /// Adds tokens that were checked, and charges its process with them.
    pub(in crate::core) fn extend(&mut self, owner: &mut Process, tokens: &[Token]) {
        self.log.to_mut().extend_from_slice(tokens);
        debug_assert!(self.length() <= self.tokens_max);
        owner.context_tokens += tokens.len() as u64;
    }
}
