//! The guard of a program: a process that ends the program's whole group when the program has ended, or the daemon.
//!
//! With a daemon that is killed the system ends the programs that it has started, and nothing that these have started. So
//! before the helper becomes a program it leaves a guard behind, which waits for the ends of both on handles (pidfds) and
//! then kills the group. The guard has the program's user and no privilege, as the helper has by then. It is in a session
//! of its own, so that what the group is told does not reach it, outside of the jail, so that the program does not reach
//! it, and a child of the system's first process, so that a program which waits for its children does not wait for it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg, sigprocmask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, setsid};

use super::descriptors;
use crate::pidfd;

/// Sends a signal to the group that the process of a pidfd leads, whether that process is still there or not (Linux 6.9).
const TO_GROUP: libc::c_uint = 1 << 2;

/// Leaves a guard behind. `daemon` must be found to be this process's parent afterwards: then it was when the guard took
/// hold of it.
///
/// # Errors
///
/// The system has no pidfds (Linux before 5.3), or no room for a process.
pub(super) fn leave(daemon: u32) -> io::Result<()> {
    let daemon = i32::try_from(daemon).map_err(io::Error::other)?;
    let leader = getpid();
    let (own, daemon) = (pidfd::open(leader.as_raw())?, pidfd::open(daemon)?);
    // SAFETY: the helper has one thread, so a child may do all that it may.
    match unsafe { fork() }? {
        // The guard's parent ends at once, which makes it a child of the system's first process.
        // SAFETY: as above.
        ForkResult::Child => match unsafe { fork() } {
            Ok(ForkResult::Child) => stand(leader, &own, &daemon),
            Ok(ForkResult::Parent { .. }) => exit(0),
            Err(e) => exit(e as i32),
        },
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, errno) => Err(io::Error::from_raw_os_error(errno)),
            _ => Err(io::Error::other("its guard was killed")),
        },
    }
}

fn exit(status: i32) -> ! {
    // SAFETY: ends this process without what the helper may have registered for its own end.
    unsafe { libc::_exit(status) }
}

/// What the guard does all its life.
fn stand(leader: Pid, program: &OwnedFd, daemon: &OwnedFd) -> ! {
    // These can fail for no reason that there is here, and it guards all the same.
    let _ = setsid();
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), None);
    let _ = nix::sys::prctl::set_name(c"llmasos-guard");
    // The program's pipes and its connection end with the program.
    let _ = descriptors::close_from(0, &[program.as_raw_fd(), daemon.as_raw_fd()]);
    let mut ends = [program, daemon].map(|process| PollFd::new(process.as_fd(), PollFlags::POLLIN));
    while poll(&mut ends, PollTimeout::NONE) == Err(Errno::EINTR) {}
    kill_group(leader, program);
    exit(0)
}

fn kill_group(leader: Pid, program: &OwnedFd) {
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, and no information goes with the signal.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, program.as_raw_fd(), libc::SIGKILL, nothing, TO_GROUP)
    };
    if sent < 0 && Errno::last() == Errno::EINVAL {
        // Before Linux 6.9 by its number, which belongs to it as long as the daemon has not reaped it, or one of the group
        // is there. It fails where nobody is.
        let _ = killpg(leader, Signal::SIGKILL);
    }
}
