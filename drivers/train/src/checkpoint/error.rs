//! What can be wrong with a checkpoint.

use std::io;
use std::path::{Path, PathBuf};

/// Why a checkpoint was not written, or is not gone on from.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Writing failed; the former checkpoint is as it was.
    #[error("{}: the checkpoint cannot be written: {error}{}", path.display(), advice(error))]
    Write { path: PathBuf, error: io::Error },

    /// Reading failed.
    #[error("{}: cannot be read: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },

    /// A file is not what the manifest says.
    #[error("{}: {why}; the checkpoint is damaged, go on from another one", path.display())]
    Damaged { path: PathBuf, why: String },

    /// There is none to go on from.
    #[error("{}: there is no whole checkpoint to go on from; start without --resume", path.display())]
    None { path: PathBuf },

    /// The best one was taken away.
    #[error("{}: the best checkpoint is not there any more; take the newest with --last", path.display())]
    Lost { path: PathBuf },

    /// It was made by another run.
    #[error("{}: is a checkpoint of another {what}: its `{name}` is {theirs}, and here it is {ours}", path.display())]
    Other { path: PathBuf, what: &'static str, name: String, theirs: String, ours: String },

    /// Its tensors are not the model's.
    #[error("{}: {why}", path.display())]
    Tensors { path: PathBuf, why: String },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room on the disk, the checkpoint before is kept"
        }
        io::ErrorKind::FileTooLarge => "; raise the limit on files, the checkpoint before is kept",
        _ => "; the checkpoint before is kept",
    }
}

impl CheckpointError {
    /// For `map_err` on what writing answers.
    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError + '_ {
        move |error| CheckpointError::Write { path: path.to_owned(), error }
    }

    /// For `map_err` on what reading answers.
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError + '_ {
        move |error| CheckpointError::Read { path: path.to_owned(), error }
    }

    /// A file that is not what it should be.
    pub(super) fn damaged(path: &Path, why: impl Into<String>) -> CheckpointError {
        CheckpointError::Damaged { path: path.to_owned(), why: why.into() }
    }
}
