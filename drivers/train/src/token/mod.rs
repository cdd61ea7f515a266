//! Tokenisers: from text to token ids and back.
//!
//! [`train()`] learns a vocabulary, [`Tokeniser::load`] reads a `tokenizer.json`. The work is the tokenizers
//! library's. What is added here: texts that a vocabulary cannot express are refused with the character, where the
//! library would drop it silently, and special tokens are found by what they are for.

mod alphabet;
mod error;
mod frame;
mod learned;
mod special;
#[cfg(test)]
mod tests;
mod train;

use std::collections::BTreeSet;
use std::path::Path;

use sha2::{Digest, Sha256};
use tokenizers::models::ModelWrapper;
use tokenizers::{PreTokenizerWrapper, Tokenizer};

pub use alphabet::of_numbered_characters;
pub use error::TokenError;
pub use frame::{Frame, Framed};
pub use special::{Family, Special, usual};
pub use train::{Kind, TRAINING_BYTES_MAX, train};

/// Tokens, and where each stands in its text, in bytes.
pub type Placed = (Vec<u32>, Vec<(usize, usize)>);

/// A tokeniser that is ready for use.
#[derive(Clone, Debug)]
pub struct Tokeniser {
    inner: Tokenizer,
    /// The characters that there are tokens for, where others would vanish.
    alphabet: Option<BTreeSet<char>>,
    /// What the file of it hashes to.
    digest: String,
}

impl Tokeniser {
    fn new(inner: Tokenizer) -> Result<Tokeniser, TokenError> {
        let json = inner.to_string(false).map_err(|error| TokenError::Library(error.to_string()))?;
        let digest = hex(&Sha256::digest(json.as_bytes()));
        let alphabet = alphabet_that_is_all(&inner);
        Ok(Tokeniser { inner, alphabet, digest })
    }

    /// Reads a `tokenizer.json`, or that of a folder in the Hugging Face layout.
    ///
    /// # Errors
    ///
    /// [`TokenError::File`] with the path.
    pub fn load(path: &Path) -> Result<Tokeniser, TokenError> {
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        let bad = |why: String| TokenError::File { path: path.clone(), why };
        let json = std::fs::read_to_string(&path).map_err(|error| bad(error.to_string()))?;
        Tokeniser::from_json(&json).map_err(|error| bad(error.to_string()))
    }

    /// Reads the text of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// What the library has against it.
    pub fn from_json(json: &str) -> Result<Tokeniser, TokenError> {
        let mut inner =
            Tokenizer::from_bytes(json.as_bytes()).map_err(|error| TokenError::Library(error.to_string()))?;
        // Rows are cut and filled up where batches are made, and nowhere else.
        inner.with_truncation(None).map_err(|error| TokenError::Library(error.to_string()))?;
        inner.with_padding(None);
        Tokeniser::new(inner)
    }

    /// The text of its `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// What the library has against it.
    pub fn to_json(&self) -> Result<String, TokenError> {
        self.inner.to_string(true).map_err(|error| TokenError::Library(error.to_string()))
    }

    /// Ids that a model needs rows for: one more than the highest.
    pub fn size(&self) -> u32 {
        self.inner.get_vocab(true).values().max().map_or(0, |highest| highest + 1)
    }

    /// A digest by which two tokenisers are told apart.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token with an id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a special token, if the vocabulary has it.
    pub fn find(&self, special: Special) -> Option<u32> {
        special.names().iter().find_map(|name| self.id(name))
    }

    /// The token that stands before a text alone, where the vocabulary puts one there.
    pub fn begin(&self) -> Option<u32> {
        let ids = |specials| Some(self.inner.encode_fast("a", specials).ok()?.get_ids().to_vec());
        let (bare, whole): (Vec<u32>, Vec<u32>) = (ids(false)?, ids(true)?);
        (whole.len() > bare.len() && whole.ends_with(&bare)).then(|| whole[0])
    }

    /// The id of a special token that is needed.
    ///
    /// # Errors
    ///
    /// [`TokenError::NoSpecial`] with the names that were looked for.
    pub fn need(&self, special: Special) -> Result<u32, TokenError> {
        self.find(special).ok_or_else(|| special.missing())
    }

    /// The library's own object, for what is seldom needed.
    pub fn inner(&self) -> &Tokenizer {
        &self.inner
    }

    /// The tokens of a text, without special tokens around it.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unknown`] for a character that the vocabulary cannot express.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenError> {
        self.check(text)?;
        let encoding =
            self.inner.encode_fast(text, false).map_err(|error| TokenError::Library(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of a text, and where each stands in it, in bytes.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unknown`] for a character that the vocabulary cannot express.
    pub fn encode_with_places(&self, text: &str) -> Result<Placed, TokenError> {
        let encoding = self.encoding(text)?;
        Ok((encoding.get_ids().to_vec(), encoding.get_offsets().to_vec()))
    }

    /// All that the tokenizers library tells of a text's tokens, their words included.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unknown`] for a character that the vocabulary cannot express.
    pub fn encoding(&self, text: &str) -> Result<tokenizers::Encoding, TokenError> {
        self.check(text)?;
        self.inner.encode(text, false).map_err(|error| TokenError::Library(error.to_string()))
    }

    /// The tokens of many texts, on all cores that the tokenizers library is allowed.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unknown`] for a character that the vocabulary cannot express.
    pub fn encode_all(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, TokenError> {
        texts.iter().try_for_each(|text| self.check(text))?;
        let inputs: Vec<&str> = texts.iter().map(String::as_str).collect();
        let encodings = self.inner.encode_batch_fast(inputs, false);
        let encodings = encodings.map_err(|error| TokenError::Library(error.to_string()))?;
        Ok(encodings.iter().map(|encoding| encoding.get_ids().to_vec()).collect())
    }

    /// The text of tokens, without the special ones.
    ///
    /// # Errors
    ///
    /// What the library has against the ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenError> {
        self.inner.decode(ids, true).map_err(|error| TokenError::Library(error.to_string()))
    }

    fn check(&self, text: &str) -> Result<(), TokenError> {
        let Some(alphabet) = &self.alphabet else { return Ok(()) };
        match text.chars().find(|character| !alphabet.contains(character)) {
            Some(character) => Err(TokenError::Unknown { character }),
            None => Ok(()),
        }
    }
}

/// The single characters of a BPE that knows neither bytes nor an unknown token: the library drops all others.
fn alphabet_that_is_all(tokeniser: &Tokenizer) -> Option<BTreeSet<char>> {
    let ModelWrapper::BPE(model) = tokeniser.get_model() else { return None };
    if model.unk_token.is_some() || model.byte_fallback || is_byte_level(tokeniser.get_pre_tokenizer()) {
        return None;
    }
    let single = |token: &String| {
        let mut characters = token.chars();
        characters.next().filter(|_| characters.next().is_none())
    };
    Some(model.get_vocab().keys().filter_map(single).collect())
}

fn is_byte_level(pre_tokeniser: Option<&PreTokenizerWrapper>) -> bool {
    match pre_tokeniser {
        Some(PreTokenizerWrapper::ByteLevel(_)) => true,
        // Llama 3 and its like split by an expression first.
        Some(sequence @ PreTokenizerWrapper::Sequence(_)) => {
            serde_json::to_string(sequence).is_ok_and(|json| json.contains("\"ByteLevel\""))
        }
        _ => false,
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
