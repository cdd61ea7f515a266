//! Generation: from a checked call to its reply, one token a step.
//!
//! A generation begins when its call is at the head of its context's line and ends with a token (end of text, stop
//! string, the most that were asked for, a full context), a signal, or a fault. Its tokens go into the context's
//! log as they come, so a generation that is cut short, and one whose worker dies, has lost nothing. Sampling
//! happens in the worker; the kernel gives it everything that is needed to go on in another worker.

mod text;
mod valid;

use drivers::wire::{Op, Sampled, SampledLogprob};
use syscalls::call::{Message, OnFull};
use syscalls::event::{Alternative, TokenLogprob};
use syscalls::reply::{Finish, GeneratedReply, Usage};
use syscalls::{ContextId, Errno, Event, Fault, Reply, Token, TokenRun, Tokens};

use super::Kernel;
use super::call::{CallNo, Caller};
use super::context::{Context, Started};
use super::event::Now;
use super::sched::{Drafter, died_twice};

pub(super) use text::{Let, TextOut};
pub(super) use valid::Valid;

/// A generation that has begun.
#[derive(Debug)]
pub(super) struct Generation {
    pub call: CallNo,
    /// Who is told of its tokens; nobody where it is the kernel's own, or its process is detached.
    pub caller: Option<Caller>,
    pub valid: Valid,
    /// The length of the log when it began: what is behind it is generated.
    pub start: u32,
    pub usage: Usage,
    /// When it should have ended.
    pub deadline: Option<Now>,
    pub since: Now,
    /// Prompt tokens that were computed in the steps that it decoded in.
    pub beside: u32,
    /// The most tokens, from the call and from the process's limit.
    pub tokens_max: u32,
    pub text: TextOut,
    /// Kept for the reply where no events carry them.
    pub logprobs: Vec<TokenLogprob>,
    /// A row of it has been submitted.
    pub submitted: bool,
    /// Guesses its tokens, where the model checks guesses.
    pub drafter: Option<Box<Drafter>>,
    /// Tokens of it that are no longer in the log, because the context slid.
    pub slid: Vec<Token>,
    /// The tokens before it that the sampler looks at, as they were when the context first slid.
    pub history: Option<Vec<Token>>,
}

impl Generation {
    /// Tokens that may still come when the log has this length.
    pub(super) fn left(&self, length: u32) -> u32 {
        self.tokens_max.saturating_sub(length - self.start + self.slid.len() as u32)
    }

    /// When its call came.
    pub(super) fn since(&self) -> Now {
        self.since
    }

    /// From when on the latency target protects it: prompts that were there before its first token are its peers, and
    /// it lets them go first, up to `peers_max` tokens. Before its first token nothing is to be protected.
    pub(super) fn protected_from(&self, peers_max: u32) -> Now {
        if self.beside >= peers_max { Now(0) } else { Now(self.since.0 + self.usage.first_token_us) }
    }

    /// Notes that so many prompt tokens were computed beside its row.
    pub(super) fn prompts_passed(&mut self, tokens: u32) {
        self.beside = self.beside.saturating_add(tokens);
    }

    /// Notes the first row, at which `computed` tokens are there already. Tells how many these are, once.
    pub(super) fn first_row(&mut self, computed: u32) -> Option<u32> {
        if self.submitted {
            return None;
        }
        self.submitted = true;
        self.usage.prompt_tokens_shared = computed;
        Some(computed)
    }

    /// Notes that the tokens of a range leave the log, and so many others take their place.
    pub(super) fn slide(&mut self, log: &[Token], from: usize, to: usize, added: u32) {
        let start = self.start as usize;
        if self.history.is_none() {
            self.history = Some(self.before(log));
        }
        if start < to {
            self.slid.extend_from_slice(&log[start..to]);
            self.start = from as u32 + added;
        } else {
            self.start = self.start - (to - from) as u32 + added;
        }
    }

    /// The last tokens before it, as many as the sampler looks at.
    pub(super) fn before(&self, log: &[Token]) -> Vec<Token> {
        if let Some(history) = &self.history {
            return history.clone();
        }
        let start = self.start as usize;
        let looked_at = (self.valid.sampling.penalty_last_n as usize).min(start);
        log[start - looked_at..start].to_vec()
    }

    /// The text that has become certain.
    pub(super) fn text(&self) -> &str {
        self.text.text()
    }

    /// The tokens that came out.
    pub(super) fn tokens(&self, log: &[Token]) -> Vec<Token> {
        [self.slid.as_slice(), &log[self.start as usize..]].concat()
    }
}

/// What a token came to.
pub(super) struct Taken {
    /// Who is told of it, where the generation streams, with the text that has become certain.
    pub told: Option<(Caller, String, Vec<TokenLogprob>)>,
    /// How the generation ends with it.
    pub finish: Option<Finish>,
    /// It was the last that there is room for, and the generation goes on.
    pub full: bool,
}

impl Context {
    /// Whether the reply of its generation has what the events have not: how likely tokens were.
    pub(super) fn keeps_logprobs(&self) -> bool {
        self.generation.as_ref().is_some_and(|g| !g.valid.stream)
    }

    /// Takes a token that has been added to the log: lets its text out, and tells whether the generation ends.
    pub(super) fn take_token(&mut self, sampled: &mut Sampled, room_left: bool, now: Now) -> Option<Taken> {
        let (full, slides) = (self.length() >= self.tokens_max, self.on_full != OnFull::Stop);
        let length = self.length();
        let generation = self.generation.as_mut()?;
        let generated = length - generation.start + generation.slid.len() as u32;
        if generated == 1 {
            generation.usage.first_token_us = now.0.saturating_sub(generation.since.0);
        }
        let (mut text, stopped) = match generation.text.push(std::mem::take(&mut sampled.piece)) {
            Let::Out(text) => (text, false),
            Let::Stop(text) => (text, true),
        };
        let ends = sampled.end && !generation.valid.ignore_eos;
        let finish = match () {
            () if ends => Some(Finish::Eos),
            () if stopped => Some(Finish::Stop),
            () if generated >= generation.tokens_max => Some(Finish::Length),
            () if (full && !slides) || !room_left => Some(Finish::ContextFull),
            () => None,
        };
        if finish.is_some() {
            text.push_str(&generation.text.finish());
        }
        let logprob = sampled.logprob.take().map(|l| token_logprob(sampled.token, l));
        let told = if generation.valid.stream {
            generation.caller.map(|caller| (caller, text, logprob.into_iter().collect()))
        } else {
            generation.logprobs.extend(logprob);
            None
        };
        Some(Taken { told, finish, full })
    }
}

impl Kernel {
    /// Begins a generation on a context.
    pub(super) fn begin_generation(&mut self, id: ContextId, call: CallNo, valid: Valid) -> Started {
        let tokens_max = match self.may_generate(id) {
            Ok(left) => {
                let window = self.contexts.get(&id).map_or(0, |c| c.tokens_max);
                valid.max_tokens.unwrap_or(window).min(left)
            }
            Err(fault) => return Started::Done(Err(fault)),
        };
        let pending = self.calls.get(call);
        let (since, caller) = (pending.map_or(self.now, |p| p.since), pending.and_then(|p| p.caller));
        let deadline = valid.deadline_ms.map(|ms| Now(since.0.saturating_add(ms.saturating_mul(1000))));
        if let Some(late) = deadline.and_then(|at| self.now.0.checked_sub(at.0)) {
            let message = format!(
                "the deadline passed {} ms before the generation could begin; give it more time, or do not let it wait for other calls on context {id}",
                late / 1000
            );
            return Started::Done(Err(Fault::new(Errno::ETIMEDOUT, message)));
        }
        let Some(context) = self.contexts.get_mut(&id) else { return Started::GoesOn };
        let start = context.length();
        let text = TextOut::new(valid.stop.clone());
        context.generation = Some(Box::new(Generation {
            call,
            caller,
            valid,
            start,
            usage: Usage::default(),
            deadline,
            since,
            beside: 0,
            tokens_max,
            text,
            logprobs: Vec::new(),
            submitted: false,
            slid: Vec::new(),
            history: None,
            drafter: None,
        }));
        let (owner, full) = (context.owner, start >= context.tokens_max);
        if let Some(process) = self.processes.living_mut(owner) {
            process.begin_work(self.now);
        }
        if full {
            if self.context(id).is_ok_and(|c| c.on_full == OnFull::Stop) {
                return Started::Done(self.conclude(id, Finish::ContextFull));
            }
            self.shorten(id);
        }
        let Some(context) = self.contexts.get(&id) else { return Started::GoesOn };
        let start = context.length();
        // The first token depends on what comes out of the last one of the prompt, so that is always computed.
        if context.remaining() == 0 {
            self.contexts.get_mut(&id).into_iter().for_each(|c| c.evaluated = c.evaluated.min(start - 1));
            self.rewind(id, start - 1);
        }
        self.claim_saved(id);
        self.settle(id);
        self.touch(id);
        Started::GoesOn
    }

    /// Checks that a generation can begin, and tells how many tokens its process may still generate.
    fn may_generate(&self, id: ContextId) -> Result<u32, Fault> {
        let context = self.context(id)?;
        let model = self.model(context.model)?;
        model.check_usable()?;
        self.check_harmless(model, context.owner)?;
        if context.log.is_empty() {
            let message =
                format!("context {id} is empty, so there is nothing to continue; append something first");
            return Err(Fault::new(Errno::EINVAL, message));
        }
        if let Some(at) = context.condemned {
            return Err(died_twice(id, at));
        }
        let process = self.process(context.owner)?;
        if process.limits.service_us.is_some_and(|most| process.id.counters.step_us >= most) {
            return Err(process.service_used_up());
        }
        // One that slides makes room of its own.
        let slides = context.length() >= context.tokens_max && context.on_full != OnFull::Stop;
        if !slides {
            self.check_groups(context.owner, 0, 1)?;
            if process.context_tokens_left() == 0 {
                let message = format!(
                    "process {} has {} tokens in its contexts and its limit is {}; shorten or close some, or raise it with setlimit",
                    process.id.pid,
                    process.context_tokens,
                    process.limits.context_tokens.unwrap_or_default()
                );
                return Err(Fault::new(Errno::E2BIG, message));
            }
        }
        match process.generated_tokens_left() {
            0 => Err(Fault::new(
                Errno::E2BIG,
                format!(
                    "process {} has generated {} tokens and its limit is {}; raise it with setlimit",
                    process.id.pid,
                    process.id.counters.tokens_generated,
                    process.limits.generated_tokens.unwrap_or_default()
                ),
            )),
            left => Ok(u32::try_from(left).unwrap_or(u32::MAX)),
        }
    }

    /// Ends a generation, answers its call and begins the next in line.
    pub(super) fn end_generation(&mut self, id: ContextId, finish: Finish) {
        let Some(call) = self.contexts.get(&id).and_then(Context::generating) else { return };
        let reply = self.conclude(id, finish);
        self.finish_head(id, call, reply);
    }

    /// Takes the generation off the context and makes its reply.
    fn conclude(&mut self, id: ContextId, finish: Finish) -> Result<Reply, Fault> {
        let Some(mut generation) = self.drop_generation(id) else {
            return Err(Fault::new(Errno::EBADF, format!("context {id} generates nothing")));
        };
        let rest = generation.text.finish();
        if generation.valid.stream && !rest.is_empty() {
            let event = Event::Tokens { text: rest, tokens: TokenRun::new(), logprobs: vec![] };
            self.report(generation.call, event);
        }
        let text = generation.text.text().to_owned();
        self.remember_answer(id, &text);
        let context = self.context(id)?;
        let tokens = generation.tokens(&context.log);
        generation.usage.tokens_generated = tokens.len() as u32;
        generation.usage.total_us = self.now.0.saturating_sub(generation.since.0);
        Ok(Reply::Generated(GeneratedReply {
            finish,
            text,
            tokens,
            logprobs: generation.logprobs,
            length: Tokens(context.length()),
            seed: generation.valid.sampling.seed,
            usage: generation.usage,
        }))
    }

    /// Takes the generation off the context. What the worker keeps for it goes with the next step.
    pub(super) fn drop_generation(&mut self, id: ContextId) -> Option<Box<Generation>> {
        let context = self.contexts.get_mut(&id)?;
        let generation = context.generation.take()?;
        let (owner, model, mut suspected) = (context.owner, context.model, false);
        if let Some(process) = self.processes.living_mut(context.owner) {
            process.end_work(self.now);
        }
        if let Some(model) = self.models.get_mut(&context.model) {
            suspected = model.suspects.remove(&id) && model.takes_contexts();
            let sampler = context.resident.as_mut().and_then(|r| r.sampler.take());
            if let (Some(_), Some(resident)) = (sampler, &context.resident) {
                model.ops.push(Op::SamplerClose { asid: resident.lease.asid() });
            }
        }
        if suspected {
            self.suspect_left(model, owner);
        }
        self.settle(id);
        self.touch(id);
        Some(generation)
    }

    /// In a conversation, what was generated is the assistant's message; a further generation continues it.
    fn remember_answer(&mut self, id: ContextId, text: &str) {
        let Some(context) = self.contexts.get_mut(&id).filter(|c| !c.messages.is_empty()) else { return };
        match context.messages.last_mut() {
            Some(last) if context.answering => last.content.push_str(text),
            _ => context.messages.push(Message { role: "assistant".into(), content: text.to_owned() }),
        }
        context.answering = true;
        self.touch(id);
    }
}

/// How likely a token was, for the reply.
pub(super) fn token_logprob(token: Token, from: SampledLogprob) -> TokenLogprob {
    let alternative = |(token, bytes, logprob): (Token, Vec<u8>, f32)| Alternative {
        token,
        text: String::from_utf8_lossy(&bytes).into_owned(),
        logprob: finite(logprob),
    };
    let top = from.top.into_iter().map(alternative).collect();
    TokenLogprob { token, logprob: finite(from.logprob), top }
}

/// A logarithm that JSON has a form for, the least one where it is no number: neither a program nor the next daemon could
/// read what is written of any other.
fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { f32::MIN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihood_that_is_no_number_is_read_as_it_was_written() {
        for odd in [f32::NAN, f32::NEG_INFINITY, f32::INFINITY] {
            let from = SampledLogprob { logprob: odd, top: vec![(Token(1), b"a".to_vec(), odd)] };
            let told = token_logprob(Token(1), from);
            let text = serde_json::to_string(&told).expect("it has a form");
            assert_eq!(serde_json::from_str::<TokenLogprob>(&text).expect("it is read"), told);
        }
    }
}
