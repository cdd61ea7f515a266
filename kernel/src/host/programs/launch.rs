//! The start of a program: which file it is, whom it runs as, and what it is handed.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, Uid, access, getgrouplist, getuid};
use syscalls::{Errno, Fault, paths};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::super::starter::{Start, Starter, inherited};
use super::lookup::Found;
use crate::core::effect::Program;
use crate::jail::User;

/// The program's descriptor of its connection.
const CONNECTION_FD: RawFd = 3;

/// Where programs are looked for that are named without a folder.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Variables of the daemon that programs see.
const VARIABLES: &[&str] = &["LANG", "LC_ALL", "TZ"];

/// Looks a program up, which may take any time.
pub(super) fn look_up(program: &Program) -> Result<Found, Fault> {
    let user = user(program.uid, &program.argv[0])?;
    let path = find(&program.argv[0])?;
    // Made by whoever has it, since the daemon may be another user.
    match program.reach.write.as_ref().map(Path::new) {
        Some(folder) if !folder.is_dir() => {
            let message = format!("there is no folder {}; make it first", folder.display());
            Err(Fault::new(Errno::ENOENT, message))
        }
        _ => Ok(Found { path, user }),
    }
}

/// Starts a program that was found with its end of a connection. Gives the other end. The system ends the program with the
/// thread that has started it, so this is for the main thread.
pub(super) fn launch(
    starter: &Starter,
    socket: &Path,
    program: &Program,
    found: Found,
) -> Result<(Child, UnixStream), Fault> {
    let Found { path, user } = found;
    let fault = |e: io::Error| Fault::new(Errno::EIO, format!("cannot start {}: {e}", path.display()));
    let (near, far) = std::os::unix::net::UnixStream::pair().map_err(fault)?;
    near.set_nonblocking(true).map_err(fault)?;
    let mut policy = starter.program_policy();
    policy.execute.push(path.clone());
    policy.read.extend(program.reach.read.iter().map(PathBuf::from));
    policy.write.extend(program.reach.write.as_ref().map(PathBuf::from));
    if program.reach.computes {
        policy = policy.computing();
    }
    // The programs of the project, which others call.
    let own = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
    policy.execute.extend(own.clone());
    let mut environment = inherited(VARIABLES);
    let own = own.map(|folder| format!("{}:", folder.display())).unwrap_or_default();
    environment.push(("PATH".into(), format!("{own}{PATH}")));
    environment.extend(program.environment.iter().cloned());
    environment.push((paths::SOCKET_VAR.into(), socket.to_string_lossy().into_owned()));
    environment.push((paths::SOCKET_FD_VAR.into(), CONNECTION_FD.to_string()));
    let arguments: Vec<OsString> = program.argv[1..].iter().map(Into::into).collect();
    let start = Start {
        program: &path,
        arguments,
        environment,
        folder: Path::new("/"),
        policy,
        user,
        guarded: true,
        keep: vec![CONNECTION_FD],
        reopen: vec![],
    };
    let command = starter.command(&start).map_err(fault)?;
    let child = spawn(command, far.into()).map_err(fault)?;
    Ok((child, UnixStream::from_std(near).map_err(fault)?))
}

fn spawn(command: std::process::Command, far: OwnedFd) -> io::Result<Child> {
    let mut command = Command::from(command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let fd = far.as_raw_fd();
    // SAFETY: between fork and exec the closure makes system calls alone and allocates nothing; the descriptor is open
    // until the command was spawned.
    unsafe {
        command.pre_exec(move || {
            // The helper does it, too, and knows whether it came too late.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            let moved = if fd == CONNECTION_FD {
                libc::fcntl(fd, libc::F_SETFD, 0)
            } else {
                libc::dup2(fd, CONNECTION_FD)
            };
            if moved < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        });
    }
    command.spawn()
}

/// Whom a program runs as: its caller, and nobody else.
fn user(uid: u32, program: &str) -> Result<Option<User>, Fault> {
    if uid == getuid().as_raw() {
        return Ok(None);
    }
    if !getuid().is_root() {
        let message = format!(
            "the daemon runs as user {}, and can start {program} for no other, as for user {uid}; start it yourself, and \
             it connects to the daemon by its socket, or run a daemon of your own (`llmasos daemon`)",
            getuid()
        );
        return Err(Fault::new(Errno::EPERM, message));
    }
    let unknown = || Fault::new(Errno::EPERM, format!("the system does not know user {uid}"));
    let user = nix::unistd::User::from_uid(Uid::from_raw(uid)).ok().flatten().ok_or_else(unknown)?;
    let name = CString::new(user.name).map_err(|_| unknown())?;
    let groups = getgrouplist(&name, user.gid).map_err(|_| unknown())?;
    Ok(Some(User { uid, gid: user.gid.as_raw(), groups: groups.into_iter().map(|g| g.as_raw()).collect() }))
}

/// A program's file: as it is named, or beside the daemon, or in one of the system's folders.
fn find(name: &str) -> Result<PathBuf, Fault> {
    let named = Path::new(name);
    if named.is_absolute() {
        return match access(named, AccessFlags::X_OK) {
            Ok(()) if named.is_file() => Ok(named.into()),
            Ok(()) => Err(Fault::new(Errno::EACCES, format!("{name} is no file that can be run"))),
            Err(nix::errno::Errno::ENOENT) => Err(Fault::new(Errno::ENOENT, format!("there is no {name}"))),
            Err(e) => Err(Fault::new(Errno::EACCES, format!("{name} cannot be run: {e}"))),
        };
    }
    if name.contains('/') {
        let message = format!("the daemon has no folder of its own, so name the program {name} from / on");
        return Err(Fault::new(Errno::EINVAL, message));
    }
    let own = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
    let folders = own.into_iter().chain(PATH.split(':').map(PathBuf::from));
    let mut files = folders.map(|folder| folder.join(name));
    files.find(|file| file.is_file() && access(file.as_path(), AccessFlags::X_OK).is_ok()).ok_or_else(|| {
        Fault::new(Errno::ENOENT, format!("there is no program {name} in {PATH}; name it from / on"))
    })
}
