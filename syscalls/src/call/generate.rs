//! The call that generates, and how tokens are chosen.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{ContextId, Tokens};

args! {
    /// Arguments of `generate`.
    struct Generate {
        /// The context to continue.
        context: ContextId,
        /// The most tokens to generate; until the context is full, or as many as it holds if it slides, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_tokens: Option<Tokens>,
        /// Strings that end the generation; they are not part of the text.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        stop: Vec<String>,
        /// How tokens are chosen.
        #[serde(default)]
        sampling: Sampling,
        /// Goes on past the model's end-of-generation tokens, which are then never chosen.
        #[serde(default)]
        ignore_eos: bool,
        /// How many alternatives to report for each token; none are reported if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        logprobs: Option<u32>,
        /// Sends events as tokens come. Otherwise the reply alone carries the text.
        #[serde(default = "yes")]
        stream: bool,
        /// When it should have ended, in milliseconds from now. In the class `realtime`, and under the policy `edf`,
        /// the earliest deadline goes first. A generation that misses it goes on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<i64>,
    }

    /// How tokens are chosen. The filters act in the order of the fields.
    struct Sampling {
        /// Divides the logits of recent tokens; 1 does nothing.
        #[serde(default = "one_f32")]
        repeat_penalty: f32,
        /// Subtracted for each time that a token occurred; 0 does nothing.
        #[serde(default)]
        frequency_penalty: f32,
        /// Subtracted if a token occurred at all; 0 does nothing.
        #[serde(default)]
        presence_penalty: f32,
        /// How many of the last tokens the penalties look at.
        #[serde(default = "penalty_last_n")]
        penalty_last_n: u32,
        /// Keeps the k most likely tokens; 0 keeps all.
        #[serde(default = "top_k")]
        top_k: u32,
        /// Keeps the smallest set of tokens whose probabilities sum to this; 1 keeps all.
        #[serde(default = "top_p")]
        top_p: f32,
        /// Keeps tokens at least this likely relative to the likeliest; 0 keeps all.
        #[serde(default = "min_p")]
        min_p: f32,
        /// Divides the logits; 0 takes the likeliest token always.
        #[serde(default = "temperature")]
        temperature: f32,
        /// Makes the choice repeatable: the same seed on the same context gives the same tokens. The kernel
        /// picks one, and reports it, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seed: Option<u64>,
        /// A grammar in GBNF that the text must follow; its start symbol is `root`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grammar: Option<String>,
        /// A JSON schema that the text must satisfy; not together with `grammar`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        json_schema: Option<serde_json::Value>,
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            repeat_penalty: one_f32(),
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_last_n: penalty_last_n(),
            top_k: top_k(),
            top_p: top_p(),
            min_p: min_p(),
            temperature: temperature(),
            seed: None,
            grammar: None,
            json_schema: None,
        }
    }
}

// The defaults of llama.cpp's own tools, so that a model behaves here as people know it.
fn top_k() -> u32 {
    40
}
fn top_p() -> f32 {
    0.95
}
fn min_p() -> f32 {
    0.05
}
fn temperature() -> f32 {
    0.8
}
fn penalty_last_n() -> u32 {
    64
}
fn one_f32() -> f32 {
    1.0
}

fn yes() -> bool {
    true
}
