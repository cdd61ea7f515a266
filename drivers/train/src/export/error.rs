//! Why a model cannot be written in a format.

use std::io;
use std::path::{Path, PathBuf};

/// Why a model cannot be written in a format.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file.
    #[error("{}: cannot be written: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },

    /// The format has no such model.
    #[error("GGUF has no {0}; export it as hf, safetensors or pt")]
    NoModel(&'static str),

    /// The format has no such vocabulary.
    #[error("GGUF: {0}")]
    Vocabulary(String),

    /// A tensor that should be there, or should not.
    #[error("GGUF: the model has a tensor `{0}` that the format has no place for")]
    Tensor(String),

    /// The model or the tokeniser.
    #[error(transparent)]
    Train(#[from] crate::Error),

    /// The vocabulary.
    #[error(transparent)]
    Token(#[from] crate::token::TokenError),
}

impl ExportError {
    /// For `map_err` on what a file answers.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> ExportError + '_ {
        move |error| ExportError::Io { path: path.to_owned(), error }
    }
}
