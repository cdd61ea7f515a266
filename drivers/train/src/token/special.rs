//! Special tokens: which there are, under the names that the field uses for them.

use super::error::TokenError;

/// What a special token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Ends a text.
    End,
    /// Fills up short rows.
    Pad,
    /// Stands for what the vocabulary lacks.
    Unknown,
    /// Begins an encoder's text.
    Class,
    /// Stands between two texts.
    Separator,
    /// Hides a token that is to be guessed.
    Mask,
}

impl Special {
    /// Its names, the most usual first: those of GPT-2, Llama and T5, and BERT.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Special::End => &["<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[SEP]"],
            Special::Pad => &["<pad>", "[PAD]", "<|pad|>"],
            Special::Unknown => &["<unk>", "[UNK]"],
            Special::Class => &["[CLS]", "<s>"],
            Special::Separator => &["[SEP]", "</s>"],
            Special::Mask => &["[MASK]", "<mask>"],
        }
    }

    /// What cannot be done without it.
    fn purpose(self) -> &'static str {
        match self {
            Special::End => "marking where a text ends",
            Special::Pad => "making rows of a batch equally long",
            Special::Unknown => "a vocabulary of this kind",
            Special::Class => "a text that is classified",
            Special::Separator => "telling two texts apart",
            Special::Mask => "training to guess hidden tokens",
        }
    }

    /// The refusal where a vocabulary does not have it.
    pub(super) fn missing(self) -> TokenError {
        TokenError::NoSpecial { names: self.names().join(", "), purpose: self.purpose() }
    }
}

/// The special tokens of a family of models, in the order of their ids.
pub fn usual(family: Family) -> &'static [&'static str] {
    match family {
        Family::Decoder => &["<|endoftext|>"],
        Family::Encoder => &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        Family::EncoderDecoder => &["<pad>", "</s>", "<unk>"],
    }
}

/// What a vocabulary is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Continues text.
    Decoder,
    /// Reads text.
    Encoder,
    /// Reads one text and writes another.
    EncoderDecoder,
}
