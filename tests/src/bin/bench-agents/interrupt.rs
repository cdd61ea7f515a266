//! Ctrl-C and TERM: the servers are killed, so whoever waits for one gets an error, and everything is put away on
//! the way out as after any other error.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static HAPPENED: AtomicBool = AtomicBool::new(false);
static CHILDREN: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// A child that an interruption kills.
#[derive(Debug)]
pub struct Registered(u32);

impl Registered {
    /// Kills it now.
    pub fn kill(&self) {
        kill(self.0);
    }

    /// It has been waited for, so its number may be another's.
    pub fn forget(&self) {
        children().retain(|pid| *pid != self.0);
    }
}

/// Registers a child by its process id.
pub fn register(pid: u32) -> Registered {
    children().push(pid);
    if happened() {
        kill(pid);
    }
    Registered(pid)
}

/// Whether somebody wants the bench to end.
pub fn happened() -> bool {
    HAPPENED.load(Ordering::SeqCst)
}

/// Watches for signals from now on.
pub fn watch() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            HAPPENED.store(true, Ordering::SeqCst);
            children().iter().for_each(|pid| kill(*pid));
        }
    });
    Ok(())
}

fn kill(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // A child that has ended already needs no signal.
        let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn children() -> MutexGuard<'static, Vec<u32>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}
