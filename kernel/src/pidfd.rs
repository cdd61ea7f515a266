//! Handles on processes, which stay with the one that they were opened for when its number goes to another.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A handle on the process that has this number now.
///
/// # Errors
///
/// There is none, or the system has no such handles (Linux before 5.3).
pub(crate) fn open(os_pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, os_pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the system has opened it for this process alone, close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the process of a handle has not ended.
pub(crate) fn lives(process: BorrowedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::POLLIN)];
    // A handle can be read when its process has ended.
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
}
