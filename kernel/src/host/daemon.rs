//! The daemon's life: what it takes hold of before the first input, and what it lets go after the last.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::Flock;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Group, getuid};
use syscalls::limits::EVENTS_WAITING_MAX;
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::acceptor::Acceptor;
use super::digest::Digests;
use super::input::Input;
use super::inspect::find_devices;
use super::listener::{self, ListenError, LockError, lock_file};
use super::machine;
use super::places::Places;
use super::programs::Programs;
use super::reactor::{Means, Reactor};
use super::settings::Settings;
use super::starter::Starter;
use super::store::journal::Journal;
use super::store::values::ValuesThread;
use super::store::{StoreError, StoreThread};
use super::swap::Swaps;
use super::systemd::{self, ServiceManager};
use super::turns::Turns;
use crate::core::effect::Record;
use crate::core::event::Event;
use crate::core::{HostInfo, Kernel};
use crate::jail::{Strictness, Support, support};

/// Why the daemon could not start, or ended badly.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The socket cannot be served.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The data folder is another daemon's.
    #[error(
        "another daemon{} keeps its state in {path}; stop it, or choose another folder with --data",
        .pid.map(|p| format!(" (process {p})")).unwrap_or_default()
    )]
    DataInUse { path: PathBuf, pid: Option<u32> },
    /// The data folder cannot be used.
    #[error("cannot keep state in {path}: {source}; choose another folder with --data")]
    Data { path: PathBuf, source: io::Error },
    /// The data folder is another user's.
    #[error(
        "the data folder {path} belongs to user {owner}, and the daemon runs as user {}; choose another folder with --data",
        getuid()
    )]
    DataOfOther { path: PathBuf, owner: u32 },
    /// Others could put files there.
    #[error(
        "others may write to the data folder {path} (mode {mode:03o}); run `chmod go-w {path}`, or choose another folder with --data"
    )]
    DataOpen { path: PathBuf, mode: u32 },
    /// The store in the data folder cannot be used.
    #[error("cannot keep state in {path}: {source}; choose another folder with --data")]
    Store { path: PathBuf, source: StoreError },
    /// The service manager did not hand over what can be served.
    #[error("{0}; check the socket unit")]
    Activation(String),
    /// The starter did not hand over what it names.
    #[error("--ready-fd {0} is not an open file descriptor above 2; open it in the starter")]
    ReadyFd(i32),
    /// The jail is required, and the system has not what it takes.
    #[error(
        "the jail is required, and this system has {0}; use a newer kernel, or set `jail: (strictness: auto)`"
    )]
    Jail(Support),
    /// The jail is required, and its helper is not there.
    #[error("the jail is required, and there is no {0}; install it beside llmasos")]
    NoJailHelper(PathBuf),
    /// The system refuses something else.
    #[error("the system refuses {what}: {source}")]
    System { what: &'static str, source: io::Error },
}

/// Runs a daemon until it is asked to end.
///
/// # Errors
///
/// It could not be started.
pub fn run(settings: Settings) -> Result<(), DaemonError> {
    // First of all, while no descriptor but the inherited ones is open.
    let activated = systemd::activated().map_err(DaemonError::Activation)?;
    let ready = settings.ready_fd.map(inherited).transpose()?;
    // Token logs have prompts in them.
    let umask = umask(Mode::from_bits_truncate(0o077));
    machine::raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| DaemonError::System { what: "an event queue", source })?;
    runtime.block_on(serve(settings, ready, activated, umask))
}

async fn serve(
    settings: Settings,
    ready: Option<OwnedFd>,
    activated: Option<std::os::unix::net::UnixListener>,
    umask: Mode,
) -> Result<(), DaemonError> {
    let _data_lock = own_data(&settings.data)?;
    let (socket, listener) = match activated {
        Some(listener) => (None, listener),
        None => listener::bind(&settings.socket, settings.socket_mode).map(|(s, l)| (Some(s), l))?,
    };
    listener.set_nonblocking(true).map_err(|source| DaemonError::System { what: "to listen", source })?;
    let store_path = settings.data.join("store");
    let (store, mut records) = StoreThread::open(&store_path)
        .map_err(|source| DaemonError::Store { path: store_path.clone(), source })?;
    let (journal, images) = Journal::open(&settings.data.join("processes"))
        .map_err(|source| DaemonError::Data { path: settings.data.clone(), source })?;
    records.extend(images.into_records());
    let system = |what| move |source| DaemonError::System { what, source };
    // Open until the end: whoever connects when nobody is taken in any more waits for the next daemon, if the service
    // manager has the socket, too, and else until this one is gone.
    let open = listener.try_clone().map_err(system("to listen"))?;
    let listener = UnixListener::from_std(listener).map_err(system("to listen"))?;

    let (urgent, urgent_inputs) = mpsc::channel(EVENTS_WAITING_MAX);
    let (inputs, other_inputs) = mpsc::channel(EVENTS_WAITING_MAX);
    tokio::spawn(watch_signals(urgent.clone()).map_err(system("to catch signals"))?);
    let turns = Turns::new();
    let places = Arc::new(Places::of_this_process());
    let admins = admin_group(&settings.admin_group);
    let (gone, gone_groups) = mpsc::channel(EVENTS_WAITING_MAX);
    let acceptor = Acceptor {
        listener,
        admins,
        places: Arc::clone(&places),
        turns: turns.clone(),
        gone_groups,
        inputs: inputs.clone(),
    };
    let acceptor = tokio::spawn(acceptor.run()).abort_handle();

    let starter = starter(&settings, umask)?;
    let kernel = Kernel::new(kernel_config(&settings, &starter), machine::random_seed());
    let driver = settings.driver.clone().unwrap_or_else(|| executable("llmasos-driver"));
    if settings.kernel.devices_to_come {
        tokio::spawn(find_devices(driver.clone(), urgent.clone()));
    }
    let done = urgent.clone();
    let values =
        ValuesThread::start(&settings.data.join("values"), settings.values, move |number, result| {
            // The loop is gone only when the daemon ends.
            let _ = done.blocking_send(Input::Worker(Event::Stored { number, result }));
        });
    let swaps = Swaps::new(&settings.data, settings.kernel.swap_disk_bytes);
    let digests = Arc::new(Digests::open(&settings.data));
    let programs = Programs::new(Arc::clone(&starter), settings.socket.clone(), places, urgent.clone());
    let means = Means {
        store,
        values,
        journal,
        swaps,
        driver,
        programs,
        digests,
        acceptor,
        gone,
        starter,
        turns,
        flags: settings.flags.clone(),
        save_at_end: Duration::from_millis(settings.kernel.save_at_end_ms),
    };
    let reactor = Reactor::new(kernel, means, urgent, inputs);
    let running = reactor.run(urgent_inputs, other_inputs, with_configured(records, &settings));
    announce(&settings, ready);
    running.await;

    drop(socket);
    drop(open);
    tracing::info!("the daemon has ended");
    Ok(())
}

/// Makes the data folder and takes it for this process. One that was there is its owner's alone from then on; where somebody
/// else may have put files there, it is refused.
fn own_data(path: &Path) -> Result<Flock<File>, DaemonError> {
    let data = |source| DaemonError::Data { path: path.into(), source };
    let make = |folder: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    make(path).map_err(data)?;
    let found = fs::metadata(path).map_err(data)?;
    let (owner, mode) = (found.uid(), found.mode() & 0o777);
    if owner != getuid().as_raw() {
        return Err(DaemonError::DataOfOther { path: path.into(), owner });
    }
    if mode & 0o022 != 0 {
        return Err(DaemonError::DataOpen { path: path.into(), mode });
    }
    if mode & 0o077 != 0
        && let Err(e) = fs::set_permissions(path, fs::Permissions::from_mode(0o700))
    {
        tracing::warn!(
            "others can look into the data folder {}, and that cannot be changed: {e}",
            path.display()
        );
    }
    let cache = path.join("cache");
    if let Err(e) = make(&cache) {
        tracing::warn!("{} cannot be made: {e}; workers measure again at each start", cache.display());
    }
    lock_file(&path.join("lock")).map_err(|e| match e {
        LockError::Held(pid) => DaemonError::DataInUse { path: path.into(), pid },
        LockError::System(source) => data(source),
    })
}

fn kernel_config(settings: &Settings, starter: &Starter) -> crate::core::KernelConfig {
    let host = HostInfo {
        version: env!("CARGO_PKG_VERSION").into(),
        os_pid: std::process::id(),
        socket: settings.socket.to_string_lossy().into_owned(),
        data: settings.data.to_string_lossy().into_owned(),
        jail: starter.describe(),
        cpu: machine::cpu_name(),
        cpus: machine::cpus(),
        memory_bytes: machine::memory_bytes(),
    };
    crate::core::KernelConfig { host, ..settings.kernel.clone() }
}

/// Makes the jail ready, and says once what it lacks.
fn starter(settings: &Settings, umask: Mode) -> Result<Arc<Starter>, DaemonError> {
    let (jail, there) = (&settings.jail, support());
    let helper = executable("llmasos-jail");
    let found = helper.is_file();
    let strictness = match jail.strictness {
        Strictness::Required if !there.is_whole() => return Err(DaemonError::Jail(there)),
        Strictness::Required if !found => return Err(DaemonError::NoJailHelper(helper)),
        Strictness::Auto if !found => {
            tracing::warn!("workers run without a jail: there is no llmasos-jail beside this program");
            Strictness::Off
        }
        Strictness::Auto if !there.is_whole() => {
            tracing::warn!("the jail of workers and programs lacks something: this system has {there}");
            Strictness::Auto
        }
        other => other,
    };
    Ok(Arc::new(Starter::new(helper, strictness, &jail.worker, &jail.program, umask)))
}

/// The remembered mounts, less those that the configuration has under the same name, and the configuration's.
fn with_configured(records: Vec<Record>, settings: &Settings) -> Vec<Record> {
    let configured: Vec<Record> = settings.mounts.iter().cloned().map(Record::Mount).collect();
    let is_configured = |record: &Record| configured.iter().any(|c| c.key() == record.key());
    let mut all: Vec<Record> = records.into_iter().filter(|r| !is_configured(r)).collect();
    all.extend(configured);
    all
}

/// Tells the log, systemd and the starter that the socket is served.
fn announce(settings: &Settings, ready: Option<OwnedFd>) {
    let (socket, data) = (settings.socket.display(), settings.data.display());
    tracing::info!("llmasos {} serves {socket}, state in {data}", env!("CARGO_PKG_VERSION"));
    ServiceManager::find().ready();
    if let Some(Err(e)) = ready.map(|fd| writeln!(fs::File::from(fd), "ready")) {
        tracing::warn!("the starter could not be told that the daemon is ready: {e}");
    }
}

/// Takes a descriptor that the starter left open for this process.
fn inherited(fd: RawFd) -> Result<OwnedFd, DaemonError> {
    let open = fd > 2 && Path::new("/proc/self/fd").join(fd.to_string()).exists();
    if !open {
        return Err(DaemonError::ReadyFd(fd));
    }
    // SAFETY: the descriptor is open, and since this process has opened none itself yet, nothing here owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An executable of the project: beside this one, else on the PATH.
pub fn executable(name: &str) -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| name.into())
}

/// Passes on each signal that asks the daemon to end, or to read its configuration again. Where it was started from a
/// terminal, HUP says that this is gone.
fn watch_signals(urgent: mpsc::Sender<Input>) -> io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    let on_terminal = io::IsTerminal::is_terminal(&io::stdin());
    Ok(async move {
        loop {
            let input = tokio::select! {
                _ = term.recv() => Input::Terminate,
                _ = int.recv() => Input::Terminate,
                _ = hup.recv() => if on_terminal { Input::Terminate } else { Input::Reload },
            };
            if urgent.send(input).await.is_err() {
                return;
            }
        }
    })
}

/// The number of the admin group, where the system has one of this name.
fn admin_group(name: &str) -> Option<u32> {
    let group = Group::from_name(name).ok().flatten();
    if group.is_none() {
        tracing::debug!("the system has no group {name}, so nobody is the administrator as its member");
    }
    group.map(|group| group.gid.as_raw())
}
