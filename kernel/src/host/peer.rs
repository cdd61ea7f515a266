//! Who is at the other end of a connection: what the system says of the program that connected, and nothing that the
//! program says of itself.
//!
//! User and groups are what they were when it connected, and need no process to be looked up. Everything else is found
//! under a number, which the system gives to another process when this one is gone: its name, and whether a program
//! that the daemon started is behind it. So a handle on the process itself (pidfd) is taken from the socket, and what
//! was found under the number counts only if the process is still there afterwards.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::unistd::{Pid, getpgid, getuid};
use tokio::net::UnixStream;

use super::machine;
use crate::pidfd;

/// Groups of one process that the system has at most.
const GROUPS_MAX: usize = 65_536;

/// The program that connected.
#[derive(Debug)]
pub struct Peer {
    pub uid: u32,
    /// Its own group and the others that it is in.
    groups: Vec<u32>,
    os_pid: i32,
    process: OwnedFd,
}

impl Peer {
    /// Asks the system.
    ///
    /// # Errors
    ///
    /// It does not say, or the process is gone: then nobody is there to be answered.
    pub fn of(socket: &UnixStream) -> io::Result<Peer> {
        let credentials = socket.peer_cred()?;
        let os_pid = credentials.pid().ok_or(io::ErrorKind::NotFound)?;
        let mut groups = groups(socket)?;
        groups.push(credentials.gid());
        let process = match process(socket) {
            // Before Linux 6.5 there is a moment in which the number could have come to another process.
            Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => pidfd::open(os_pid)?,
            other => other?,
        };
        Ok(Peer { uid: credentials.uid(), groups, os_pid, process })
    }

    /// Whether the process has not ended.
    pub fn lives(&self) -> bool {
        pidfd::lives(self.process.as_fd())
    }

    /// What was found under its number, if the process is there after it was found.
    fn found<T>(&self, look: impl FnOnce(i32) -> T) -> Option<T> {
        let seen = look(self.os_pid);
        self.lives().then_some(seen)
    }

    /// Its number, 0 where it has ended.
    pub fn os_pid(&self) -> u32 {
        self.found(|pid| u32::try_from(pid).unwrap_or_default()).unwrap_or_default()
    }

    /// The name of its executable, or nothing.
    pub fn executable(&self) -> String {
        self.found(|pid| machine::executable_of(pid.unsigned_abs())).unwrap_or_default()
    }

    /// The number of its parent, none where it has ended.
    pub fn parent(&self) -> Option<u32> {
        self.found(|pid| machine::parent_of(pid.unsigned_abs()))?
    }

    /// The leader of its process group, none where it has ended. What a program in the jail starts stays in its group.
    pub fn group_leader(&self) -> Option<u32> {
        let leader = self.found(|pid| getpgid(Some(Pid::from_raw(pid))).ok())??;
        u32::try_from(leader.as_raw()).ok()
    }

    /// The handle on its process, which becomes readable when that has ended.
    pub fn into_process(self) -> OwnedFd {
        self.process
    }

    /// Whether it may do everything: as root, as the user that the daemon runs as, or as a member of the admin group.
    pub fn is_admin(&self, group: Option<u32>) -> bool {
        let member = group.is_some_and(|group| self.groups.contains(&group));
        self.uid == 0 || self.uid == getuid().as_raw() || member
    }
}

/// The groups that a peer is in beside its own.
fn groups(socket: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups: Vec<u32> = vec![0; 32];
    loop {
        let room = groups.len() * size_of::<u32>();
        let mut bytes = libc::socklen_t::try_from(room).expect("some thousand numbers");
        // SAFETY: the buffer has as many bytes as are said, and numbers of groups are plain integers.
        let got = unsafe { option(socket, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), &mut bytes) };
        match got {
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) && groups.len() < GROUPS_MAX => {
                groups.resize(groups.len() * 2, 0);
            }
            Err(e) => return Err(e),
            Ok(()) => {
                groups.truncate(bytes as usize / size_of::<u32>());
                return Ok(groups);
            }
        }
    }
}

/// A handle on the process that connected.
fn process(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut bytes = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the buffer is one number of a descriptor, as long as is said.
    unsafe { option(socket, libc::SO_PEERPIDFD, (&raw mut fd).cast(), &mut bytes)? };
    // SAFETY: the system has opened it for this process alone, close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads an option of a socket.
///
/// # Safety
///
/// `value` has room for `bytes`, and any bytes that the system writes there are a value.
unsafe fn option(
    socket: &UnixStream,
    name: libc::c_int,
    value: *mut libc::c_void,
    bytes: &mut libc::socklen_t,
) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the caller vouches for the buffer.
    match unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, value, bytes) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A listening socket, and a program that has connected to it and inherits the connection.
    struct Connected {
        _folder: tempfile::TempDir,
        program: Child,
        near: UnixStream,
    }

    /// The shell connects with bash's own means where it can; here it is a child that connects before it becomes `cat`.
    fn connected() -> Connected {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).expect("binds");
        let address = nix::sys::socket::UnixAddr::new(&path).expect("short");
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        // SAFETY: between fork and exec the closure makes system calls alone.
        unsafe {
            command.pre_exec(move || {
                use nix::sys::socket::{AddressFamily, SockFlag, SockType, connect, socket};
                let far = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None)?;
                connect(far.as_raw_fd(), &address)?;
                // It stays open in the program.
                std::mem::forget(far);
                Ok(())
            });
        }
        let program = command.spawn().expect("cat is part of every Linux");
        let (near, _) = listener.accept().expect("it has connected");
        near.set_nonblocking(true).expect("sets");
        Connected { _folder: folder, program, near: UnixStream::from_std(near).expect("a runtime is there") }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn peer_is_the_program_that_connected() {
        let Connected { mut program, near, _folder } = connected();
        let peer = Peer::of(&near).expect("the system says");
        assert_eq!((peer.uid, peer.os_pid()), (getuid().as_raw(), program.id()));
        assert_eq!(peer.executable(), "cat");
        assert_eq!(peer.group_leader(), Some(program.id()));
        assert!(peer.lives() && peer.is_admin(None), "it runs as the user of the daemon");
        drop(program.stdin.take());
        program.wait().expect("it ends");
        assert!(!peer.lives());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn number_of_a_program_that_has_ended_says_nothing() {
        let Connected { mut program, near, _folder } = connected();
        let peer = Peer::of(&near).expect("the system says");
        program.stdin.take().expect("piped").write_all(b"x").expect("it reads");
        // Nobody has waited for it yet, so the number is still its own, with its name in /proc: only the handle knows.
        while peer.lives() {
            std::thread::yield_now();
        }
        assert_eq!(machine::executable_of(program.id()), "cat");
        assert_eq!((peer.executable(), peer.os_pid(), peer.group_leader()), (String::new(), 0, None));
        program.wait().expect("it has ended");
        let later = Peer::of(&near);
        assert!(!later.is_ok_and(|peer| peer.lives()), "nobody is there to be answered");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn member_of_the_admin_group_is_one_and_others_are_not() {
        let Connected { mut program, near, _folder } = connected();
        let peer = Peer { uid: 4_000_000, ..Peer::of(&near).expect("the system says") };
        let own = nix::unistd::getgid().as_raw();
        assert!(peer.is_admin(Some(own)));
        assert!(!peer.is_admin(None) && !peer.is_admin(Some(own + 4_000_000)));
        program.kill().expect("it runs");
        program.wait().expect("it ends");
    }
}
