//! Why a model cannot be gone on with.

use std::path::{Path, PathBuf};

/// Why a model cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file that cannot be read.
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },

    /// Something about a file.
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },

    /// A GGUF that is damaged, in the sentence of its reader.
    #[error("{0}")]
    Fault(String),

    /// The vocabulary.
    #[error(transparent)]
    Token(#[from] crate::token::TokenError),
}

impl ImportError {
    /// For `map_err` on what a file answers.
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ImportError + '_ {
        move |error| ImportError::Io { path: path.to_owned(), error }
    }

    /// Something about a file.
    pub(super) fn file(path: &Path, why: impl ToString) -> ImportError {
        ImportError::File { path: path.to_owned(), why: why.to_string() }
    }
}
