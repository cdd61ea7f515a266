//! Which token comes next: a function of the sequence's whole content, its sampler, and nothing else.

use syscalls::Errno;
use syscalls::Token;

use super::script::{Script, TextMode};
use super::text::{EOS, last_message, piece};
use crate::wire::{DriverFault, Sampled, SampledLogprob, SamplerSpec, SamplingSpec};

/// The score of what must come next; the others stay below [`NOISE`].
const CERTAIN: f32 = 20.0;

/// The spread of the scores among which the content chooses.
const NOISE: f32 = 4.0;

/// What the letters of [`TextMode::Markov`] are made of.
const VOWELS: &[u8] = b"aeiou";
const CONSONANTS: &[u8] = b"bdfgklmnprstvz";

/// Mixes a value into a hash (the finaliser of splitmix64).
pub(super) fn mix(hash: u64, value: u64) -> u64 {
    let mut z = (hash ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in 0..1 from a hash.
fn fraction(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// What a sequence holds, as far as the next token depends on it.
pub(super) struct Content {
    /// The hash of all tokens in their order.
    pub hash: u64,
    /// The tokens, or the last one alone where the script reads no prompts.
    pub tokens: Vec<Token>,
}

/// The sampler of one sequence.
pub(super) struct SimSampler {
    spec: SamplerSpec,
}

impl SimSampler {
    pub fn new(spec: SamplerSpec) -> Self {
        SimSampler { spec }
    }

    /// Why this sampler cannot choose, if so.
    pub fn trouble(&self) -> Option<DriverFault> {
        self.spec.sampling.grammar.as_ref().map(|_| {
            DriverFault::new(Errno::ENOSYS, "the sim driver has no grammars; mount a GGUF model for them")
        })
    }

    /// Chooses the token behind the content and remembers it.
    pub fn next(&mut self, script: &Script, content: &Content) -> Sampled {
        let scores = self.scores(script, content);
        let token = self.choose(scores.clone());
        let logprob = self.spec.logprobs.map(|count| logprob(&scores, token, count));
        self.spec.generated.push(token);
        let end = token == EOS;
        Sampled { token, piece: if end { Vec::new() } else { piece(token) }, end, logprob }
    }

    /// The tokens that may come, with their scores.
    fn scores(&self, script: &Script, content: &Content) -> Vec<(Token, f32)> {
        let mut scores = candidates(script, content);
        if let Some(token) = self.settled(script, content) {
            scores.retain(|(candidate, _)| *candidate != token);
            scores.push((token, CERTAIN));
        }
        if self.spec.ignore_eos {
            scores.retain(|(token, _)| *token != EOS);
        }
        scores
    }

    /// The token that an answer, the echo, or the script's end dictates.
    fn settled(&self, script: &Script, content: &Content) -> Option<Token> {
        let done = self.spec.generated.len();
        let prompt = &content.tokens[..content.tokens.len().saturating_sub(done)];
        let dictated = |text: &[u8]| Some(text.get(done).map_or(EOS, |byte| Token((*byte).into())));
        if !script.answers.is_empty() {
            let said = String::from_utf8_lossy(&last_message(prompt)).into_owned();
            if let Some(found) = script.answers.iter().find(|answer| said.contains(&answer.needle)) {
                return dictated(found.answer.as_bytes());
            }
        }
        if script.text == TextMode::Echo {
            return dictated(&last_message(prompt));
        }
        (script.eos > 0 && content.hash.is_multiple_of(script.eos)).then_some(EOS)
    }

    fn choose(&self, mut scores: Vec<(Token, f32)>) -> Token {
        let sampling = &self.spec.sampling;
        self.penalise(&mut scores);
        scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if sampling.temperature <= 0.0 {
            return scores[0].0;
        }
        let kept = filter(sampling, &scores);
        let weights: Vec<f64> = kept
            .iter()
            .map(|(_, score)| f64::from((score - kept[0].1) / sampling.temperature).exp())
            .collect();
        let drawn = fraction(mix(sampling.seed, self.spec.generated.len() as u64));
        let mut left = drawn * weights.iter().sum::<f64>();
        for ((token, _), weight) in kept.iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return *token;
            }
        }
        kept[kept.len() - 1].0
    }

    fn penalise(&self, scores: &mut [(Token, f32)]) {
        let sampling = &self.spec.sampling;
        let recent: Vec<Token> = (self.spec.generated.iter().rev())
            .chain(self.spec.history.iter().rev())
            .take(sampling.penalty_last_n as usize)
            .copied()
            .collect();
        for (token, score) in scores {
            let count = recent.iter().filter(|recent| *recent == token).count() as f32;
            if count > 0.0 {
                let repeat = sampling.repeat_penalty;
                *score = if *score > 0.0 { *score / repeat } else { *score * repeat };
                *score -= count * sampling.frequency_penalty + sampling.presence_penalty;
            }
        }
    }
}

/// What the filters keep of scores in falling order: at least one.
fn filter<'a>(sampling: &SamplingSpec, scores: &'a [(Token, f32)]) -> &'a [(Token, f32)] {
    let mut kept = scores;
    if sampling.top_k > 0 {
        kept = &kept[..kept.len().min(sampling.top_k as usize)];
    }
    let best = kept[0].1;
    let total: f32 = kept.iter().map(|(_, score)| (score - best).exp()).sum();
    if sampling.top_p < 1.0 {
        let mut mass = 0.0;
        let within = kept.iter().position(|(_, score)| {
            mass += (score - best).exp() / total;
            mass >= sampling.top_p
        });
        kept = &kept[..within.map_or(kept.len(), |at| at + 1)];
    }
    let likely = kept.iter().take_while(|(_, score)| (score - best).exp() >= sampling.min_p).count();
    &kept[..likely.max(1)]
}

/// The tokens among which the content chooses, with scores below [`NOISE`].
fn candidates(script: &Script, content: &Content) -> Vec<(Token, f32)> {
    let score = |byte: u8, bonus: f32| {
        let noise = fraction(mix(content.hash, byte.into())) as f32;
        (Token(byte.into()), noise * (NOISE - 1.0) + bonus)
    };
    let last = content.tokens.last().and_then(|token| u8::try_from(token.0).ok()).unwrap_or(b' ');
    if script.text != TextMode::Markov {
        return (b'a'..=b'z').map(|byte| score(byte, 0.0)).collect();
    }
    let letters = |set: &[u8]| set.iter().map(|byte| score(*byte, 0.0)).collect::<Vec<_>>();
    match last {
        b'.' => vec![score(b' ', 1.0)],
        _ if CONSONANTS.contains(&last) => letters(VOWELS),
        _ if VOWELS.contains(&last) => {
            let mut scores = letters(CONSONANTS);
            scores.push(score(b' ', 1.0));
            scores.push(score(b'.', 0.0));
            scores
        }
        _ => letters(CONSONANTS),
    }
}

/// The logarithmic probability of the chosen token before any filter, and the best alternatives.
fn logprob(scores: &[(Token, f32)], token: Token, count: u32) -> SampledLogprob {
    let best = scores.iter().map(|(_, score)| *score).fold(f32::NEG_INFINITY, f32::max);
    let total = scores.iter().map(|(_, score)| (score - best).exp()).sum::<f32>().ln() + best;
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let of = |wanted| sorted.iter().find(|(token, _)| *token == wanted).map_or(f32::MIN, |(_, score)| *score);
    SampledLogprob {
        logprob: of(token) - total,
        top: sorted.iter().take(count as usize).map(|(t, score)| (*t, piece(*t), score - total)).collect(),
    }
}
