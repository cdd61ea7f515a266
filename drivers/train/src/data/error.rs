//! What can be wrong with data. Sentences name the file, and the line where there is one.

use std::path::{Path, PathBuf};

use crate::token::TokenError;

/// Why data cannot be trained on.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file that cannot be read.
    #[error("{}: cannot be read: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },

    /// Nothing in it.
    #[error("{}: is empty; give a file with {wanted}", path.display())]
    Empty { path: PathBuf, wanted: &'static str },

    /// Something on one line.
    #[error("{}:{line}: {why}", path.display())]
    Line { path: PathBuf, line: u64, why: String },

    /// Something about the whole file.
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },

    /// Two files that must have the same number of lines.
    #[error(
        "{} has {source_lines} lines and {} has {target_lines}; line by line they must be translations of each other",
        source_file.display(), target_file.display()
    )]
    Unparallel { source_file: PathBuf, source_lines: u64, target_file: PathBuf, target_lines: u64 },

    /// Data that go by a name and are nowhere.
    #[error("{0}")]
    NotFound(String),

    /// Too little text for one example.
    #[error("{what} has {found} tokens; one example takes {needed}: give more text or a smaller context")]
    TooShort { what: String, found: u64, needed: u64 },

    /// The tokeniser's and the model's vocabularies.
    #[error(
        "the vocabulary has {tokeniser} tokens and the model has rows for {model}: \
         give the model `vocabulary: {tokeniser}` or another tokeniser"
    )]
    Vocabulary { tokeniser: u32, model: u32 },

    /// A tokeniser that cannot be made.
    #[error(transparent)]
    Tokeniser(#[from] TokenError),

    /// The data do not go with the model.
    #[error("{0}")]
    Unfit(String),
}

impl DataError {
    /// For `map_err` on what a file answers.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> DataError + '_ {
        move |error| DataError::Io { path: path.to_owned(), error }
    }

    /// Something about a file as a whole.
    pub fn file(path: &Path, why: impl Into<String>) -> DataError {
        DataError::File { path: path.to_owned(), why: why.into() }
    }

    /// Something about a line, counted from 1.
    pub fn line(path: &Path, line: u64, why: impl Into<String>) -> DataError {
        DataError::Line { path: path.to_owned(), line, why: why.into() }
    }
}
