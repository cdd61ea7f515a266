//! What can be wrong with a vocabulary or with a text that it must express.

use std::path::PathBuf;

/// Why there is no tokeniser, or a text has no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A `tokenizer.json` that is missing or no such file.
    #[error("{}: {why}; give a tokenizer.json in the format of the tokenizers library", path.display())]
    File { path: PathBuf, why: String },

    /// Training a vocabulary failed.
    #[error("a vocabulary of {size} {kind} tokens cannot be trained: {why}")]
    Training { kind: &'static str, size: usize, why: String },

    /// More tokens are asked for than the smallest vocabulary of this kind takes.
    #[error("a vocabulary of {size} {kind} tokens is too small: the alphabet and special tokens are {least}")]
    TooSmall { kind: &'static str, size: usize, least: usize },

    /// Nothing to train on.
    #[error("the texts have no character in them; a vocabulary needs at least one")]
    NoText,

    /// A character that the vocabulary lacks.
    #[error(
        "the vocabulary has no token for {character:?}, and none for unknown characters; \
         train it on this text too, or use a byte-level one"
    )]
    Unknown { character: char },

    /// A special token that is needed.
    #[error("the vocabulary has none of the tokens {names}, and {purpose} needs one; name it in `special`")]
    NoSpecial { names: String, purpose: &'static str },

    /// The library refused a text or ids.
    #[error("the tokeniser failed: {0}")]
    Library(String),
}
