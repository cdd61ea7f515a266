//! What a running call reports before its reply.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{Token, Tokens};

/// One event, named by its `event` field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Generated tokens. `text` is whole UTF-8: a character that spans tokens comes with its last one.
    Tokens {
        /// The text that has become certain since the last event; empty while a character or a possible stop
        /// string is incomplete.
        text: String,
        /// The tokens since the last event.
        tokens: Vec<Token>,
        /// One entry a token, if the call asked for `logprobs`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        logprobs: Vec<TokenLogprob>,
    },
    /// The worker died; the context is computed again from its token log. No token is lost or repeated.
    Replaying {
        /// Tokens that are computed again.
        tokens: u32,
    },
    /// The context was full and slides (`on_full`): its oldest part is gone, and the rest is computed again.
    Slid {
        /// Tokens that were dropped.
        tokens: Tokens,
        /// Messages of the conversation that were dropped instead, oldest first.
        messages: u32,
    },
    /// The context was full and compacts (`on_full`): a summary, written by the model, stands for its oldest part.
    Compacted {
        /// Tokens that were dropped.
        tokens: Tokens,
        /// Tokens of the summary.
        summary: Tokens,
    },
    /// A progress report of a long call such as `mount`.
    Progress {
        /// Between 0 and 1.
        fraction: f32,
        /// What is being done.
        what: String,
    },
}

/// How likely a token was, and what else was likely.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenLogprob {
    /// The token that was taken.
    pub token: Token,
    /// The natural logarithm of its probability under the model, before temperature and filters.
    pub logprob: f32,
    /// The most likely tokens, best first.
    pub top: Vec<Alternative>,
}

/// A token that could have been taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alternative {
    /// The token.
    pub token: Token,
    /// Its text, with bytes that are no UTF-8 replaced.
    pub text: String,
    /// The natural logarithm of its probability under the model, before temperature and filters.
    pub logprob: f32,
}
