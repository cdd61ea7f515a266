//! The terminal of an interactive shell: who is in its foreground, and in which modes it is.
//!
//! The shell catches the signals that a terminal sends to its foreground, and does nothing about them, so that
//! Ctrl-C, Ctrl-Z and the like act on the job alone. It neither blocks nor ignores them, because programs that it
//! starts would inherit that; what is caught has its default action again in a new program.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid as OsPid, getpgrp, setpgid, tcgetpgrp, tcsetpgrp};
use signal_hook::consts::{SIGQUIT, SIGTSTP};

/// The terminal on standard input, of which this shell is in control.
#[derive(Debug)]
pub struct Terminal {
    shell: OsPid,
    modes: Termios,
}

impl Terminal {
    /// Takes control of the terminal on standard input; none if this process has no such terminal.
    pub fn take() -> io::Result<Option<Terminal>> {
        let terminal = io::stdin();
        loop {
            match tcgetpgrp(terminal.as_fd()) {
                Ok(foreground) if foreground == getpgrp() => break,
                // Started in the background: stop until somebody brings this shell to the foreground.
                Ok(_) => killpg(getpgrp(), Signal::SIGTTIN)?,
                Err(Errno::ENOTTY | Errno::ENXIO) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        catch()?;
        match setpgid(OsPid::from_raw(0), OsPid::from_raw(0)) {
            // The leader of a terminal's session leads its own group already.
            Ok(()) | Err(Errno::EPERM) => {}
            Err(error) => return Err(error.into()),
        }
        let shell = getpgrp();
        from_background(|| tcsetpgrp(terminal.as_fd(), shell))?;
        let modes = tcgetattr(terminal.as_fd())?;
        Ok(Some(Terminal { shell, modes }))
    }

    /// Hands the terminal to a job. The job may have been stopped for reading it too early, so it is told to go
    /// on.
    pub fn give(&self, group: OsPid) -> nix::Result<()> {
        from_background(|| tcsetpgrp(io::stdin().as_fd(), group))?;
        killpg(group, Signal::SIGCONT)
    }

    /// Takes the terminal back from a job. A job that ended by itself may have meant to change the modes, as
    /// `stty` does; one that was stopped or killed did not.
    pub fn take_back(&mut self, ended_by_itself: bool) -> nix::Result<()> {
        let terminal = io::stdin();
        from_background(|| tcsetpgrp(terminal.as_fd(), self.shell))?;
        if ended_by_itself {
            self.modes = tcgetattr(terminal.as_fd())?;
            return Ok(());
        }
        tcsetattr(terminal.as_fd(), SetArg::TCSADRAIN, &self.modes)
    }
}

/// Catches what a terminal sends to its foreground; the shell catches SIGINT by itself.
fn catch() -> io::Result<()> {
    for signal in [SIGQUIT, SIGTSTP] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    Ok(())
}

/// Does something to the terminal that the system allows a background process only if it blocks SIGTTOU.
fn from_background<T>(act: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
    let blocked = Blocked::new(&[Signal::SIGTTOU])?;
    let result = act();
    drop(blocked);
    result
}

/// Signals that are kept until this is dropped.
#[derive(Debug)]
pub struct Blocked {
    signals: SigSet,
    before: SigSet,
}

impl Blocked {
    /// Blocks signals. No program may be started meanwhile: it would inherit the block.
    pub fn new(signals: &[Signal]) -> nix::Result<Blocked> {
        let signals: SigSet = signals.iter().copied().collect();
        let before = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Blocked { signals, before })
    }

    /// Waits for one of them.
    pub fn wait(&self) -> nix::Result<Signal> {
        self.signals.wait()
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // The mask was this thread's own a moment ago, so the system takes it back.
        let _ = self.before.thread_set_mask();
    }
}
