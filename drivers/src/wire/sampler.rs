//! How tokens are chosen.

use serde::{Deserialize, Serialize};
use syscalls::Token;
use syscalls::call::Sampling;

/// How tokens are chosen for one generation, with all that is needed to set it up again in another worker in
/// mid-generation: the choice of token number `n` depends on the logits, the seed and `n` alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplerSpec {
    /// Filters, temperature, penalties and grammar; `seed` is set.
    pub sampling: SamplingSpec,
    /// The last tokens before the generation, for the penalties; at most `penalty_last_n`.
    pub history: Vec<Token>,
    /// Tokens generated so far, for penalties, grammar and the random numbers' counter.
    pub generated: Vec<Token>,
    /// Never choose an end-of-generation token.
    pub ignore_eos: bool,
    /// How many alternatives to report for each token; none are reported if absent.
    pub logprobs: Option<u32>,
}

/// [`Sampling`] with its choices made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplingSpec {
    pub repeat_penalty: f32,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    pub penalty_last_n: u32,
    pub top_k: u32,
    pub top_p: f32,
    pub min_p: f32,
    pub temperature: f32,
    pub seed: u64,
    pub grammar: Option<Grammar>,
}

impl SamplingSpec {
    /// Settles the seed and the kind of grammar.
    pub fn new(sampling: &Sampling, seed: u64) -> Self {
        let grammar = match (&sampling.grammar, &sampling.json_schema) {
            (Some(gbnf), _) => Some(Grammar::Gbnf(gbnf.clone())),
            (None, Some(schema)) => Some(Grammar::JsonSchema(schema.to_string())),
            (None, None) => None,
        };
        SamplingSpec {
            repeat_penalty: sampling.repeat_penalty,
            frequency_penalty: sampling.frequency_penalty,
            presence_penalty: sampling.presence_penalty,
            penalty_last_n: sampling.penalty_last_n,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            temperature: sampling.temperature,
            seed,
            grammar,
        }
    }
}

/// What generated text must follow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Grammar {
    /// llama.cpp's grammar notation, with the start symbol `root`.
    Gbnf(String),
    /// A JSON schema, as JSON.
    JsonSchema(String),
}
