//! What C++ writes to standard error instead of the log, caught while it does.
//!
//! Two things are won: the reason that llama.cpp's grammar parser gives reaches the program that sent the grammar,
//! and the grammar, which it repeats, stays out of the log.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Mutex;

/// How much of what was said is looked at.
const SAID_BYTES_MAX: u64 = 4096;

/// One at a time: two that replace standard error at once would not find the way back.
static CATCHING: Mutex<()> = Mutex::new(());

/// Runs something and answers what was written to standard error meanwhile. Lines that other threads log in this
/// moment are lost with it; where it cannot be caught, nothing is.
pub fn captured<T>(run: impl FnOnce() -> T) -> (T, String) {
    let _one = CATCHING.lock().expect("a thread that panics ends the process");
    let Some((mut file, before)) = redirect() else { return (run(), String::new()) };
    let result = run();
    // SAFETY: both descriptors are open; standard error is as it was before.
    unsafe { libc::dup2(before.as_raw_fd(), libc::STDERR_FILENO) };
    let mut said = Vec::new();
    let _ = file.rewind();
    let _ = file.take(SAID_BYTES_MAX).read_to_end(&mut said);
    (result, String::from_utf8_lossy(&said).into_owned())
}

/// Puts a file in memory in place of standard error, and answers both.
#[cfg(target_os = "linux")]
fn redirect() -> Option<(File, OwnedFd)> {
    let before = std::os::fd::AsFd::as_fd(&std::io::stderr()).try_clone_to_owned().ok()?;
    let file = nix::sys::memfd::memfd_create(c"said", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).ok()?;
    // SAFETY: both descriptors are open.
    let done = unsafe { libc::dup2(file.as_raw_fd(), libc::STDERR_FILENO) };
    (done >= 0).then(|| (File::from(file), before))
}

#[cfg(not(target_os = "linux"))]
fn redirect() -> Option<(File, OwnedFd)> {
    None
}
