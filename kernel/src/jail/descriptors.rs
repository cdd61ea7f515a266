//! Closing what a process has inherited and is not to have.

use std::io;
use std::os::fd::RawFd;

/// Closes all descriptors from `first` on but those to keep.
///
/// # Errors
///
/// The system cannot close ranges of them (Linux before 5.9).
pub(super) fn close_from(first: u32, keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> =
        keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd >= first).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut from = first;
    for fd in keep {
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = fd + 1;
    }
    close_range(from, u32::MAX)
}

fn close_range(from: u32, to: u32) -> io::Result<()> {
    // SAFETY: nothing in this process uses a descriptor that it has not been told to keep.
    match unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
