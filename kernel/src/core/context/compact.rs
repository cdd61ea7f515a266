//! A context that compacts when it is full: its oldest part behind its instructions is replaced with a summary that the
//! model itself writes. What counts as instructions is what stays when a context slides.
//!
//! The summary is a generation of the kernel's own, on a copy of the beginning with an instruction behind it. It is
//! charged to the process, and scheduled like any other of its generations. Meanwhile the context does not run. If
//! there is no summary, none that is shorter than what it stands for, or too little beside the instructions, the
//! context slides instead. Where `append` finds no room, its call waits for the summary, and what it adds comes behind
//! that; what becomes of messages that do not fit stands in `recap.rs`.

use std::sync::Arc;

use drivers::wire::{SamplingSpec, TokenizeRequest};
use syscalls::call::{OnFull, Sampling};
use syscalls::reply::Finish;
use syscalls::{ContextId, Errno, Event, Fault, Reply, Token, Tokens};

use super::super::Kernel;
use super::super::call::CallNo;
use super::super::generate::Valid;
use super::recap::Recap;
use super::{Context, Queued, Work};

/// What the model is told behind the part that goes. Plain words that base models continue and chat models follow.
const INSTRUCTION: &str = "\n\nSummary of everything above, in a few sentences:\n";

/// Tokens that are not worth a summary: one page.
const COMPACTED_TOKENS_MIN: u32 = 64;

/// A summary may take this part of what it stands for.
pub(super) const SUMMARY_PART: u32 = 4;

/// A summary that is being written.
#[derive(Debug)]
pub(in crate::core) struct Compaction {
    /// The copy that it is written on.
    helper: ContextId,
    call: CallNo,
    replaces: Replaces,
}

/// What a summary takes the place of.
#[derive(Debug)]
pub(super) enum Replaces {
    Tokens(Part),
    Messages(Recap),
}

/// Tokens that a summary is to replace.
#[derive(Debug)]
pub(super) struct Part {
    from: u32,
    to: u32,
    /// The log when it began: a context that is cut meanwhile is left alone.
    log: Arc<Vec<Token>>,
    /// A call of `append` that waits for room, and what it adds.
    append: Option<(CallNo, Vec<Token>)>,
}

impl Kernel {
    /// Makes room in a full context, as it was opened to.
    pub(in crate::core) fn shorten(&mut self, id: ContextId) {
        if !self.compact(id, None) {
            self.slide(id);
        }
    }

    /// Begins to write a summary, which a call of `append` may wait for. Tells whether it could.
    pub(super) fn compact(&mut self, id: ContextId, append: Option<(CallNo, &[Token])>) -> bool {
        let compacts = |c: &&Context| c.on_full == OnFull::Compact && !c.is_overinstructed();
        let Some(context) = self.contexts.get(&id).filter(compacts) else { return false };
        let (from, to) = context.oldest();
        let (owner, model, tokens_max) = (context.owner, context.model, context.tokens_max);
        let budget = (to - from) / SUMMARY_PART;
        let fits = u64::from(to) + INSTRUCTION.len() as u64 + u64::from(budget) <= u64::from(tokens_max);
        let allowed = self.check_contexts(owner, 1, u64::from(to)).is_ok();
        if to - from < COMPACTED_TOKENS_MIN || !fits || !allowed || context.compaction.is_some() {
            return false;
        }
        let helper = self.copy(id, owner, model, tokens_max, to);
        let Some(context) = self.contexts.get_mut(&id) else { return false };
        let log = context.log.share();
        if let Some((call, tokens)) = append {
            self.note_waits_for_summary(id, call, Some(tokens));
        }
        let append = append.map(|(call, tokens)| (call, tokens.to_vec()));
        let instruction = TokenizeRequest { text: INSTRUCTION.into(), bos: false, special: false };
        let replaces = Replaces::Tokens(Part { from, to, log, append });
        self.begin_summary(id, helper, Work::AppendText(instruction), budget, replaces);
        true
    }

    /// Has a summary of so many tokens at most written on a context of the kernel's own, behind what asks for it.
    pub(super) fn begin_summary(
        &mut self,
        id: ContextId,
        helper: ContextId,
        asks: Work,
        budget: u32,
        replaces: Replaces,
    ) {
        if let Some(helper) = self.contexts.get_mut(&helper) {
            helper.on_full = OnFull::Stop;
            // After a restart the context is full again, and another summary is begun.
            helper.kept = None;
        }
        let (told, call) = (self.calls.number(), self.calls.number());
        self.compactions.extend([(told, id), (call, id)]);
        if let Some(context) = self.contexts.get_mut(&id) {
            context.compaction = Some(Box::new(Compaction { helper, call, replaces }));
        }
        self.settle(id);
        self.enqueue(helper, told, asks);
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
    }

    /// Takes a summary, or the reason why there is none: what asks for it may be refused, too, and what the model would
    /// say without that is none.
    pub(in crate::core) fn compacted(&mut self, id: ContextId, result: Result<Reply, Fault>) {
        if matches!(result, Ok(Reply::Appended { .. })) {
            return;
        }
        let Some(compaction) = self.contexts.get_mut(&id).and_then(|c| c.compaction.take()) else { return };
        let ended = Fault::new(Errno::ECANCELED, "the summary has been written");
        self.close_context(compaction.helper, &ended);
        match compaction.replaces {
            Replaces::Tokens(part) => self.part_summed_up(id, part, result.ok().and_then(summary_of)),
            Replaces::Messages(recap) => self.recapped(id, recap, result.ok()),
        }
        self.settle(id);
        self.advance(id);
    }

    /// Puts a summary in the place of what it stands for, and goes on with the call that waited for it.
    fn part_summed_up(&mut self, id: ContextId, part: Part, summary: Option<Vec<Token>>) {
        let Some(context) = self.contexts.get(&id) else { return };
        let (from, to) = (part.from as usize, part.to as usize);
        let same = context.log.get(..to) == part.log.get(..to);
        match summary.filter(|s| !s.is_empty() && s.len() < to - from) {
            Some(summary) if same => self.replace(id, part.from, part.to, &summary),
            _ if context.length() >= context.tokens_max => self.slide(id),
            _ => {}
        }
        let waits = |call| self.contexts.get(&id).is_some_and(|c| c.head(call).is_some());
        if let Some((call, tokens)) = part.append.filter(|(call, _)| waits(*call)) {
            let result = self.append_tokens(id, &tokens);
            self.finish_head(id, call, result);
        }
    }

    /// Notes that a call of `append` waits for a summary, and what it adds, so that it is begun anew after a restart.
    pub(super) fn note_waits_for_summary(&mut self, id: ContextId, call: CallNo, tokens: Option<&[Token]>) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let kept = context.kept.is_some();
        let Some(head) = context.queue.front_mut().filter(|queued| queued.call == call) else { return };
        head.summed_up = true;
        if let Some(tokens) = tokens.filter(|_| kept && head.asked.is_none()) {
            head.asked = Some(Box::new(Work::AppendTokens(tokens.to_vec())));
        }
        self.touch(id);
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
        n => Event::Compacted { kept, tokens, summary: Tokens(n as u32), messages: 0 },
    }
}

impl Context {
    /// Whether it waits for a summary of its own beginning.
    pub(in crate::core) fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// What stands at the head of the line, if that is this call.
    pub(super) fn head(&self, call: CallNo) -> Option<&Queued> {
        self.queue.front().filter(|queued| queued.call == call)
    }

    /// Whether a call at the head of the line has not waited for a summary yet. What is too long behind one would be so
    /// behind the next.
    pub(super) fn may_wait_for_summary(&self, call: CallNo) -> bool {
        self.head(call).is_some_and(|queued| !queued.summed_up)
    }
}
