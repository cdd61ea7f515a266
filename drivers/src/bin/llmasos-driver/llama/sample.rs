//! Chooses the next token from logits.
//!
//! The filters are llama.cpp's, in its order: penalties, top-k, top-p, min-p, temperature. They are written here
//! because they work on the row of logits in place and never build an array of the whole vocabulary. The last
//! word is a random number made from the seed and the count of tokens generated so far, so that the same logits
//! give the same token in another worker in mid-generation. Grammars are llama.cpp's own ([`super::grammar`]): a
//! token is chosen as if there were none, and only where the grammar refuses it, from what the grammar leaves.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use drivers::wire::{DriverFault, Sampled, SampledLogprob, SamplerSpec, SamplingSpec};
use llama_cpp_sys_2 as sys;
use syscalls::{Errno, Token};

use super::grammar::Grammar;
use super::model::Model;

/// How many candidates top-p looks at first where top-k leaves all; it looks at eight times as many until the
/// mass is reached.
const NUCLEUS_FIRST: usize = 256;

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
    /// EINVAL where the grammar leaves nothing and the model has no token that ends a generation.
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
        let random = uniform(self.spec.sampling.seed, self.spec.generated.len() as u64);
        let first = pick(logits, &self.spec.sampling, random);
        let Some(grammar) = &mut self.grammar else {
            return first.ok_or_else(|| DriverFault::new(Errno::EIO, "the model's output is not a number"));
        };
        if let Some(token) = first.filter(|token| grammar.allows(*token)) {
            return Ok(token);
        }
        grammar.mask(logits);
        pick(logits, &self.spec.sampling, random).or(self.marks.last_resort).ok_or_else(|| {
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
        let best = raw.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mass: f64 = raw.iter().map(|logit| f64::from(logit - best).exp()).sum();
        let total = f64::from(best) + mass.ln();
        let of = |logit: f32| (f64::from(logit) - total) as f32;
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

/// A token that may be chosen. The greater one is likelier, or earlier in the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    logit: f32,
    token: Token,
}

impl Eq for Candidate {}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.logit.total_cmp(&other.logit).then(other.token.cmp(&self.token))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Chooses with a random number in 0..1. None where no logit is a possible one.
fn pick(logits: &[f32], sampling: &SamplingSpec, random: f64) -> Option<Token> {
    if sampling.temperature <= 0.0 {
        return likeliest(logits);
    }
    let kept = filter(logits, sampling);
    let best = kept.iter().map(|candidate| candidate.logit).fold(f32::NEG_INFINITY, f32::max);
    let weight =
        |candidate: &Candidate| (f64::from(candidate.logit - best) / f64::from(sampling.temperature)).exp();
    let mut left = random * kept.iter().map(weight).sum::<f64>();
    for candidate in &kept {
        left -= weight(candidate);
        if left < 0.0 {
            return Some(candidate.token);
        }
    }
    kept.last().map(|candidate| candidate.token)
}

/// The first of the greatest logits.
fn likeliest(logits: &[f32]) -> Option<Token> {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if best == f32::NEG_INFINITY {
        return None;
    }
    logits.iter().position(|logit| *logit == best).map(|at| Token(at as u32))
}

/// What top-k, top-p and min-p leave: at least the likeliest, if anything is possible.
fn filter(logits: &[f32], sampling: &SamplingSpec) -> Vec<Candidate> {
    let mut kept = match sampling.top_k {
        0 => possible(logits).collect(),
        k => top(logits, k as usize),
    };
    if sampling.top_p < 1.0 {
        keep_nucleus(&mut kept, sampling.top_p);
    }
    if sampling.min_p > 0.0 {
        let best = kept.iter().map(|candidate| candidate.logit).fold(f32::NEG_INFINITY, f32::max);
        let least = best + sampling.min_p.min(1.0).ln();
        kept.retain(|candidate| candidate.logit >= least);
    }
    kept
}

fn possible(logits: &[f32]) -> impl Iterator<Item = Candidate> {
    (logits.iter().enumerate())
        .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
        .map(|(id, logit)| Candidate { logit: *logit, token: Token(id as u32) })
}

/// The `k` likeliest, likeliest first.
fn top(logits: &[f32], k: usize) -> Vec<Candidate> {
    let mut heap = BinaryHeap::with_capacity(k.min(logits.len()) + 1);
    let mut least = f32::NEG_INFINITY;
    for (id, logit) in logits.iter().enumerate() {
        // Equal logits keep the earlier token; this also leaves out what is no number.
        if *logit > least {
            heap.push(std::cmp::Reverse(Candidate { logit: *logit, token: Token(id as u32) }));
            if heap.len() > k {
                heap.pop();
            }
            if heap.len() == k {
                least = heap.peek().map_or(least, |least| least.0.logit);
            }
        }
    }
    heap.into_sorted_vec().into_iter().map(|candidate| candidate.0).collect()
}

/// Keeps the smallest set whose probabilities sum to `mass`, likeliest first.
fn keep_nucleus(kept: &mut Vec<Candidate>, mass: f32) {
    let Some(best) = kept.iter().max().map(|candidate| candidate.logit) else { return };
    let weight = |candidate: &Candidate| f64::from(candidate.logit - best).exp();
    let wanted = f64::from(mass) * kept.iter().map(weight).sum::<f64>();
    let mut sorted = NUCLEUS_FIRST;
    loop {
        let all = sorted >= kept.len();
        if !all {
            kept.select_nth_unstable_by(sorted, |a, b| b.cmp(a));
        }
        let front = sorted.min(kept.len());
        kept[..front].sort_unstable_by(|a, b| b.cmp(a));
        let mut sum = 0.0;
        let within = kept[..front].iter().position(|candidate| {
            sum += weight(candidate);
            sum >= wanted
        });
        if let Some(last) = within {
            return kept.truncate(last + 1);
        }
        if all {
            return;
        }
        sorted *= 8;
    }
}

/// The random number in 0..1 for the choice of token number `n` (splitmix64, as a hash of seed and count).
fn uniform(seed: u64, n: u64) -> f64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = (seed ^ n.wrapping_mul(STEP)).wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
