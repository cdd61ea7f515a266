//! A daemon of a test's own: it has a socket and data in a new folder, and ends with the test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid as OsPid;
use syscalls::call::{Class, Hello};
use syscalls::client::blocking::Client;
use syscalls::client::hello;
use syscalls::reply::ModelInfo;
use tempfile::TempDir;

use crate::disk::Disk;
use crate::{binary, process, skipped, wait_for};

/// A daemon that serves one test.
#[derive(Debug)]
pub struct Daemon {
    dir: TempDir,
    /// Its executable, which has the others beside it.
    program: PathBuf,
    args: Vec<String>,
    /// What starts it, where it is not started as it is.
    launcher: Vec<String>,
    child: Child,
    /// What its data is on, where that is a disk of its own.
    disk: Option<Disk>,
}

impl Daemon {
    /// Starts a daemon and waits until it answers.
    pub fn start() -> Daemon {
        Daemon::start_with(&[])
    }

    /// Starts a daemon with further arguments.
    pub fn start_with(args: &[&str]) -> Daemon {
        Daemon::start_in(folder(), args.iter().map(|&a| a.into()).collect())
    }

    /// Starts a daemon with a configuration of its own.
    pub fn start_configured(config: &str) -> Daemon {
        let dir = folder();
        let args = configured(dir.path(), config);
        Daemon::start_in(dir, args)
    }

    /// Starts a daemon that logs to a file of the caller's.
    pub fn start_logging_to(log: File) -> Daemon {
        let dir = folder();
        let program = binary("llmasos");
        let child = spawn((program.as_path(), dir.path()), &[], &[], log);
        let mut daemon = Daemon { dir, program, args: Vec::new(), launcher: Vec::new(), child, disk: None };
        daemon.wait_until_it_answers();
        daemon
    }

    /// Starts a daemon through a command that becomes it, such as `prlimit`.
    pub fn start_under(launcher: &[&str]) -> Daemon {
        let launcher = launcher.iter().map(|&word| word.into()).collect();
        Daemon::start_as(folder(), binary("llmasos"), Vec::new(), launcher, None)
    }

    /// Starts a daemon as another user, who has no other process. Where this is not allowed, says so, and there is
    /// nothing to do.
    pub fn start_as_user(uid: u32) -> Option<Daemon> {
        if !nix::unistd::geteuid().is_root() {
            skipped("daemons of other users: only root can start one");
            return None;
        }
        let dir = folder();
        let id = uid.to_string();
        let launcher = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--"];
        // Whoever builds the project may have it where nobody else gets in.
        let program = install_programs(&dir.path().join("bin"));
        if let Err(why) = try_as_user(uid, dir.path(), &launcher, &program) {
            skipped(&format!("daemons of other users: none can be started here: {why}"));
            return None;
        }
        Some(Daemon::start_as(dir, program, Vec::new(), launcher.map(Into::into).into(), None))
    }

    /// Starts a daemon whose data is on a disk of its own, of so many bytes. Where the system does not let a test have
    /// one, says so, and there is nothing to do.
    pub fn start_on_disk(bytes: u64, config: &str) -> Option<Daemon> {
        let dir = folder();
        let data = dir.path().join("data");
        fs::create_dir(&data).expect("a folder can be made");
        let disk = Disk::mount(&data, bytes)?;
        let args = configured(dir.path(), config);
        let launcher = disk.launcher();
        Some(Daemon::start_as(dir, binary("llmasos"), args, launcher, Some(disk)))
    }

    fn start_in(dir: TempDir, args: Vec<String>) -> Daemon {
        Daemon::start_as(dir, binary("llmasos"), args, Vec::new(), None)
    }

    fn start_as(
        dir: TempDir,
        program: PathBuf,
        args: Vec<String>,
        launcher: Vec<String>,
        disk: Option<Disk>,
    ) -> Daemon {
        let child = spawn((program.as_path(), dir.path()), &args, &launcher, log_file(dir.path()));
        let mut daemon = Daemon { dir, program, args, launcher, child, disk };
        daemon.wait_until_it_answers();
        daemon
    }

    /// The disk that its data is on.
    ///
    /// # Panics
    ///
    /// It was not started with one.
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("the daemon was started on a disk of its own")
    }

    /// The folder of the socket, the data and the log, for the test's own files too.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        socket(self.dir())
    }

    /// The folder of the daemon's state.
    pub fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// The daemon's operating-system process.
    pub fn os_pid(&self) -> u32 {
        self.child.id()
    }

    /// The daemon's resident memory.
    pub fn resident_kib(&self) -> u64 {
        process::status_kib(self.os_pid(), "VmRSS")
    }

    /// Tries to start another daemon on the same socket, with data of its own, and gives what became of it.
    pub fn second_daemon(&self) -> Output {
        let mut command = self.command("llmasos");
        command.arg("daemon").arg("--socket").arg(self.socket()).arg("--data").arg(self.dir().join("second"));
        command.stdin(Stdio::null()).output().expect("llmasos can be started")
    }

    /// What the daemon and its workers have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::connect(&self.socket(), "test").expect("the daemon accepts connections")
    }

    /// A new connection whose process is of a class.
    pub fn client_of(&self, class: Class) -> Client {
        let hello = Hello { class, ..hello("test") };
        Client::connect_with(&self.socket(), hello).expect("the daemon accepts connections")
    }

    /// A program of the project, told where this daemon listens. Its folder is this daemon's.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(binary(program));
        command
            .current_dir(self.dir())
            .env("LLMASOS_SOCKET", self.socket())
            .env("LLMASOS_DATA", self.data())
            .env("XDG_CONFIG_HOME", self.dir());
        deaf(&mut command);
        command
    }

    /// Runs `llmasos ARGS…` to its end with nothing on standard input.
    pub fn llmasos<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        let mut command = self.command("llmasos");
        command.args(args).stdin(Stdio::null());
        command.output().expect("llmasos can be started")
    }

    /// Mounts the driver without a model under a name; `script` says what it does.
    pub fn mount_sim(&self, name: &str, script: &str) -> ModelInfo {
        self.mount(Path::new(&format!("sim:{script}")), name)
    }

    /// Mounts a model file under a name.
    pub fn mount(&self, path: &Path, name: &str) -> ModelInfo {
        let path = path.to_str().expect("the paths of test models are UTF-8");
        self.client().mount(path, name, |_| {}).unwrap_or_else(|fault| {
            panic!("mount of {path} failed: {fault}\nlog of the daemon:\n{}", self.log())
        })
    }

    /// Kills the daemon at once, as a power cut would.
    pub fn kill9(&mut self) {
        self.child.kill().expect("the daemon is this test's own child");
        self.child.wait().expect("the daemon is this test's own child");
    }

    /// Asks the daemon to end, and gives its exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = OsPid::from_raw(i32::try_from(self.child.id()).expect("pids are positive"));
        signal::kill(pid, Signal::SIGTERM).expect("the daemon is this test's own child");
        wait_for("the daemon's end", || self.child.try_wait().expect("the daemon is this test's own child"))
    }

    /// Starts a daemon again on the same socket and data, after [`Daemon::kill9`] or [`Daemon::terminate`].
    pub fn restart(&mut self) {
        self.child = self.spawn();
        self.wait_until_it_answers();
    }

    /// Starts a daemon again as [`Daemon::restart`] does, and kills it a moment later, whether it serves by then or not.
    pub fn restart_and_kill(&mut self, after: Duration) {
        self.child = self.spawn();
        let begin = Instant::now();
        while begin.elapsed() < after {
            std::thread::yield_now();
        }
        self.kill9();
    }

    fn spawn(&self) -> Child {
        spawn((self.program.as_path(), self.dir()), &self.args, &self.launcher, log_file(self.dir()))
    }

    fn wait_until_it_answers(&mut self) {
        let socket = self.socket();
        wait_for("the daemon's first answer", || {
            if let Some(status) = self.child.try_wait().expect("the daemon is this test's own child") {
                panic!("the daemon ended at its start with {status}; its log:\n{}", self.log());
            }
            Client::connect(&socket, "test").ok()
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A daemon that the test has ended already is no trouble, and workers end with their kernel.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the daemon:\n{}", self.log());
        }
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("llmasos-test-").tempdir().expect("a folder can be made")
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("socket")
}

/// Writes a configuration, and gives the arguments that name it.
fn configured(dir: &Path, config: &str) -> Vec<String> {
    let path = dir.join("config.ron");
    fs::write(&path, config).expect("a file can be written");
    vec!["--config".into(), path.to_string_lossy().into_owned()]
}

fn log_file(dir: &Path) -> File {
    File::options().create(true).append(true).open(dir.join("log")).expect("a log can be made")
}

/// Puts a daemon and what it starts into a folder of their own, and gives the daemon's executable. By another process: a copy
/// that this one has open while another test forks cannot be run.
fn install_programs(folder: &Path) -> PathBuf {
    let programs = ["llmasos", "llmasos-driver", "llmasos-jail"].map(binary);
    let mut install = Command::new("install");
    let done = install.args(["-D", "-m", "755", "-t"]).arg(folder).args(programs).status();
    assert!(done.expect("install is part of every Linux").success());
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("it was made here");
    folder.join("llmasos")
}

/// Gives a folder to a user, and runs a program as that user.
fn try_as_user(uid: u32, dir: &Path, launcher: &[&str], program: &Path) -> Result<(), String> {
    std::os::unix::fs::chown(dir, Some(uid), Some(uid)).map_err(|e| e.to_string())?;
    let mut command = Command::new(launcher[0]);
    let output = command.args(&launcher[1..]).arg(program).arg("--version").output();
    let output = output.map_err(|e| format!("{}: {e}", launcher[0]))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

fn spawn((program, dir): (&Path, &Path), args: &[String], launcher: &[String], log: File) -> Child {
    let mut command = match launcher {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    deaf(&mut command)
        .arg("daemon")
        .arg("--socket")
        .arg(socket(dir))
        .arg("--data")
        .arg(dir.join("data"))
        .args(args)
        // Workers take theirs from the environment.
        .envs(level(args).map(|level| ("LLMASOS_LOG", level)))
        .env_remove("LLMASOS_SOCKET")
        .env_remove("LLMASOS_DATA")
        .env("XDG_CONFIG_HOME", dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file can be opened twice"))
        .stderr(log)
        .spawn()
        .expect("llmasos can be started")
}

/// Makes a program deaf to what whoever runs the tests has set for his own, and to the service manager of the tests.
fn deaf(command: &mut Command) -> &mut Command {
    for name in ["LLMASOS_CONFIG", "LLMASOS_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    command
}

/// The level that arguments of a daemon ask for.
fn level(args: &[String]) -> Option<&String> {
    args.iter().position(|argument| argument == "--log").and_then(|at| args.get(at + 1))
}
