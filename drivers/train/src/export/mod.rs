//! Trained models as files for other programs.
//!
//! | format | what it is | who reads it |
//! | --- | --- | --- |
//! | `hf` | a folder: config.json, model.safetensors, tokenizer.json | Hugging Face's libraries |
//! | `safetensors` | the weights alone | nearly everything |
//! | `gguf` | one file with all of it | llama.cpp, and so `llmasos mount` |
//! | `pt` | a state dictionary | `torch.load(…, weights_only=True)` |
//!
//! Numbers are written as they are, so what is read again is the same bit for bit; GGUF can round matrices to 16 bits.

mod error;
mod gguf;
mod hf;
pub(crate) mod names;
mod pickle;
mod pt;
#[cfg(test)]
pub(crate) mod tests;
mod vocabulary;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use drivers::whole::replace;

use crate::ModelConfig;
use crate::checkpoint::write_tensors;
use crate::token::Tokeniser;

pub use error::ExportError;
pub use gguf::Matrices;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Hf,
    Safetensors,
    Gguf(Matrices),
    Pt,
}

/// A model that is written.
#[derive(Clone, Copy, Debug)]
pub struct Exported<'a> {
    pub config: &'a ModelConfig,
    pub weights: &'a BTreeMap<String, Tensor>,
    pub tokeniser: &'a Tokeniser,
    /// What the model is called in files that have a place for it.
    pub name: &'a str,
}

impl Exported<'_> {
    /// Writes the model to a file, or for `Hf` to a folder.
    ///
    /// # Errors
    ///
    /// [`ExportError`].
    pub fn write(&self, format: Format, to: &Path) -> Result<(), ExportError> {
        match format {
            Format::Hf => hf::write(self, to),
            Format::Safetensors => {
                replace(to, |partial| write_tensors(partial, self.weights)).map_err(ExportError::io(to))
            }
            Format::Gguf(matrices) => gguf::write(self, matrices, to),
            Format::Pt => pt::write(self, to),
        }
    }
}
