//! The terminal of an interactive shell: who is in its foreground, and in which modes it is.
//!
//! The shell blocks the signals that a terminal sends to its foreground, so that Ctrl-C, Ctrl-Z and the like
//! reach the job alone. Programs start with none blocked: the standard library clears the mask for a child.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid as OsPid, getpgrp, getpid, setpgid, tcgetpgrp, tcsetpgrp};

/// The terminal on standard input, of which this shell is in control.
#[derive(Debug)]
pub struct Terminal {
    shell: OsPid,
    modes: Termios,
}

impl Terminal {
    /// Takes control of the terminal on standard input; none if this process has no such terminal.
    pub fn take() -> nix::Result<Option<Terminal>> {
        let terminal = io::stdin();
        loop {
            match tcgetpgrp(terminal.as_fd()) {
                Ok(foreground) if foreground == getpgrp() => break,
                // Started in the background: stop until somebody brings this shell to the foreground.
                Ok(_) => killpg(getpgrp(), Signal::SIGTTIN)?,
                Err(Errno::ENOTTY | Errno::ENXIO) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        block()?;
        match setpgid(OsPid::from_raw(0), OsPid::from_raw(0)) {
            // The leader of a terminal's session leads its own group already.
            Ok(()) | Err(Errno::EPERM) => {}
            Err(error) => return Err(error),
        }
        let shell = if getpgrp() == getpid() { getpid() } else { getpgrp() };
        tcsetpgrp(terminal.as_fd(), shell)?;
        let modes = tcgetattr(terminal.as_fd())?;
        Ok(Some(Terminal { shell, modes }))
    }

    /// Hands the terminal to a job. The job may have been stopped for reading it too early, so it is told to go
    /// on.
    pub fn give(&self, group: OsPid) -> nix::Result<()> {
        tcsetpgrp(io::stdin().as_fd(), group)?;
        killpg(group, Signal::SIGCONT)
    }

    /// Takes the terminal back from a job. A job that ended by itself may have meant to change the modes, as
    /// `stty` does; one that was stopped or killed did not.
    pub fn take_back(&mut self, ended_by_itself: bool) -> nix::Result<()> {
        let terminal = io::stdin();
        tcsetpgrp(terminal.as_fd(), self.shell)?;
        if ended_by_itself {
            self.modes = tcgetattr(terminal.as_fd())?;
            return Ok(());
        }
        tcsetattr(terminal.as_fd(), SetArg::TCSADRAIN, &self.modes)
    }
}

/// Blocks what a terminal sends to its foreground, and what it sends to those who use it from the background.
fn block() -> nix::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU] {
        signals.add(signal);
    }
    signals.thread_block()
}

/// Waits until something has happened to a child (`true`) or Ctrl-C was pressed (`false`), for a shell that
/// waits while no job has the terminal. SIGCHLD must be blocked before the children are looked at, or one that
/// ends between the look and the wait is missed: [`block_child`].
pub fn child_or_interrupt() -> nix::Result<bool> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGINT);
    Ok(signals.wait()? == Signal::SIGCHLD)
}

/// Keeps SIGCHLD until [`child_or_interrupt`] takes it.
pub fn block_child() -> nix::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block()
}
