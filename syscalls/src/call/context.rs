//! Calls about contexts, but for what generates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{ContextId, Token, Tokens};

args! {
    /// Arguments of `open`.
    struct Open {
        /// The model's name; the only mounted one, or the configured default, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// The most tokens that it may hold; what the model was mounted with if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tokens_max: Option<Tokens>,
        /// What happens when it is full.
        #[serde(default)]
        on_full: OnFull,
        /// A shared segment to begin with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix: Option<String>,
    }

    /// Arguments of `fork`.
    struct Fork {
        /// The context to copy.
        context: ContextId,
        /// How many copies.
        #[serde(default = "one")]
        copies: u32,
        /// How much of it to copy; all if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        length: Option<Tokens>,
    }

    /// Arguments of `close`.
    struct Close {
        /// The context.
        context: ContextId,
    }

    /// Arguments of `append`. Exactly one of `text`, `tokens` and `messages` is given.
    struct Append {
        /// The context.
        context: ContextId,
        /// Plain text. Names of special tokens in it are ordinary text, unless `special` is set. The model's
        /// beginning-of-text token comes first where the context is empty and the model wants one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// Tokens as they are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tokens: Option<Vec<Token>>,
        /// Chat messages, put into the model's template behind those that the context has already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        messages: Option<Vec<Message>>,
        /// Reads names of special tokens in `text`, such as `<|im_end|>`, as these tokens.
        #[serde(default)]
        special: bool,
    }

    /// One chat message.
    struct Message {
        /// `system`, `user`, `assistant` or `tool`, or what else the template knows.
        role: String,
        /// What was said.
        content: String,
    }

    /// Arguments of `truncate`.
    struct Truncate {
        /// The context.
        context: ContextId,
        /// How many tokens stay.
        length: Tokens,
    }

    /// Arguments of `tokens`.
    struct ReadTokens {
        /// The context.
        context: ContextId,
        /// The first token.
        #[serde(default)]
        from: Tokens,
        /// Behind the last token; the end if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Tokens>,
    }

    /// Arguments of `snapshot`.
    struct Snapshot {
        /// The context.
        context: ContextId,
        /// The name to keep it under, in the place of what has it. Names are each user's own.
        name: String,
    }

    /// Arguments of `snapshots`.
    struct Snapshots {}

    /// Arguments of `discard`.
    struct Discard {
        /// The name of the snapshot.
        name: String,
    }

    /// Arguments of `restore`.
    struct Restore {
        /// The name of the snapshot.
        name: String,
    }
}

/// What happens when a context is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// The call ends and says so.
    #[default]
    Stop,
    /// The oldest part is dropped, half of the window at a time, or in a conversation the oldest messages. The
    /// beginning stays: system messages, or the segment that the context was opened on; the first page where there
    /// are none, or where these are longer than half of the window.
    Slide,
    /// As `slide`, but a summary that the model writes takes the place of what is dropped; in a conversation, a question
    /// for it and the answer. An `append` that lacks room waits for it.
    Compact,
}

fn one() -> u32 {
    1
}
