//! Calls that need a model and no context.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Token;

args! {
    /// Arguments of `tokenize`.
    struct Tokenize {
        /// The model's name; the only mounted one, or the configured default, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// The text.
        text: String,
        /// Puts the model's beginning-of-text token first, where it wants one.
        #[serde(default)]
        bos: bool,
        /// Reads names of special tokens as these tokens.
        #[serde(default)]
        special: bool,
    }

    /// Arguments of `detokenize`.
    struct Detokenize {
        /// The model's name; the only mounted one, or the configured default, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// The tokens.
        tokens: Vec<Token>,
    }

    /// Arguments of `embed`.
    struct Embed {
        /// The model's name; the only mounted encoder, or the configured default, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// The texts.
        texts: Vec<String>,
    }

    /// Arguments of `score`.
    struct Score {
        /// The model's name; the only mounted one, or the configured default, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// What stands before.
        prompt: String,
        /// What may follow.
        continuations: Vec<String>,
    }
}
