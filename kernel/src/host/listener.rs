//! The socket that programs connect to.
//!
//! One daemon holds a lock on a file beside the socket for as long as it lives, so a second one is refused and a
//! socket file that a dead one left behind is told from one that is in use. The lock file itself stays: to remove
//! it would let two daemons lock two files of the same name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::getuid;
use thiserror::Error;

/// Why the socket cannot be served.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another daemon serves it.
    #[error(
        "another daemon{} listens on {path}; stop it with `llmasos shutdown`, or choose another socket with --socket",
        .pid.map(|p| format!(" (process {p})")).unwrap_or_default()
    )]
    InUse { path: PathBuf, pid: Option<u32> },
    /// Something else has the name.
    #[error("{path} exists and is not a socket; choose another path with --socket")]
    NotASocket { path: PathBuf },
    /// Somebody else could put a socket of his own there.
    #[error(
        "the folder {path} belongs to user {owner}, not to this one; choose another socket with --socket"
    )]
    ForeignFolder { path: PathBuf, owner: u32 },
    /// The system refuses.
    #[error("cannot listen on {path}: {source}; choose another socket with --socket")]
    System { path: PathBuf, source: io::Error },
}

/// A socket that is served. Dropping it removes the socket file and frees the lock.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    /// The file's identity, so that a successor's file is not removed in error.
    inode: u64,
    _lock: Flock<File>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            // It may be gone with its folder; there is nobody to tell.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds the socket at `path`, with the given permission bits.
///
/// # Errors
///
/// Another daemon is there, or the path cannot be used.
pub fn bind(path: &Path, mode: u32) -> Result<(Socket, UnixListener), ListenError> {
    let system = |source: io::Error| ListenError::System { path: path.into(), source };
    own_folder(path, mode)?;
    let lock = lock(path)?;
    remove_stale(path)?;
    let before = umask(Mode::from_bits_truncate(0o077));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound.map_err(system)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(system)?;
    listener.set_nonblocking(true).map_err(system)?;
    let inode = fs::symlink_metadata(path).map_err(system)?.ino();
    Ok((Socket { path: path.into(), inode, _lock: lock }, listener))
}

/// Makes the socket's folder if it is missing, for others to pass where the socket's mode lets them in. A folder
/// that others own is refused: they could replace the socket.
fn own_folder(path: &Path, mode: u32) -> Result<(), ListenError> {
    let folder_mode = if mode & 0o077 == 0 { 0o700 } else { 0o755 };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let system = |source| ListenError::System { path: path.into(), source };
    let is_new = !folder.exists();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(system)?;
    if is_new {
        fs::set_permissions(folder, fs::Permissions::from_mode(folder_mode)).map_err(system)?;
    }
    let owner = fs::metadata(folder).map_err(system)?.uid();
    if owner != getuid().as_raw() && owner != 0 {
        return Err(ListenError::ForeignFolder { path: folder.into(), owner });
    }
    Ok(())
}

fn lock(path: &Path) -> Result<Flock<File>, ListenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    lock_file(Path::new(&name)).map_err(|e| match e {
        LockError::Held(pid) => ListenError::InUse { path: path.into(), pid },
        LockError::System(source) => ListenError::System { path: path.into(), source },
    })
}

/// Why a file cannot be locked.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it, the one that wrote its number into it.
    Held(Option<u32>),
    /// The system refuses.
    System(io::Error),
}

/// Locks a file for this process, and writes the process's number into it. The lock is what counts: on a disk that
/// cannot be written, the file of an earlier daemon is locked as it is. A link is not followed: what it leads to would be
/// overwritten.
///
/// # Errors
///
/// Another process has it, or it cannot be made.
pub fn lock_file(path: &Path) -> Result<Flock<File>, LockError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let opened = match options.open(path) {
        Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path).map_err(|_| e)
        }
        other => other,
    };
    let mut file = opened.map_err(LockError::System)?;
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => LockError::Held(holder.trim().parse().ok()),
        other => LockError::System(other.into()),
    })?;
    let noted = lock.set_len(0).and_then(|()| io::Seek::rewind(&mut *lock));
    if let Err(e) = noted.and_then(|()| writeln!(lock, "{}", std::process::id())) {
        // A second daemon is refused all the same, and not told by whom.
        tracing::warn!("{} does not say who holds it: {e}", path.display());
    }
    Ok(lock)
}

/// Removes what a dead daemon left. Under the lock, so no daemon of ours is there; but another program could be.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let system = |source| ListenError::System { path: path.into(), source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(system(e)),
        Ok(found) if !found.file_type().is_socket() => Err(ListenError::NotASocket { path: path.into() }),
        Ok(_) if UnixStream::connect(path).is_ok() => {
            Err(ListenError::InUse { path: path.into(), pid: None })
        }
        Ok(_) => {
            tracing::info!("removing the socket that a daemon left at {}", path.display());
            fs::remove_file(path).map_err(system)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/llmasos.sock");
        (folder, path)
    }

    #[test]
    fn socket_is_for_its_owner_alone_and_goes_away() {
        let (_folder, path) = folder();
        let (socket, _listener) = bind(&path, 0o600).expect("binds");
        let mode = |path: &Path| fs::metadata(path).expect("exists").mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("a parent"))), (0o600, 0o700));
        UnixStream::connect(&path).expect("somebody listens");
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn socket_for_a_group_lies_where_the_group_gets_in() {
        let (_folder, path) = folder();
        let _bound = bind(&path, 0o660).expect("binds");
        let mode = |path: &Path| fs::metadata(path).expect("exists").mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("a parent"))), (0o660, 0o755));
    }

    #[test]
    fn socket_stale_is_replaced() {
        let (_folder, path) = folder();
        fs::create_dir(path.parent().expect("a parent")).expect("the folder is new");
        drop(UnixListener::bind(&path).expect("the folder is new"));
        // What another test starts has it, too, until it has become its own program.
        let deadline = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(&path).is_ok() {
            assert!(Instant::now() < deadline, "nobody listens");
            std::thread::sleep(Duration::from_millis(1));
        }
        let (_socket, _listener) = bind(&path, 0o600).expect("replaces it");
        UnixStream::connect(&path).expect("somebody listens");
    }

    #[test]
    fn daemon_second_is_refused_and_told_of_the_first() {
        let (_folder, path) = folder();
        let _first = bind(&path, 0o600).expect("binds");
        let refused = bind(&path, 0o600).expect_err("in use").to_string();
        assert!(
            refused.contains(&std::process::id().to_string()) && refused.contains("--socket"),
            "{refused}"
        );
        UnixStream::connect(&path).expect("the first one still listens");
    }

    #[test]
    fn socket_of_another_program_is_not_touched() {
        let (_folder, path) = folder();
        fs::create_dir(path.parent().expect("a parent")).expect("the folder is new");
        let _foreign = UnixListener::bind(&path).expect("the folder is new");
        assert!(matches!(bind(&path, 0o600), Err(ListenError::InUse { pid: None, .. })));
        UnixStream::connect(&path).expect("it still listens");
    }

    #[test]
    fn link_in_the_place_of_a_lock_is_refused_and_what_it_leads_to_is_whole() {
        let (_folder, path) = folder();
        let folder = path.parent().expect("a parent");
        fs::create_dir(folder).expect("the folder is new");
        let precious = folder.join("precious");
        fs::write(&precious, "precious").expect("writes");
        std::os::unix::fs::symlink(&precious, folder.join("lock")).expect("the name is free");
        assert!(matches!(lock_file(&folder.join("lock")), Err(LockError::System(_))));
        assert_eq!(fs::read_to_string(&precious).expect("reads"), "precious");
    }

    #[test]
    fn file_that_is_no_socket_is_not_touched() {
        let (_folder, path) = folder();
        fs::create_dir(path.parent().expect("a parent")).expect("the folder is new");
        fs::write(&path, "precious").expect("writes");
        assert!(matches!(bind(&path, 0o600), Err(ListenError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).expect("reads"), "precious");
    }
}
