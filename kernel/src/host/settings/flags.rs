//! What the command line and the environment say.

use std::ffi::OsString;
use std::path::PathBuf;

use syscalls::paths;

use super::super::size::Bytes;

/// The name by which the environment sets the level of the log.
const LOG_VAR: &str = "LLMASOS_LOG";

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Flags {
    /// Reads settings from this file [default: LLMASOS_CONFIG, or ~/.config/llmasos/llmasos.ron where it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listens on this socket [default: LLMASOS_SOCKET, or $XDG_RUNTIME_DIR/llmasos/llmasos.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Keeps its state in this folder [default: LLMASOS_DATA, or ~/.local/state/llmasos]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Takes the system's places: /run/llmasos, /var/lib/llmasos and /etc/llmasos
    #[arg(long)]
    pub system: bool,
    /// Lets models take so much main memory, such as 12GiB [default: four fifths of it]
    #[arg(long, value_name = "SIZE", value_parser = Bytes::parse)]
    pub device_memory: Option<Bytes>,
    /// How much to log: error, warn, info, debug or trace [default: LLMASOS_LOG, or info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
    /// Writes a line to this file descriptor and closes it as soon as the socket is served
    #[arg(long, value_name = "FD")]
    pub ready_fd: Option<i32>,
}

impl Flags {
    /// Fills in from the environment what the command line does not say.
    pub(super) fn or_environment(self, var: impl Fn(&str) -> Option<OsString>) -> Flags {
        let path = |name| var(name).map(PathBuf::from);
        Flags {
            config: self.config.or_else(|| path(paths::CONFIG_VAR)),
            socket: self.socket.or_else(|| path(paths::SOCKET_VAR)),
            data: self.data.or_else(|| path(paths::DATA_VAR)),
            log: self.log.or_else(|| var(LOG_VAR).map(|level| level.to_string_lossy().into_owned())),
            ..self
        }
    }
}
