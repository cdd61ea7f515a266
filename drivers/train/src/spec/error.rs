//! What can be wrong with a specification.

use std::path::PathBuf;

/// Why a specification is refused.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A file that cannot be read.
    #[error("{}: cannot be read: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },

    /// Text that is no specification, with the place.
    #[error("{place}: {why}")]
    Text { place: String, why: String },

    /// A `--set` that names nothing, or sets it to what it cannot be.
    #[error("--set {setting}: {why}")]
    Set { setting: String, why: String },

    /// A value outside of its range.
    #[error("`{field}` is {value}; it must be {range}")]
    Range { field: &'static str, value: String, range: String },

    /// A model that was trained before.
    #[error(transparent)]
    Import(#[from] crate::import::ImportError),

    /// Parts that do not go together.
    #[error("{0}")]
    Unfit(String),
}
