//! The first process of a program, which leads the group of all that the program starts.
//!
//! Its end is seen on a pidfd, and it is reaped only when its group has been killed. Until then its number is its own, so
//! that no signal can reach a stranger to whom the system has given the number again. Afterwards none is sent.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::time::timeout;

use crate::pidfd;

/// How long a process that has ended may take to be reaped.
const REAP_PATIENCE: Duration = Duration::from_secs(5);

/// The status of a process of which nothing is known.
const STATUS_UNKNOWN: u8 = u8::MAX;

/// The first process of a program.
#[derive(Debug)]
pub struct Leader {
    os_pid: i32,
    pidfd: AsyncFd<OwnedFd>,
    /// Its number may be somebody else's.
    reaped: Mutex<bool>,
}

impl Leader {
    /// The process that was just started, as the leader of a group.
    ///
    /// # Errors
    ///
    /// The system has no pidfds (Linux before 5.3), or no descriptor left.
    pub fn of(child: &Child) -> io::Result<Leader> {
        let gone = || io::Error::other("it has ended");
        let os_pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or_else(gone)?;
        // SAFETY: the descriptor is open, and nobody closes or replaces it before the watch on it is dropped.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd::open(os_pid)?, Interest::READABLE)? };
        Ok(Leader { os_pid, pidfd, reaped: Mutex::new(false) })
    }

    /// Its number.
    pub fn os_pid(&self) -> u32 {
        self.os_pid.unsigned_abs()
    }

    /// Waits until it has ended, and leaves it to be reaped.
    pub async fn ended(&self) {
        // An error is one of the event queue, without which the daemon does nothing at all.
        let _ = self.pidfd.readable().await;
    }

    /// Sends a signal to its group, as long as that is its own.
    pub fn signal_group(&self, signal: Signal) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            // It fails where the whole group has ended.
            let _ = killpg(Pid::from_raw(self.os_pid), signal);
        }
    }

    /// Reaps it, and gives its status as shells tell it.
    pub async fn reap(&self, mut child: Child) -> u8 {
        *self.reaped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        match timeout(REAP_PATIENCE, child.wait()).await {
            Ok(Ok(status)) => status_of(status),
            Ok(Err(_)) | Err(_) => STATUS_UNKNOWN,
        }
    }
}

fn status_of(status: ExitStatus) -> u8 {
    let number = status.code().or_else(|| Some(128 + status.signal()?));
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(STATUS_UNKNOWN)
}
