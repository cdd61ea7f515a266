//! Learns a vocabulary from text.
//!
//! The pieces are those of the models that made each kind known: BPE as in GPT-2, WordPiece as in BERT, Unigram as in
//! T5. So the file that comes out is read by every program that reads theirs.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::processors::template::{Template, TemplateProcessing};
use tokenizers::{AddedToken, NormalizerWrapper, Tokenizer, decoders};

use super::error::TokenError;
use super::special::Special;
use super::{Tokeniser, alphabet};

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
    fn name(self) -> &'static str {
        match self {
            Kind::Char => "char",
            Kind::Byte => "byte",
            Kind::Bpe(_) => "BPE",
            Kind::WordPiece(_) => "WordPiece",
            Kind::Unigram(_) => "Unigram",
        }
    }

    fn size(self) -> usize {
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
        _ => learned(kind, special, &mut texts),
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

fn learned(
    kind: Kind,
    special: &[String],
    texts: impl Iterator<Item = String> + Send,
) -> Result<Tokeniser, TokenError> {
    let size = kind.size();
    let least = special.len() + if matches!(kind, Kind::Bpe(_)) { 256 } else { 1 };
    if size < least {
        return Err(TokenError::TooSmall { kind: kind.name(), size, least });
    }
    let fail = |why: String| TokenError::Training { kind: kind.name(), size, why };
    let added: Vec<AddedToken> = special.iter().map(|token| AddedToken::from(token.clone(), true)).collect();
    let (mut tokeniser, mut trainer) = match kind {
        Kind::WordPiece(_) => word_piece(size, added, special).map_err(fail)?,
        Kind::Unigram(_) => unigram(size, added, special).map_err(fail)?,
        _ => byte_pairs(size, added),
    };
    tokeniser.train(&mut trainer, texts).map_err(|error| fail(error.to_string()))?;
    if matches!(kind, Kind::WordPiece(_)) {
        frame_with_specials(&mut tokeniser).map_err(fail)?;
    }
    // As its file is read: what was just trained can be written in another form than what was loaded, and a run that
    // goes on must find the vocabulary that it began with.
    Tokeniser::from_json(&tokeniser.to_string(false).map_err(|error| fail(error.to_string()))?)
}

fn byte_pairs(size: usize, special: Vec<AddedToken>) -> (Tokenizer, TrainerWrapper) {
    let mut tokeniser = Tokenizer::new(BPE::default());
    tokeniser.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokeniser.with_decoder(Some(ByteLevel::default()));
    let trainer = BpeTrainer::builder()
        .vocab_size(size)
        .show_progress(false)
        .special_tokens(special)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    (tokeniser, TrainerWrapper::BpeTrainer(trainer))
}

fn word_piece(
    size: usize,
    special: Vec<AddedToken>,
    names: &[String],
) -> Result<(Tokenizer, TrainerWrapper), String> {
    let unknown = find(names, Special::Unknown).ok_or_else(|| Special::Unknown.missing().to_string())?;
    let model = WordPiece::builder().unk_token(unknown).build().map_err(|error| error.to_string())?;
    let mut tokeniser = Tokenizer::new(model);
    let normaliser = NormalizerWrapper::from(BertNormalizer::default());
    tokeniser.with_normalizer(Some(normaliser)).map_err(|error| error.to_string())?;
    tokeniser.with_pre_tokenizer(Some(BertPreTokenizer));
    tokeniser.with_decoder(Some(decoders::wordpiece::WordPiece::default()));
    let trainer =
        WordPieceTrainer::builder().vocab_size(size).show_progress(false).special_tokens(special).build();
    Ok((tokeniser, TrainerWrapper::WordPieceTrainer(trainer)))
}

fn unigram(
    size: usize,
    special: Vec<AddedToken>,
    names: &[String],
) -> Result<(Tokenizer, TrainerWrapper), String> {
    let unknown = find(names, Special::Unknown).ok_or_else(|| Special::Unknown.missing().to_string())?;
    let spaces = || Metaspace::new('\u{2581}', PrependScheme::Always, true);
    let mut tokeniser = Tokenizer::new(Unigram::default());
    tokeniser.with_pre_tokenizer(Some(spaces()));
    tokeniser.with_decoder(Some(spaces()));
    let trainer = UnigramTrainer::builder()
        .vocab_size(size as u32)
        .show_progress(false)
        .special_tokens(special)
        .unk_token(Some(unknown))
        .build()
        .map_err(|error| error.to_string())?;
    Ok((tokeniser, TrainerWrapper::UnigramTrainer(trainer)))
}

fn find(names: &[String], special: Special) -> Option<String> {
    names.iter().find(|name| special.names().contains(&name.as_str())).cloned()
}

/// `[CLS] text [SEP]`, and `[CLS] text [SEP] text [SEP]` for two texts.
fn frame_with_specials(tokeniser: &mut Tokenizer) -> Result<(), String> {
    let (Some(class), Some(separator)) = (tokeniser.token_to_id("[CLS]"), tokeniser.token_to_id("[SEP]"))
    else {
        return Ok(());
    };
    let pair = Template::try_from("[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")?;
    let framing = TemplateProcessing::builder()
        .try_single("[CLS]:0 $A:0 [SEP]:0")?
        .pair(pair)
        .special_tokens(vec![("[CLS]", class), ("[SEP]", separator)])
        .build()
        .map_err(|error| error.to_string())?;
    tokeniser.with_post_processor(Some(framing));
    Ok(())
}
