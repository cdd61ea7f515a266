//! Starting a worker: whether its model's file is the one that is meant, and the process.
//!
//! What cannot be started for want of files, threads or memory was refused by the machine and by nobody else, and the
//! kernel is told so.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use drivers::wire::{DriverFault, LoadRequest};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use syscalls::Errno;
use tokio::process::{Child, Command};

use super::super::digest::Digests;
use super::super::inspect::on_its_own_thread;
use super::super::starter::Starter;
use super::super::swap::hand_over;
use crate::core::registration::{Digest, changed};

/// Why a worker was not started.
pub(super) enum NotStarted {
    /// Its model's file is another one than the kernel means.
    OtherFile(DriverFault),
    /// The system refuses something.
    System { what: String, source: io::Error },
}

impl NotStarted {
    /// What the system refuses is about something.
    pub(super) fn about(what: &str) -> impl Fn(io::Error) -> NotStarted {
        move |source| NotStarted::System { what: what.into(), source }
    }

    /// What the kernel is told, where that is more than a death.
    pub(super) fn fault(&self) -> Option<DriverFault> {
        match self {
            NotStarted::OtherFile(fault) => Some(fault.clone()),
            NotStarted::System { source, .. } => {
                let errno = match source.raw_os_error()? {
                    libc::EMFILE | libc::ENFILE => Errno::EMFILE,
                    libc::EAGAIN => Errno::EAGAIN,
                    libc::ENOMEM => Errno::ENOMEM,
                    _ => return None,
                };
                Some(DriverFault::new(errno, self.how()))
            }
        }
    }

    pub(super) fn how(&self) -> String {
        match self {
            NotStarted::OtherFile(_) => "its model was refused".into(),
            NotStarted::System { what, source } => format!("could not be started: {what}: {source}"),
        }
    }
}

/// Checks that the model's file is the one that the kernel means. It is read again only where it was written to.
pub(super) async fn check_file(
    load: &LoadRequest,
    wanted: Option<Digest>,
    digests: &Arc<Digests>,
) -> Result<(), NotStarted> {
    let Some(wanted) = wanted else { return Ok(()) };
    let (digests, path) = (Arc::clone(digests), load.path.clone());
    let refused = NotStarted::about(&load.path);
    let found = on_its_own_thread(move || digests.of(&path, |_| {})).await.map_err(&refused)?;
    match found.map_err(&refused)? {
        Some(digest) if digest != wanted => {
            let message = changed(&load.name, &load.path, &wanted, &digest);
            Err(NotStarted::OtherFile(DriverFault::new(Errno::EIO, message)))
        }
        _ => Ok(()),
    }
}

/// Starts the executable with one end of the socket pair as its standard input, and the swap files open.
pub(super) fn spawn(
    starter: &Starter,
    program: &Path,
    load: &LoadRequest,
    socket: OwnedFd,
) -> Result<Child, NotStarted> {
    let mut command = Command::from(starter.worker(program, load).map_err(NotStarted::about(&load.path))?);
    command.stdin(Stdio::from(socket)).stdout(Stdio::null()).process_group(0).kill_on_drop(true);
    let area = load.swap;
    // SAFETY: between fork and exec the closure makes system calls alone and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            area.map_or(Ok(()), hand_over)
        });
    }
    command.spawn().map_err(NotStarted::about(&program.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_files_threads_and_memory_is_told_as_such() {
        let fault = |number| {
            let source = io::Error::from_raw_os_error(number);
            NotStarted::System { what: "worker".into(), source }.fault().map(|fault| fault.errno)
        };
        assert_eq!(fault(libc::EMFILE), Some(Errno::EMFILE));
        assert_eq!(fault(libc::EAGAIN), Some(Errno::EAGAIN));
        assert_eq!(fault(libc::ENOMEM), Some(Errno::ENOMEM));
        assert_eq!(fault(libc::ENOENT), None);
    }
}
