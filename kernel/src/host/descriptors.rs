//! Handing descriptors over to a child.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Lets the program that this process is about to become keep descriptors. Only for a child between fork and exec: the
/// daemon's own stay closed to everybody else. They keep their numbers, since under a fixed number there could be
/// something that the child needs until then. Allocates nothing.
///
/// # Errors
///
/// One of them is not open.
pub fn hand_over(fds: &[RawFd]) -> io::Result<()> {
    for fd in fds {
        // SAFETY: whoever starts the child has these files open until it runs; it is borrowed for one system call.
        let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}
