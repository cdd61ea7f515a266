//! Why a run does not begin, or ends before its time.

use std::path::PathBuf;

use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::export::ExportError;
use crate::ranks::RankError;
use crate::spec::SpecError;
use crate::token::TokenError;

/// Why a run does not begin, or ends before its time.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The specification.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The vocabulary.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file that is written for others.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A model that was trained before.
    #[error(transparent)]
    Import(#[from] crate::import::ImportError),
    /// The model or the optimiser.
    #[error(transparent)]
    Train(#[from] crate::Error),
    /// Other ranks.
    #[error(transparent)]
    Ranks(#[from] RankError),

    /// One rank failed, and the others with it.
    #[error("rank {rank} of {size} failed: {why}; {kept}")]
    Rank { rank: usize, size: usize, why: String, kept: String },

    /// All ranks failed, and another one says why.
    #[error("another rank says why")]
    Told,

    /// A file of the run.
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },

    /// A plot.
    #[error("{}: cannot be drawn: {why}", path.display())]
    Curve { path: PathBuf, why: String },

    /// The folder has a run already.
    #[error("{}: has a run already; go on with --resume, or name another folder in `out`", path.display())]
    Exists { path: PathBuf },

    /// Another program trains there.
    #[error("{}: {who} trains there now; wait until it is done, or name another folder in `out`", path.display())]
    Busy { path: PathBuf, who: String },

    /// The data are not those that the run began with.
    #[error("{}: {why}; give it those it began with, or set `data.changed: true` to begin anew with these", path.display())]
    OtherData { path: PathBuf, why: String },

    /// Too little memory, before the first step.
    #[error(
        "the run takes {sum}, and {free_mib} MiB are free; make `batch`, the context or the model smaller{advice}"
    )]
    Memory { sum: String, free_mib: u64, advice: &'static str },

    /// Numbers that are none.
    #[error(
        "the {what} is {value} at step {step}; it began in {place}. {kept}; \
         lower `optimiser.lr`, or raise `schedule.warmup`"
    )]
    NotFinite { what: &'static str, value: f64, step: u64, place: String, kept: String },

    /// Something that this model cannot do.
    #[error("{0}")]
    Unfit(String),
}

impl RunError {
    /// For `map_err` on what a file of the run answers.
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> RunError + '_ {
        move |error| RunError::Io { path: path.to_owned(), error }
    }
}
