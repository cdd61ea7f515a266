//! What is told of a generation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::TokenLogprob;
use crate::id::{Token, Tokens};

/// Answer to `generate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GeneratedReply {
    /// Why it ended.
    pub finish: Finish,
    /// The whole text, without the stop string.
    pub text: String,
    /// All tokens, with an end-of-generation token or a stop string's.
    pub tokens: Vec<Token>,
    /// One entry a token, if the call asked for `logprobs` and did not stream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
    /// How many tokens the context has now.
    pub length: Tokens,
    /// The seed that was used; the one to give to get the same tokens again.
    pub seed: u64,
    /// What it took.
    pub usage: Usage,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model chose an end-of-generation token.
    Eos,
    /// A stop string came.
    Stop,
    /// `max_tokens` were generated, or the process has used up what it may have.
    Length,
    /// The context is full.
    ContextFull,
    /// INT, TERM or KILL ended it.
    Interrupted,
}

/// What a generation took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Tokens of the context that were evaluated for this call before the first one came out.
    pub prompt_tokens_evaluated: u32,
    /// Tokens of the context whose pages were there already.
    pub prompt_tokens_shared: u32,
    /// Tokens that came out.
    pub tokens_generated: u32,
    /// From the call to the first token, in microseconds.
    pub first_token_us: u64,
    /// From the call to the last token, in microseconds.
    pub total_us: u64,
}
