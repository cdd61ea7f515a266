//! Models that were trained before, to go on with: a folder in the Hugging Face layout, or a GGUF whose weights are not
//! quantised.
//!
//! What GGUF does not say of a model is taken as its programs take it: nothing is dropped, and an encoder has no head.

mod config;
pub(crate) mod cuts;
mod error;
mod folder;
#[cfg(test)]
mod tests;
mod vocabulary;
mod weights;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use drivers::gguf::{self, Header};

pub use error::ImportError;

use crate::ModelConfig;
use crate::token::Tokeniser;

/// A model that was trained before, where it lies.
#[derive(Debug)]
pub enum Pretrained {
    /// `config.json`, `tokenizer.json` and weights as safetensors.
    Folder(PathBuf),
    /// One file, with its header.
    Gguf { path: PathBuf, header: Box<Header> },
}

impl Pretrained {
    /// Looks at what lies at a path.
    ///
    /// # Errors
    ///
    /// A file that is no GGUF, or a damaged one.
    pub fn open(path: &Path) -> Result<Pretrained, ImportError> {
        if !path.is_file() {
            return Ok(Pretrained::Folder(path.to_owned()));
        }
        let header = gguf::open(path).map_err(|fault| ImportError::Fault(fault.message))?;
        Ok(Pretrained::Gguf { path: path.to_owned(), header: Box::new(header) })
    }

    /// Its configuration.
    ///
    /// # Errors
    ///
    /// It describes no model that is trained here.
    pub fn config(&self) -> Result<ModelConfig, ImportError> {
        match self {
            Pretrained::Folder(folder) => folder::config(folder),
            Pretrained::Gguf { path, header } => config::config(path, header),
        }
    }

    /// Its vocabulary.
    ///
    /// # Errors
    ///
    /// There is none, or one that is cut in a way that only llama.cpp knows.
    pub fn tokeniser(&self) -> Result<Tokeniser, ImportError> {
        match self {
            Pretrained::Folder(folder) => Ok(Tokeniser::load(folder)?),
            Pretrained::Gguf { path, header } => {
                vocabulary::tokeniser(header).map_err(|why| ImportError::file(path, why))
            }
        }
    }

    /// Its weights, under the names of Hugging Face's files.
    ///
    /// # Errors
    ///
    /// They are quantised, or some are not the model's.
    pub fn weights(&self) -> Result<BTreeMap<String, Tensor>, ImportError> {
        match self {
            Pretrained::Folder(folder) => folder::weights(folder),
            Pretrained::Gguf { path, header } => weights::weights(path, header, &self.config()?),
        }
    }

    /// What it is called.
    pub fn name(&self) -> String {
        let (path, named) = match self {
            Pretrained::Folder(folder) => (folder, None),
            Pretrained::Gguf { path, header } => (path, header.text("general.name")),
        };
        let file = || path.file_stem().map(|name| name.to_string_lossy().into_owned());
        named.map(str::to_owned).or_else(file).unwrap_or_else(|| "model".into())
    }
}
