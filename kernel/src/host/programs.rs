//! Programs that are processes: their start in the jail, their connection, their end.
//!
//! A task of its own stands by each from its start to `ProgramEnded`, which it always sends, and sends last, or to
//! `ProgramRefused`. The program inherits its end of a connection, as the descriptor that `LLMASOS_SOCKET_FD` names,
//! so it is known for that process whatever it says. It leads a process group that nothing in the jail can leave; the
//! whole group ends with it.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{AccessFlags, Uid, access, getgrouplist, getuid};
use syscalls::limits::CONNECTIONS_MAX;
use syscalls::{Errno, Fault, Pid, paths};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::input::Input;
use super::starter::{Start, Starter, inherited};
use crate::core::effect::Program;
use crate::core::event::Event;
use crate::jail::User;

/// The program's descriptor of its connection.
const CONNECTION_FD: RawFd = 3;

/// Where programs are looked for that are named without a folder.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Variables of the daemon that programs see.
const VARIABLES: &[&str] = &["LANG", "LC_ALL", "TZ"];

/// How long the group of a program that has ended may take.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// All programs that have not ended.
#[derive(Debug)]
pub struct Programs {
    starter: Arc<Starter>,
    socket: PathBuf,
    places: Arc<Semaphore>,
    inputs: mpsc::Sender<Input>,
    alive: BTreeMap<Pid, oneshot::Sender<Duration>>,
}

impl Programs {
    /// No programs yet. They connect on `socket` again where they need more than one connection, have their places among
    /// the connections, and are reported to `inputs`.
    pub fn new(
        starter: Arc<Starter>,
        socket: PathBuf,
        places: Arc<Semaphore>,
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        Programs { starter, socket, places, inputs, alive: BTreeMap::new() }
    }

    /// Starts a program.
    pub fn start(&mut self, pid: Pid, program: Program) {
        let (stop, stopped) = oneshot::channel();
        self.alive.insert(pid, stop);
        let (starter, socket) = (Arc::clone(&self.starter), self.socket.clone());
        let (places, inputs) = (Arc::clone(&self.places), self.inputs.clone());
        tokio::spawn(async move {
            let launched = Arc::clone(&places)
                .try_acquire_owned()
                .map_err(|_| {
                    let message =
                        format!("{CONNECTIONS_MAX} of {CONNECTIONS_MAX} connections are open; close some");
                    Fault::new(Errno::EMFILE, message)
                })
                .and_then(|place| Ok((launch(&starter, &socket, &program)?, place)));
            let event = match launched {
                Ok(((child, near), place)) => stand_by(pid, child, near, place, &inputs, stopped).await,
                Err(fault) => Event::ProgramRefused { pid, fault },
            };
            // The main loop is gone only when the daemon ends.
            let _ = inputs.send(Input::Worker(event)).await;
        });
    }

    /// Asks a program to end, and kills it after the time that it is given.
    pub fn stop(&mut self, pid: Pid, grace: Duration) {
        if let Some(stop) = self.alive.remove(&pid) {
            // It fails where the program has just ended.
            let _ = stop.send(grace);
        }
    }

    /// Its end was reported.
    pub fn ended(&mut self, pid: Pid) {
        self.alive.remove(&pid);
    }
}

/// Stays with a program to its end, which it gives.
async fn stand_by(
    pid: Pid,
    mut child: Child,
    near: UnixStream,
    place: OwnedSemaphorePermit,
    inputs: &mpsc::Sender<Input>,
    stopped: oneshot::Receiver<Duration>,
) -> Event {
    let os_pid = child.id().unwrap_or_default();
    // The main loop is gone only when the daemon ends.
    let _ = inputs.send(Input::ProgramStarted { pid, os_pid, socket: near, place }).await;
    let status = tokio::select! {
        status = child.wait() => status,
        grace = stopped => {
            signal_group(os_pid, Signal::SIGTERM);
            // Nobody gives it time where the daemon ends.
            match timeout(grace.unwrap_or(Duration::ZERO), child.wait()).await {
                Ok(status) => status,
                Err(_) => {
                    signal_group(os_pid, Signal::SIGKILL);
                    timeout(KILL_PATIENCE, child.wait()).await.unwrap_or_else(|e| Err(e.into()))
                }
            }
        }
    };
    // What it has started goes with it.
    signal_group(os_pid, Signal::SIGKILL);
    Event::ProgramEnded { pid, status: status.map_or(u8::MAX, status_of) }
}

/// The status of a process, as shells tell it.
fn status_of(status: ExitStatus) -> u8 {
    let number = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(255);
    u8::try_from(number).unwrap_or(u8::MAX)
}

fn signal_group(os_pid: u32, signal: Signal) {
    match i32::try_from(os_pid) {
        // It fails where all of them are gone already.
        Ok(pid) if pid > 1 => drop(killpg(nix::unistd::Pid::from_raw(pid), signal)),
        _ => {}
    }
}

/// Starts a program with its end of a connection. Gives the other end.
fn launch(starter: &Starter, socket: &Path, program: &Program) -> Result<(Child, UnixStream), Fault> {
    let user = user(program.uid)?;
    let path = find(&program.argv[0])?;
    let fault = |e: io::Error| Fault::new(Errno::EIO, format!("cannot start {}: {e}", path.display()));
    let (near, far) = std::os::unix::net::UnixStream::pair().map_err(fault)?;
    near.set_nonblocking(true).map_err(fault)?;
    let mut policy = starter.program_policy();
    policy.execute.push(path.clone());
    // The programs of the project, which others call.
    let own = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
    policy.execute.extend(own.clone());
    let mut environment = inherited(VARIABLES);
    let own = own.map(|folder| format!("{}:", folder.display())).unwrap_or_default();
    environment.push(("PATH".into(), format!("{own}{PATH}")));
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
        keep: vec![CONNECTION_FD],
    };
    let command = starter.command(&start).map_err(fault)?;
    let child = spawn(command, far.into()).map_err(fault)?;
    Ok((child, UnixStream::from_std(near).map_err(fault)?))
}

fn spawn(command: std::process::Command, far: OwnedFd) -> io::Result<Child> {
    let mut command = Command::from(command);
    command.stdin(Stdio::null()).stdout(to_log()?).process_group(0).kill_on_drop(true);
    let fd = far.as_raw_fd();
    // SAFETY: between fork and exec the closure makes system calls alone and allocates nothing; the descriptor is open
    // until the command was spawned.
    unsafe {
        command.pre_exec(move || {
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

/// Standard output of programs goes where the daemon logs.
fn to_log() -> io::Result<Stdio> {
    use std::os::fd::AsFd;
    Ok(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?))
}

/// Whom a program runs as: its caller, and nobody else.
fn user(uid: u32) -> Result<Option<User>, Fault> {
    if uid == getuid().as_raw() {
        return Ok(None);
    }
    if !getuid().is_root() {
        let message = format!("the daemon runs as user {}, and can start programs for no other", getuid());
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
