//! The connection that the daemon hands to a program that it has started: it is known for that program's process.

use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::paths;

/// One client of this program has taken it.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The connection that was inherited from the daemon on `path`, once.
pub(super) fn take(path: &Path) -> Option<UnixStream> {
    let fd: RawFd = std::env::var(paths::SOCKET_FD_VAR).ok()?.parse().ok().filter(|fd| *fd > 2)?;
    if Path::new(&std::env::var_os(paths::SOCKET_VAR)?) != path || TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: the daemon has left the descriptor open for this program, which does not close it; where it is not open,
    // the copy fails.
    let stream = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().ok().map(UnixStream::from)?;
    // Something else than a socket has another owner.
    stream.peer_addr().is_ok().then_some(stream)
}
