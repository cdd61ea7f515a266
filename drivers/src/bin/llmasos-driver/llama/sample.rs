//! Chooses the next token from logits.
//!
//! Penalties change the row of logits in place, then [`super::filter`] chooses. Its random number is made from the
//! seed and the count of tokens generated so far, so that the same logits give the same token in another worker
//! in mid-generation. Grammars are llama.cpp's own ([`super::grammar`]): a
//! token is chosen as if there were none, and only where the grammar refuses it, by another random number from what the
//! grammar leaves. So without filters a token that is allowed is as likely as it is among these.

use std::collections::VecDeque;
use std::sync::Arc;

use drivers::wire::{DriverFault, Sampled, SampledLogprob, SamplerSpec};
use llama_cpp_sys_2 as sys;
use syscalls::{Errno, Token};

use super::filter::{Candidate, likelihood, pick, top, uniform};
use super::grammar::Grammar;
use super::model::Model;

/// Tokens that are treated alike whatever the logits say.
pub struct Marks {
    /// End a generation.
    ends: Vec<Token>,
    /// Are never chosen: the model's file says so.
    suppressed: Vec<Token>,
    /// Have no text, so no grammar can follow them, and end nothing.
    silent: Vec<Token>,
    /// Is reported where a generation has to end and no end could be chosen.
    last_resort: Option<Token>,
}

impl Marks {
    /// Goes through the vocabulary once.
    pub fn new(model: &Model) -> Marks {
        let all = || (0..model.vocabulary_size()).map(Token);
        let ends: Vec<_> = all().filter(|token| model.ends(*token)).collect();
        let silent = |token: &Token| {
            let flags = sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN;
            model.attributes(*token) & flags != 0 && !model.ends(*token)
        };
        let last_resort = model.special(sys::llama_vocab_eos).or(ends.first().copied());
        Marks { suppressed: suppressed(model), silent: all().filter(silent).collect(), ends, last_resort }
    }
}

fn suppressed(model: &Model) -> Vec<Token> {
    let mut count = 0;
    // SAFETY: the list has `count` entries and lives as long as the model.
    let list = unsafe { sys::llama_vocab_get_suppress_tokens(model.vocabulary(), &mut count) };
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: as above.
    let list = unsafe { std::slice::from_raw_parts(list, count.max(0) as usize) };
    let known = |token: &i32| u32::try_from(*token).ok().filter(|t| *t < model.vocabulary_size()).map(Token);
    list.iter().filter_map(known).collect()
}

/// How tokens are chosen for one generation.
pub struct Sampler {
    spec: SamplerSpec,
    /// The last tokens, for the penalties.
    recent: VecDeque<Token>,
    grammar: Option<Grammar>,
    model: Arc<Model>,
    marks: Arc<Marks>,
}

impl Sampler {
    /// Sets up a sampler where its generation stands.
    ///
    /// # Errors
    ///
    /// EINVAL for a grammar that cannot be read, or a token outside the vocabulary.
    pub fn new(model: &Arc<Model>, marks: &Arc<Marks>, spec: SamplerSpec) -> Result<Sampler, DriverFault> {
        let size = model.vocabulary_size();
        if let Some(token) = spec.history.iter().chain(&spec.generated).find(|token| token.0 >= size) {
            let message = format!("token {token} in a sampler's history; the vocabulary has {size}");
            return Err(DriverFault::new(Errno::EINVAL, message));
        }
        let grammar =
            spec.sampling.grammar.as_ref().map(|grammar| Grammar::new(model, grammar)).transpose()?;
        let mut sampler =
            Sampler { recent: VecDeque::new(), grammar, model: model.clone(), marks: marks.clone(), spec };
        let history = std::mem::take(&mut sampler.spec.history);
        history.iter().for_each(|token| sampler.remember(*token));
        let generated = std::mem::take(&mut sampler.spec.generated);
        generated.into_iter().for_each(|token| sampler.accept(token));
        Ok(sampler)
    }

    /// Chooses a token, remembers it, and leaves the logits changed.
    ///
    /// # Errors
    ///
    /// EINVAL where the grammar leaves nothing and the model has no token that ends a generation, EIO where no logit is a
    /// number.
    pub fn next(&mut self, logits: &mut [f32]) -> Result<Sampled, DriverFault> {
        let raw = self.spec.logprobs.map(|count| (logits.to_vec(), count));
        self.mask(logits);
        self.penalise(logits);
        let token = self.choose(logits)?;
        let logprob = raw.map(|(raw, count)| self.logprob(&raw, token, count));
        let end = self.model.ends(token);
        let mut piece = Vec::new();
        if !end {
            self.model.piece(token, false, &mut piece);
        }
        self.accept(token);
        Ok(Sampled { token, piece, end, logprob })
    }

    fn mask(&self, logits: &mut [f32]) {
        let ends = if self.spec.ignore_eos { &self.marks.ends[..] } else { &[] };
        for token in ends.iter().chain(&self.marks.suppressed) {
            logits[token.0 as usize] = f32::NEG_INFINITY;
        }
        if self.grammar.is_some() {
            for token in &self.marks.silent {
                logits[token.0 as usize] = f32::NEG_INFINITY;
            }
        }
    }

    fn penalise(&self, logits: &mut [f32]) {
        let sampling = &self.spec.sampling;
        let repeat = sampling.repeat_penalty;
        if repeat == 1.0 && sampling.frequency_penalty == 0.0 && sampling.presence_penalty == 0.0 {
            return;
        }
        let mut recent: Vec<_> = self.recent.iter().copied().collect();
        recent.sort_unstable();
        for same in recent.chunk_by(|a, b| a == b) {
            let logit = &mut logits[same[0].0 as usize];
            // A negative logit is multiplied: dividing it would make the token likelier.
            *logit = if *logit <= 0.0 { *logit * repeat } else { *logit / repeat };
            *logit -= same.len() as f32 * sampling.frequency_penalty + sampling.presence_penalty;
        }
    }

    fn choose(&mut self, logits: &mut [f32]) -> Result<Token, DriverFault> {
        let (seed, count) = (self.spec.sampling.seed, self.spec.generated.len() as u64);
        let Some(first) = pick(logits, &self.spec.sampling, uniform(seed, count)) else {
            return Err(DriverFault::new(Errno::EIO, "the model's output is not a number"));
        };
        let Some(grammar) = &mut self.grammar else { return Ok(first) };
        if grammar.allows(first) {
            return Ok(first);
        }
        grammar.mask(logits);
        // By the number that led to what was refused, tokens at certain places would come too often.
        pick(logits, &self.spec.sampling, uniform(!seed, count)).or(self.marks.last_resort).ok_or_else(|| {
            let message = "the grammar is at its end and the model has no token that ends a generation";
            DriverFault::new(Errno::EINVAL, message)
        })
    }

    fn accept(&mut self, token: Token) {
        self.remember(token);
        self.spec.generated.push(token);
        if let Some(grammar) = self.grammar.as_mut().filter(|_| !self.model.ends(token)) {
            grammar.accept(token);
        }
    }

    fn remember(&mut self, token: Token) {
        let most = self.spec.sampling.penalty_last_n as usize;
        if most == 0 {
            return;
        }
        if self.recent.len() == most {
            self.recent.pop_front();
        }
        self.recent.push_back(token);
    }

    /// How likely the token was before any filter, and the best alternatives.
    fn logprob(&self, raw: &[f32], token: Token, count: u32) -> SampledLogprob {
        let of = likelihood(raw);
        let top = top(raw, count as usize)
            .into_iter()
            .map(|Candidate { logit, token }| {
                let mut piece = Vec::new();
                self.model.piece(token, false, &mut piece);
                (token, piece, of(logit))
            })
            .collect();
        SampledLogprob { logprob: of(raw[token.0 as usize]), top }
    }
}
