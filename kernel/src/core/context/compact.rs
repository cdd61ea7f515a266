//! A context that compacts when it is full: its oldest part behind its instructions is replaced with a summary that the
//! model itself writes. What counts as instructions is what stays when a context slides.
//!
//! The summary is a generation of the kernel's own, on a copy of the beginning with an instruction behind it. It is
//! charged to the process, and scheduled like any other of its generations. Meanwhile the context does not run. If
//! there is no summary, none that is shorter than what it stands for, or too little beside the instructions, the
//! context slides instead. The same happens where `append` finds it full: a call that adds text is not made to wait
//! for the model.

use std::sync::Arc;

use drivers::wire::{SamplingSpec, TokenizeRequest};
use syscalls::call::{OnFull, Sampling};
use syscalls::reply::Finish;
use syscalls::{ContextId, Errno, Event, Fault, Reply, Token, Tokens};

use super::super::Kernel;
use super::super::call::CallNo;
use super::super::generate::Valid;
use super::{Context, Work};

/// What the model is told behind the part that goes. Plain words that base models continue and chat models follow.
const INSTRUCTION: &str = "\n\nSummary of everything above, in a few sentences:\n";

/// Tokens that are not worth a summary: one page.
const COMPACTED_TOKENS_MIN: u32 = 64;

/// A summary may take this part of what it stands for.
const SUMMARY_PART: u32 = 4;

/// A summary that is being written.
#[derive(Debug)]
pub(in crate::core) struct Compaction {
    /// The copy that it is written on.
    helper: ContextId,
    call: CallNo,
    from: u32,
    to: u32,
    /// The log when it began: a context that is cut meanwhile is left alone.
    log: Arc<Vec<Token>>,
}

impl Kernel {
    /// Makes room in a full context, as it was opened to.
    pub(in crate::core) fn shorten(&mut self, id: ContextId) {
        let compacts =
            self.contexts.get(&id).is_some_and(|c| c.on_full == OnFull::Compact && !c.is_overinstructed());
        if !compacts || !self.compact(id) {
            self.slide(id);
        }
    }

    /// Begins to write a summary. Tells whether it could.
    fn compact(&mut self, id: ContextId) -> bool {
        let Some(context) = self.contexts.get(&id) else { return false };
        let (from, to) = context.oldest();
        let (owner, model, tokens_max) = (context.owner, context.model, context.tokens_max);
        let budget = (to - from) / SUMMARY_PART;
        let fits = u64::from(to) + INSTRUCTION.len() as u64 + u64::from(budget) <= u64::from(tokens_max);
        let allowed = self.check_contexts(owner, 1, u64::from(to)).is_ok();
        if to - from < COMPACTED_TOKENS_MIN || !fits || !allowed || context.compaction.is_some() {
            return false;
        }
        let helper = self.copy(id, owner, model, tokens_max, to);
        if let Some(helper) = self.contexts.get_mut(&helper) {
            helper.on_full = OnFull::Stop;
            // After a restart the context is full again, and another summary is begun.
            helper.kept = None;
        }
        let (told, call) = (self.calls.number(), self.calls.number());
        self.compactions.insert(call, id);
        if let Some(context) = self.contexts.get_mut(&id) {
            let log = context.log.share();
            context.compaction = Some(Box::new(Compaction { helper, call, from, to, log }));
        }
        self.settle(id);
        let instruction = TokenizeRequest { text: INSTRUCTION.into(), bos: false, special: false };
        self.enqueue(helper, told, Work::AppendText(instruction));
        let sampling = Box::new(SamplingSpec::new(&Sampling { temperature: 0.0, ..Sampling::default() }, 0));
        let valid = Valid {
            max_tokens: Some(budget),
            stop: vec![],
            sampling,
            ignore_eos: false,
            logprobs: None,
            stream: false,
            deadline_ms: None,
        };
        self.enqueue(helper, call, Work::Generate(Box::new(valid)));
        true
    }

    /// Takes a summary, or the reason why there is none.
    pub(in crate::core) fn compacted(&mut self, id: ContextId, result: Result<Reply, Fault>) {
        let Some(compaction) = self.contexts.get_mut(&id).and_then(|c| c.compaction.take()) else { return };
        let ended = Fault::new(Errno::ECANCELED, "the summary has been written");
        self.close_context(compaction.helper, &ended);
        let Some(context) = self.contexts.get(&id) else { return };
        let (from, to) = (compaction.from as usize, compaction.to as usize);
        let same = context.log.get(..to) == compaction.log.get(..to);
        let summary = result.ok().and_then(summary_of).filter(|s| !s.is_empty() && s.len() < to - from);
        match summary {
            Some(summary) if same => self.replace(id, compaction.from, compaction.to, &summary),
            _ if context.length() >= context.tokens_max => self.slide(id),
            _ => {}
        }
        self.settle(id);
        self.advance(id);
    }

    /// Ends the writing of a summary, when the context is closed.
    pub(super) fn drop_compaction(&mut self, id: ContextId, fault: &Fault) {
        let Some(compaction) = self.contexts.get_mut(&id).and_then(|c| c.compaction.take()) else { return };
        self.compactions.remove(&compaction.call);
        self.close_context(compaction.helper, fault);
    }
}

/// The tokens of a summary, without the one that ended it.
fn summary_of(reply: Reply) -> Option<Vec<Token>> {
    let Reply::Generated(mut generated) = reply else { return None };
    if generated.finish == Finish::Eos {
        generated.tokens.pop();
    }
    Some(generated.tokens)
}

/// The event that tells of tokens that were dropped for a summary, or for nothing.
pub(super) fn event(kept: u32, dropped: u32, summary: usize) -> Event {
    let (kept, tokens) = (Tokens(kept), Tokens(dropped));
    match summary {
        0 => Event::Slid { kept, tokens, messages: 0 },
        n => Event::Compacted { kept, tokens, summary: Tokens(n as u32) },
    }
}

impl Context {
    /// Whether it waits for a summary of its own beginning.
    pub(in crate::core) fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }
}
