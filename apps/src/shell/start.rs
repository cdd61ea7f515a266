//! Starts a daemon for a shell that finds none.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use syscalls::client::blocking::Client;
use syscalls::{Errno, Fault, paths};

use super::builtin::failure::Failure;
use super::locate;

/// How long a daemon may take to its first answer. Mounts that it remembers load after it.
const START_MAX: Duration = Duration::from_secs(20);

/// Between two tries to connect.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// How much of the log is shown where the daemon does not start.
const LOG_LINES: usize = 5;

/// A daemon that this shell has started.
pub struct Started {
    os_pid: u32,
}

/// Starts a daemon unless one listens on the socket. Where the socket was not `named` and is the system's, the
/// daemon listens on the user's own instead, and `socket` is then that.
///
/// # Errors
///
/// A daemon is there but refuses this user, or the new one ends or does not answer in time.
pub fn unless_running(socket: &mut PathBuf, named: bool) -> Result<Option<Started>, Failure> {
    match Client::connect(socket, "llmsh") {
        Ok(_) => return Ok(None),
        Err(Fault { errno: Errno::ENOENT | Errno::ECONNRESET, .. }) => {}
        Err(fault) => return Err(fault.into()),
    }
    if !named && socket.as_path() == Path::new(paths::SYSTEM_SOCKET) {
        *socket = paths::user_socket();
    }
    let log = paths::data().join("daemon.log");
    let mut daemon = spawn(socket, &log)
        .map_err(|error| Failure::Message(format!("no daemon can be started: {error}")))?;
    let begin = Instant::now();
    while Client::connect(socket, "llmsh").is_err() {
        if let Ok(Some(status)) = daemon.try_wait() {
            let last = last_lines(&log);
            return Err(Failure::Message(format!(
                "the daemon ended with {status}; the end of {}:\n{last}",
                log.display()
            )));
        }
        if begin.elapsed() > START_MAX {
            return Err(Failure::Message(format!(
                "the daemon has not answered within {START_MAX:?}; see {}",
                log.display()
            )));
        }
        thread::sleep(TRY_EVERY);
    }
    Ok(Some(Started { os_pid: daemon.id() }))
}

/// A daemon in the background, in a process group of its own: the terminal's signals are not for it.
fn spawn(socket: &Path, log: &Path) -> io::Result<Child> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    let log = File::options().create(true).append(true).open(log)?;
    Command::new(locate::sibling("llmasos"))
        .arg("daemon")
        .arg("--socket")
        .arg(socket)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

impl Started {
    /// At the end of the shell: ends the daemon too, or says to a person that it stays.
    pub fn leave(self, socket: &Path, stop: bool) {
        if stop {
            // It may have been ended already, by `shutdown`.
            let _ = Client::connect(socket, "llmsh").and_then(|mut client| client.shutdown());
        } else if io::IsTerminal::is_terminal(&io::stdin()) && Client::connect(socket, "llmsh").is_ok() {
            note!("llmsh: the daemon (process {}) goes on; `llmasos shutdown` ends it", self.os_pid);
        }
    }
}
