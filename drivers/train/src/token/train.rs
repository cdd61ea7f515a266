//! Learns a vocabulary from text: characters and bytes as they are, pieces of words in [`learned`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::error::TokenError;
use super::{Tokeniser, alphabet, learned};

/// Bytes of text that a vocabulary is learned from; what is beyond changes little and costs memory.
pub const TRAINING_BYTES_MAX: usize = 256 << 20;

/// A kind of vocabulary that can be learned, with its size where there is a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A token for each character of the text.
    Char,
    /// A token for each byte.
    Byte,
    /// Byte-level byte-pair encoding.
    Bpe(u32),
    /// Pieces of words, lower case.
    WordPiece(u32),
    /// A unigram language model over pieces.
    Unigram(u32),
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Char => "char",
            Kind::Byte => "byte",
            Kind::Bpe(_) => "BPE",
            Kind::WordPiece(_) => "WordPiece",
            Kind::Unigram(_) => "Unigram",
        }
    }

    pub(super) fn size(self) -> usize {
        match self {
            Kind::Char => 0,
            Kind::Byte => 256,
            Kind::Bpe(size) | Kind::WordPiece(size) | Kind::Unigram(size) => size as usize,
        }
    }
}

/// Learns a vocabulary of a kind, which begins with the special tokens.
///
/// # Errors
///
/// An error of the texts' own, or [`TokenError`].
pub fn train<E: From<TokenError> + Send>(
    kind: Kind,
    special: &[String],
    texts: impl Iterator<Item = Result<String, E>> + Send,
) -> Result<Tokeniser, E> {
    let mut texts = Fallible { texts, left: TRAINING_BYTES_MAX, error: None };
    let trained = match kind {
        Kind::Char => characters(special, &mut texts),
        Kind::Byte => from_json(&alphabet::of_bytes(special)),
        _ => learned::learn(kind, special, &mut texts),
    };
    match texts.error {
        Some(error) => Err(error),
        None => trained.map_err(E::from),
    }
}

/// Gives texts until one cannot be read, or there are enough of them.
struct Fallible<I, E> {
    texts: I,
    left: usize,
    error: Option<E>,
}

impl<E, I: Iterator<Item = Result<String, E>>> Iterator for Fallible<I, E> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.left == 0 {
            return None;
        }
        match self.texts.next()? {
            Ok(text) => {
                self.left = self.left.saturating_sub(text.len());
                Some(text)
            }
            Err(error) => {
                self.error = Some(error);
                self.left = 0;
                None
            }
        }
    }
}

fn characters(special: &[String], texts: impl Iterator<Item = String>) -> Result<Tokeniser, TokenError> {
    let mut found = BTreeSet::new();
    texts.for_each(|text| found.extend(text.chars()));
    if found.is_empty() {
        return Err(TokenError::NoText);
    }
    from_json(&alphabet::of_characters(&found, special))
}

fn from_json(json: &serde_json::Value) -> Result<Tokeniser, TokenError> {
    Tokeniser::from_json(&json.to_string())
}
