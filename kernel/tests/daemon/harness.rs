//! A daemon of its own for each test, with a shell script for a worker.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use drivers::wire::{FromWorker, ModelDescription, encode};
use nix::sys::signal::{Signal, kill};
use syscalls::call::Attention;
use syscalls::client::blocking::Client;
use syscalls::codec::{Line, LineReader};
use syscalls::{Frame, limits};

/// Nothing here takes this long unless it hangs, not even on a machine that is busy with other tests.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// Between two looks at something that is waited for: a test that looks all the time keeps it from coming.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A worker that loads its model and then waits for the end.
pub const READY_WORKER: &str = "cat ready >&0; exec cat <&0 >/dev/null";

/// A folder with all that a daemon needs, which outlives the daemon.
pub struct Home {
    folder: tempfile::TempDir,
}

/// A daemon that is killed when the test ends.
pub struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Home {
    /// A home whose worker is a shell script. In its folder it finds `ready`, the words of a worker that has loaded
    /// its model.
    pub fn new(worker: &str) -> Home {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let script = format!("#!/bin/sh\ncd {}\n{worker}\n", folder.path().display());
        fs::write(path("worker.sh"), script).expect("writes");
        install(&path("worker.sh"), &path("worker"));
        let mut ready = Vec::new();
        encode(&FromWorker::Ready(Box::new(description())), &mut ready).expect("small");
        fs::write(path("ready"), ready).expect("writes");
        // The worker is not asked for devices: it is no program that could list them.
        let config = format!("(driver: {:?}, devices: [], jail: (strictness: off))", path("worker"));
        fs::write(path("config.ron"), config).expect("writes");
        Home { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command line of a daemon in this home.
    pub fn command(&self) -> Command {
        self.command_of(llmasos())
    }

    fn command_of(&self, mut command: Command) -> Command {
        command.arg("daemon").args(["--config", &text(&self.path("config.ron"))]);
        command.args(["--socket", &text(&self.path("s")), "--data", &text(&self.path("data"))]);
        command
    }

    /// Starts a daemon and waits until it serves.
    pub fn start(&self) -> Daemon {
        self.start_with(|_| {})
    }

    /// The same, started in a way of one's own.
    pub fn start_with(&self, change: impl FnOnce(&mut Command)) -> Daemon {
        let mut command = self.command();
        change(&mut command);
        self.start_by(command)
    }

    /// Starts a daemon whose executable has none of the others beside it.
    pub fn start_alone(&self) -> Daemon {
        let alone = self.path("llmasos");
        install(Path::new(env!("CARGO_BIN_EXE_llmasos")), &alone);
        self.start_by(self.command_of(deaf(Command::new(&alone))))
    }

    /// Starts a daemon as the service manager does, and waits until it serves: the socket is descriptor 3, and the process
    /// knows that it is meant.
    pub fn start_activated(&self, listener: &UnixListener) -> Child {
        let daemon = self.command();
        let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\" --ready-fd 4 4>&1 1>&2 3<&0";
        let mut starter = Command::new("sh");
        starter.args(["-c", script]).arg(daemon.get_program()).args(daemon.get_args());
        let socket = listener.try_clone().expect("a socket");
        starter.stdin(OwnedFd::from(socket)).stdout(Stdio::piped());
        let mut child = starter.spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("reads");
        assert_eq!(line, "ready\n");
        child
    }

    fn start_by(&self, mut command: Command) -> Daemon {
        let notify = self.path("notify");
        let _ = fs::remove_file(&notify);
        let notified = UnixDatagram::bind(&notify).expect("the name is free");
        notified.set_read_timeout(Some(DEADLINE)).expect("a duration");
        let child = command.env("NOTIFY_SOCKET", &notify).spawn().expect("starts");
        let mut words = [0; 64];
        let bytes = notified.recv(&mut words).expect("tells that it is ready");
        assert_eq!(&words[..bytes], b"READY=1\n");
        Daemon { child, socket: self.path("s") }
    }
}

impl Daemon {
    pub fn client(&self) -> Client {
        let mut client = Client::connect(&self.socket, "test").expect("connects");
        client.set_timeout(Some(DEADLINE)).expect("a duration");
        client
    }

    /// A connection without a client library.
    pub fn raw(&self) -> Raw {
        let stream = UnixStream::connect(&self.socket).expect("connects");
        stream.set_read_timeout(Some(DEADLINE)).expect("a duration");
        stream.set_write_timeout(Some(DEADLINE)).expect("a duration");
        Raw { stream, lines: LineReader::new(limits::REPLY_BYTES_MAX) }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process number");
        kill(nix::unistd::Pid::from_raw(pid), signal).expect("it runs");
    }

    /// Waits for the daemon's end.
    pub fn end(mut self) -> ExitStatus {
        wait_until("the daemon ends", || self.child.try_wait().expect("a child"))
    }

    /// Bytes of main memory that the daemon has.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It fails where the daemon has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that sends bytes and reads frames.
pub struct Raw {
    pub stream: UnixStream,
    lines: LineReader,
}

impl Raw {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the daemon reads");
    }

    pub fn frame(&mut self) -> Frame {
        let mut buffer = [0; 4096];
        loop {
            match self.lines.next_line() {
                Some(Line::Whole(line)) => return Frame::from_line(&line).expect("a frame"),
                Some(Line::TooLong(bytes)) => panic!("a line of {bytes} bytes"),
                None => {}
            }
            let bytes = self.stream.read(&mut buffer).expect("the daemon answers");
            assert_ne!(bytes, 0, "the daemon closed the connection");
            self.lines.push(&buffer[..bytes]);
        }
    }
}

/// Looks again and again, until something is there.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} until {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Says that something was not looked at, past the test runner, which shows nothing of tests that pass.
pub fn not_checked(why: &str) {
    std::io::stderr().write_all(format!("NOT CHECKED: {why}\n").as_bytes()).expect("somebody hears it");
}

/// Copies a program to where it can be run at once. By another process: a copy that this one has open while another test
/// forks cannot be run.
fn install(program: &Path, to: &Path) {
    let installed = Command::new("install").args(["-m", "755"]).arg(program).arg(to).status();
    assert!(installed.expect("install is part of every Linux").success());
}

/// The executable under test, deaf to the settings of whoever runs the tests.
pub fn llmasos() -> Command {
    deaf(Command::new(env!("CARGO_BIN_EXE_llmasos")))
}

fn deaf(mut command: Command) -> Command {
    for name in [
        "LLMASOS_SOCKET",
        "LLMASOS_DATA",
        "LLMASOS_CONFIG",
        "LLMASOS_LOG",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "GLIBC_TUNABLES",
    ] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

fn text(path: &Path) -> String {
    path.to_str().expect("temporary names are UTF-8").into()
}

fn description() -> ModelDescription {
    ModelDescription {
        driver: "script".into(),
        architecture: "none".into(),
        description: "a shell script".into(),
        parameters: 1,
        bytes: 1,
        vocabulary: 256,
        context_tokens: 128,
        context_trained: 128,
        pool_tokens: 256,
        batch_tokens: 64,
        row_tile: 1,
        sequences: 4,
        embedding: 1,
        generates: true,
        embeds: false,
        chat_template: false,
        any_text: true,
        ranges: true,
        attention: Attention::Plain,
        device: "cpu".into(),
        threads: 1,
        fingerprint: 1,
        ..ModelDescription::default()
    }
}
