//! What stands around texts that an encoder reads: `[CLS] a [SEP]`, or `[CLS] a [SEP] b [SEP]`.

use super::{Special, TokenError, Tokeniser};

/// The tokens around an encoder's texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    class: u32,
    separator: u32,
}

/// Texts with what stands around them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Framed {
    pub tokens: Vec<u32>,
    /// 0 for the first text and 1 for the second, where there are two.
    pub types: Option<Vec<u32>>,
}

impl Frame {
    /// Tokens that one text takes besides its own.
    pub const AROUND_ONE: usize = 2;
    /// Tokens that two texts take besides their own.
    pub const AROUND_TWO: usize = 3;

    /// That of a vocabulary.
    ///
    /// # Errors
    ///
    /// It lacks one of the tokens.
    pub fn of(tokeniser: &Tokeniser) -> Result<Frame, TokenError> {
        Ok(Frame { class: tokeniser.need(Special::Class)?, separator: tokeniser.need(Special::Separator)? })
    }

    /// What stands between two texts.
    pub fn separator(&self) -> u32 {
        self.separator
    }

    /// A text, or two.
    pub fn around(&self, first: &[u32], second: Option<&[u32]>) -> Framed {
        let mut tokens = vec![self.class];
        tokens.extend(first);
        tokens.push(self.separator);
        let mut types = vec![0; tokens.len()];
        if let Some(second) = second {
            tokens.extend(second);
            tokens.push(self.separator);
            types.resize(tokens.len(), 1);
        }
        Framed { tokens, types: second.map(|_| types) }
    }
}
