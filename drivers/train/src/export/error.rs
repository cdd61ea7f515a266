//! Why a model cannot be written in a format.

use std::path::PathBuf;

/// Why a model cannot be written in a format.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file.
    #[error("{}: cannot be written: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },

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
