//! Ctrl-C for a program that waits for the daemon: once ends the calls that run, twice ends the program.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;
use syscalls::client::blocking::Interrupter;

/// The exit status of a program that SIGINT ended, as a shell reports it.
pub const INTERRUPTED: u8 = 128 + 2;

/// Whether SIGINT has come.
#[derive(Clone, Debug, Default)]
pub struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// It has come at least once.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Forgets that it has come: the next one is the first again.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// From now on the first SIGINT ends the calls of this connection that run, so that what has come can still be
/// shown, and the second one ends the program with [`INTERRUPTED`].
///
/// # Errors
///
/// The system refuses the handler or the thread.
pub fn on_sigint(interrupter: Interrupter) -> io::Result<Interrupted> {
    let mut signals = Signals::new([SIGINT])?;
    let interrupted = Interrupted::default();
    let flag = interrupted.clone();
    thread::Builder::new().name("sigint".into()).spawn(move || {
        for _ in signals.forever() {
            // A connection that is gone has no call to end, and the program is about to notice.
            if flag.0.swap(true, Ordering::Relaxed) || interrupter.interrupt().is_err() {
                process::exit(INTERRUPTED.into());
            }
        }
    })?;
    Ok(interrupted)
}
