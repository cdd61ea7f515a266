//! What a program gets out of a model, and how it compares with what the program gets when it is alone.
//!
//! A deterministic mount promises the same bits. Elsewhere sums are rounded in another order, so a choice may come
//! out differently where two tokens are almost equally likely, and all that follows with it; until then likelihoods
//! are the same but for rounding.

use syscalls::call::{Generate, Sampling};
use syscalls::client::blocking::Client;
use syscalls::event::TokenLogprob;
use syscalls::reply::GeneratedReply;
use syscalls::{ContextId, Token, Tokens};

/// Alternatives that are reported for each token: the two likeliest show how near a choice was.
const ALTERNATIVES: u32 = 2;

/// By how much rounding may change the logarithm of a probability where weights are floats: ggml's fused attention sums
/// values in 16 bits. It was 0.06 at most over many runs, at the same few tokens each time. A mistake in what a row looks
/// at is caught by the bits of deterministic mounts.
pub const ROUNDING: f32 = 0.1;

/// The same where weights are quantised: what they are multiplied with is rounded to eight bits, too.
pub const ROUNDING_QUANTISED: f32 = 0.2;

/// What one generation said, with the likelihood of each token.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    pub tokens: Vec<Token>,
    pub logprobs: Vec<TokenLogprob>,
}

impl From<GeneratedReply> for Said {
    fn from(reply: GeneratedReply) -> Said {
        Said { tokens: reply.tokens, logprobs: reply.logprobs }
    }
}

/// A request for so many tokens, the likeliest ones, streamed and never ended early.
pub fn greedy(context: ContextId, generate: u32) -> Generate {
    Generate {
        context,
        max_tokens: Some(Tokens(generate)),
        stop: Vec::new(),
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        ignore_eos: true,
        logprobs: None,
        stream: true,
        deadline_ms: None,
    }
}

/// As [`greedy`], answered as a whole with the likelihood of each token.
pub fn measured(context: ContextId, generate: u32) -> Generate {
    Generate { logprobs: Some(ALTERNATIVES), stream: false, ..greedy(context, generate) }
}

/// Continues a context by so many tokens, the likeliest ones.
///
/// # Panics
///
/// The call fails, or the tokens are fewer.
pub fn say(client: &mut Client, context: ContextId, generate: u32) -> Said {
    let said = Said::from(client.generate(measured(context, generate), |_| {}).expect("generates"));
    assert_eq!((said.tokens.len(), said.logprobs.len()), (generate as usize, generate as usize));
    said
}

/// Checks that what was said is the same to the last bit.
///
/// # Panics
///
/// It is not.
pub fn assert_same_bits(alone: &[Said], other: &[Said], who: &str) {
    assert_eq!(alone.len(), other.len(), "{who}");
    for (turn, (alone, other)) in alone.iter().zip(other).enumerate() {
        let differs = alone.logprobs.iter().zip(&other.logprobs).position(|(a, b)| a != b);
        let shown = differs.map(|at| (at, &alone.logprobs[at], &other.logprobs[at]));
        assert_eq!(shown, None, "{who}, generation {turn}: token, alone, here");
        assert_eq!(alone.tokens, other.tokens, "{who}, generation {turn}");
    }
}

/// Checks that what was said is the same up to a choice, if there is one, that rounding decided: two tokens were not
/// further apart than `rounding`. Tells how many tokens were compared.
///
/// # Panics
///
/// It is not.
pub fn assert_same_but_for_ties(alone: &[Said], other: &[Said], rounding: f32, who: &str) -> usize {
    assert_eq!(alone.len(), other.len(), "{who}");
    let mut same = 0;
    for (alone, other) in alone.iter().zip(other) {
        for (at, (a, b)) in alone.logprobs.iter().zip(&other.logprobs).enumerate() {
            let apart = (a.top[0].logprob - b.top[0].logprob).abs();
            assert!(apart <= rounding, "{who}, token {at}: {a:?} alone, {b:?} here");
            if a.token != b.token {
                let gap = a.top[0].logprob - a.top[1].logprob;
                assert!(gap <= rounding, "{who}, token {at}: {a:?} alone, {b:?} here");
                // What follows another token cannot be compared, nor can later turns.
                return same;
            }
            same += 1;
        }
    }
    same
}
