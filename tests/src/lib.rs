//! Starts real daemons for tests, each with a socket and state of its own, and ends them.
//!
//! The programs under test are those beside the test's own executable: `cargo build --release --workspace --bins`
//! makes them, and `make test` does so before it runs the tests.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use syscalls::client::blocking::Client;
use syscalls::paths::{CONFIG_VAR, DATA_VAR, SOCKET_VAR};
use tempfile::TempDir;

/// How long a daemon may take to serve.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at a condition.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// A daemon of one test. It is killed when this is dropped.
pub struct Daemon {
    dir: TempDir,
    socket: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// Starts a daemon without models, and waits until it serves.
    ///
    /// # Panics
    ///
    /// Where the daemon does not serve in time; its log says why.
    pub fn start() -> Daemon {
        let dir = TempDir::with_prefix("llmasos-test-").expect("a temporary folder");
        let socket = dir.path().join("llmasos.sock");
        let mut daemon = Daemon { dir, socket, child: None };
        daemon.restart();
        daemon
    }

    /// Starts the daemon again, on the same socket and state.
    ///
    /// # Panics
    ///
    /// As [`Daemon::start`].
    pub fn restart(&mut self) {
        self.kill9();
        let log = std::fs::File::options().create(true).append(true).open(self.log()).expect("a log file");
        let child = self.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.expect("the daemon starts"));
        let begun = Instant::now();
        while Client::connect(&self.socket, "harness").is_err() {
            let ended = self.child.as_mut().expect("just set").try_wait().expect("can be waited for");
            let late = begun.elapsed() > START_DEADLINE;
            assert!(ended.is_none() && !late, "the daemon does not serve ({ended:?}):\n{}", self.read_log());
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// The command that starts this daemon.
    fn command(&self) -> Command {
        let mut command = self.program("llmasos");
        command.arg("daemon").arg("--socket").arg(&self.socket).arg("--data").arg(self.data());
        command
    }

    /// A connection, as a process called `test`.
    ///
    /// # Panics
    ///
    /// Where the daemon does not answer.
    pub fn client(&self) -> Client {
        Client::connect(&self.socket, "test").expect("the daemon serves")
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The folder of the daemon's state.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A folder that lives as long as the daemon, for a test's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The file that the daemon logs to.
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// What the daemon has logged.
    pub fn read_log(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The operating system's process.
    ///
    /// # Panics
    ///
    /// After [`Daemon::kill9`].
    pub fn os_pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// The daemon's resident memory.
    ///
    /// # Panics
    ///
    /// Where the daemon is gone.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.os_pid())).expect("it lives");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("has a resident set");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Mounts the driver without a model; `script` is what stands behind `sim:`.
    ///
    /// # Panics
    ///
    /// Where the daemon refuses.
    pub fn mount_sim(&self, name: &str, script: &str) {
        self.client().mount(&format!("sim:{script}"), name, |_| {}).expect("the sim driver mounts");
    }

    /// Runs `llmasos` on this daemon to its end.
    ///
    /// # Panics
    ///
    /// Where it does not start.
    pub fn llmasos(&self, args: &[&str]) -> Output {
        self.program("llmasos").args(args).stdin(Stdio::null()).output().expect("llmasos starts")
    }

    /// Any of the project's programs, on this daemon.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(binary(name));
        command.env(SOCKET_VAR, &self.socket).env(DATA_VAR, self.data()).env_remove(CONFIG_VAR);
        command.env("XDG_CONFIG_HOME", self.dir.path()).current_dir(self.dir.path());
        command
    }

    /// Tries to start another daemon on the same socket, and gives what it said when it ended.
    ///
    /// # Panics
    ///
    /// Where it does not start.
    pub fn second_daemon(&self) -> Output {
        let mut command = self.program("llmasos");
        command.arg("daemon").arg("--socket").arg(&self.socket);
        command.arg("--data").arg(self.dir.path().join("other")).output().expect("llmasos starts")
    }

    /// Kills the daemon as `kill -9` does, and waits until it is gone.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error says that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.read_log());
        }
    }
}

/// A program of the project, beside the test's own executable.
///
/// # Panics
///
/// Where it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a process knows its executable");
    // Tests lie in `deps`, one folder below the programs; the bench lies among the programs.
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("`{name}` is not built; run `cargo build --release --workspace --bins`"))
}

/// The starter model, which the project ships.
pub fn starter() -> PathBuf {
    workspace().join("drivers/starter/starter.gguf")
}

/// The root of the source tree.
///
/// # Panics
///
/// Never: this crate lies one folder below it.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in a workspace").to_path_buf()
}

/// Real models and data sets that are not part of the project: the folder that `LLMASOS_SHARED` names, or
/// `../shared` beside the source tree. Prints that the test is skipped where there is none.
pub fn shared_data() -> Option<PathBuf> {
    let by_var = std::env::var_os("LLMASOS_SHARED").map(PathBuf::from);
    let root = by_var.unwrap_or_else(|| workspace().join("../shared"));
    let data = root.join("data");
    if data.is_dir() {
        return Some(data.canonicalize().unwrap_or(data));
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("skipped: {test}: no test material at {}", data.display());
    None
}

/// Waits until `condition` holds.
///
/// # Panics
///
/// Where it does not hold before the deadline.
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < deadline, "waited {deadline:?} in vain until {what}");
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// The lines of a program's output as they come.
///
/// # Panics
///
/// Where the program was started without a pipe for its output.
pub fn lines_of(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().expect("started with a pipe")).lines().map_while(Result::ok)
}
