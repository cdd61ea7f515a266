//! Starting a worker: whether its model's file is the one that is meant, and the process.
//!
//! What cannot be started for want of files, threads or memory was refused by the machine and by nobody else, and the
//! kernel is told so.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use drivers::files::{ModelFiles, errno_of};
use drivers::sim::SCHEME;
use drivers::wire::{DriverFault, LoadRequest};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use syscalls::Errno;
use tokio::process::{Child, Command};

use super::super::descriptors::hand_over;
use super::super::digest::Digests;
use super::super::inspect::on_its_own_thread;
use super::super::starter::Starter;
use crate::core::registration::{Digest, changed};

/// Why a worker was not started.
pub(super) enum NotStarted {
    /// Its model's file is another one than the kernel means.
    OtherFile(DriverFault),
    /// Its model's file cannot be opened.
    NoFile(DriverFault),
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
            NotStarted::NoFile(fault) => fault.is_shortage().then(|| fault.clone()),
            NotStarted::System { source, .. } => {
                Some(DriverFault::new(errno_of(source), self.how())).filter(DriverFault::is_shortage)
            }
        }
    }

    pub(super) fn how(&self) -> String {
        match self {
            NotStarted::OtherFile(_) => "its model was refused".into(),
            NotStarted::NoFile(fault) => format!("could not be started: {}", fault.message),
            NotStarted::System { what, source } => format!("could not be started: {what}: {source}"),
        }
    }
}

/// Opens the model's files and checks that they are those that the kernel means; none of a model without files. They are
/// read again only where they were written to. What is given is what was checked, whatever becomes of the names.
pub(super) async fn open_model(
    load: &LoadRequest,
    wanted: Option<Digest>,
    digests: &Arc<Digests>,
) -> Result<Option<ModelFiles>, NotStarted> {
    if load.path.starts_with(SCHEME) {
        return Ok(None);
    }
    let (digests, path) = (Arc::clone(digests), load.path.clone());
    let open = move || -> Result<_, NotStarted> {
        let Some(files) = ModelFiles::open(&path).map_err(NotStarted::NoFile)? else { return Ok(None) };
        let digest = digests.of(&files, |_| {}).map_err(NotStarted::about(&path))?;
        Ok(Some((files, digest)))
    };
    let opened = on_its_own_thread(open).await.map_err(NotStarted::about(&load.path))??;
    let Some((files, found)) = opened else { return Ok(None) };
    let refuse = |message| Err(NotStarted::OtherFile(DriverFault::new(Errno::EIO, message)));
    match wanted {
        Some(wanted) if wanted == found => Ok(Some(files)),
        Some(wanted) => refuse(changed(&load.name, &load.path, &wanted, &found)),
        None => refuse(format!("the file of {} was not read when it was mounted; mount it again", load.name)),
    }
}

/// Starts the executable with one end of the socket pair as its standard input, and what it is to load and the swap files
/// open.
pub(super) fn spawn(
    starter: &Starter,
    program: &Path,
    load: &LoadRequest,
    socket: OwnedFd,
) -> Result<Child, NotStarted> {
    let mut command = Command::from(starter.worker(program, load).map_err(NotStarted::about(&load.path))?);
    command.stdin(Stdio::from(socket)).stdout(Stdio::null()).process_group(0).kill_on_drop(true);
    let inherits: Vec<RawFd> = load.descriptors().collect();
    // SAFETY: between fork and exec the closure makes system calls alone and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            hand_over(&inherits)
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
