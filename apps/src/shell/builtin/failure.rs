//! Why a builtin failed, and how that is told: one line on standard error, and an exit status.

use std::io;

use syscalls::Fault;

use crate::terminal::output;

/// The exit status of wrong usage.
pub const USAGE: u8 = 2;

/// A failure that is still to be told, or only to be passed on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The daemon, or the connection to it, refused.
    #[error("{}", .0.message)]
    Fault(#[from] Fault),
    /// Standard output cannot be written.
    #[error("standard output cannot be written: {0}")]
    Output(#[from] io::Error),
    /// Anything else that is a failure.
    #[error("{0}")]
    Message(String),
    /// The arguments make no sense together.
    #[error("{0}")]
    Usage(String),
    /// Told already.
    #[error("exit status {0}")]
    Told(u8),
}

impl Failure {
    /// Tells the failure on a stream other than standard error, and gives the exit status.
    pub fn report_to(self, name: &str, stream: &mut dyn io::Write) -> u8 {
        let status = match self {
            Failure::Told(status) => return status,
            Failure::Usage(_) => USAGE,
            Failure::Fault(_) | Failure::Message(_) | Failure::Output(_) => 1,
        };
        // Where this stream fails too, the exit status is all that is left to tell.
        let _ = writeln!(stream, "{name}: {self}");
        status
    }

    /// Tells the failure and gives the exit status.
    pub fn report(self, name: &str) -> u8 {
        match self {
            Failure::Told(status) => status,
            Failure::Output(error) => output::write_failed(name, &error),
            Failure::Usage(message) => {
                note!("{name}: {message}");
                USAGE
            }
            Failure::Fault(_) | Failure::Message(_) => {
                note!("{name}: {self}");
                1
            }
        }
    }
}

/// The failure to read a file, in words.
pub fn unreadable(path: &std::path::Path, error: &io::Error) -> Failure {
    Failure::Message(format!("{} cannot be read: {error}", path.display()))
}
