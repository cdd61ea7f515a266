//! A program that waits until its trace has begun.
//!
//! This program is started once more, stops itself, and becomes the other one when it is told to go on: so the number
//! of the operating system's process is known before the program has done anything.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::signal::{self, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid as OsPid;
use signal_hook::consts::SIGINT;
use syscalls::paths;

use super::super::failure::Failure;
use crate::shell::locate;

/// The program, from its start to its end.
pub struct Held {
    child: Child,
    status: Option<ExitStatus>,
}

impl Held {
    /// Starts a program that is held. It will look for the daemon on this socket.
    pub fn start(program: &[OsString], socket: &Path) -> Result<Held, Failure> {
        let child = Command::new(locate::sibling("llmsh"))
            .args(["--builtin", "trace", "--held", "--"])
            .args(program)
            .env(paths::SOCKET_VAR, socket)
            .spawn()
            .map_err(|e| Failure::Message(format!("llmsh cannot be started: {e}")))?;
        let held = Held { child, status: None };
        match waitpid(held.pid(), Some(WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Stopped(..)) => Ok(held),
            other => Err(Failure::Message(format!("the program did not wait for its trace: {other:?}"))),
        }
    }

    /// The number of its process.
    pub fn os_pid(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> OsPid {
        OsPid::from_raw(i32::try_from(self.child.id()).expect("pids are positive"))
    }

    /// Lets it become the program.
    pub fn go_on(&self) -> Result<(), Failure> {
        signal::kill(self.pid(), Signal::SIGCONT)
            .map_err(|e| Failure::Message(format!("the program cannot go on: {e}")))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status.is_some())
    }

    /// Its exit status, as a shell tells it.
    pub fn status(mut self) -> io::Result<u8> {
        let status = match self.status {
            Some(status) => status,
            None => self.child.wait()?,
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Ok(u8::try_from(code).unwrap_or(1))
    }
}

/// Stops, and becomes the program when it is continued. Comes back where there is no such program.
pub fn become_program(program: &[OsString]) -> Failure {
    if let Err(e) = signal::raise(Signal::SIGSTOP) {
        return Failure::Message(format!("this process cannot wait for its trace: {e}"));
    }
    let (name, args) = program.split_first().expect("the option requires it");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let file = locate::program(name, &path).map_or_else(|_| name.into(), |file| file.into_os_string());
    let error = Command::new(file).arg0(name).args(args).exec();
    note!("trace: {}: {error}", name.to_string_lossy());
    Failure::Told(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

/// From now on SIGINT, which the terminal sends to the program too, does not end this one.
pub fn ignore_sigint() -> Result<(), Failure> {
    signal_hook::flag::register(SIGINT, Arc::new(AtomicBool::new(false)))?;
    Ok(())
}
