//! The training program as a user meets it: a specification in, a folder out, and everything that can go wrong.

#![allow(clippy::unwrap_used)]

mod answers;
mod disk;
mod durable;
mod fetching;
#[cfg(feature = "mpi")]
mod mpi;
mod place;
mod ranks;
mod refusals;
mod tuning;
mod whole;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A folder with a text and a specification that takes a second or two.
pub struct Place {
    folder: tempfile::TempDir,
}

const SPEC: &str = r#"(
    model: Gpt(layers: 2, heads: 2, width: 32, context: 16, dropout: 0.1),
    data: (train: Text(["TEXT"])),
    tokeniser: (kind: Train(Char)),
    schedule: Cosine(warmup: 5),
    batch: 4,
    accumulate: 2,
    steps: 60,
    evaluation: (every: 20, batches: 2),
    checkpoint: (every: 10),
    threads: 1,
    out: "OUT",
)"#;

impl Default for Place {
    fn default() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for number in 0..400 {
            text.push_str(&format!("line {number} of a text that says what line {number} says\n"));
        }
        fs::write(folder.path().join("text.txt"), text).unwrap();
        let place = Place { folder };
        place.spec(SPEC);
        place
    }
}

impl Place {
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the specification, with the paths of this place.
    pub fn spec(&self, text: &str) {
        let path = |name: &str| self.path(name).display().to_string();
        let text = text.replace("TEXT", &path("text.txt")).replace("OUT", &path("run"));
        fs::write(self.path("spec.ron"), text).unwrap();
    }

    /// The command that runs the specification.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llmasos-trainer"));
        command.arg("run").arg(self.path("spec.ron")).arg("--cache").arg(self.path("cache"));
        // Threads of the class batch would get nothing on a machine that is loaded; `--idle` says otherwise.
        command.args(["--class", "normal"]);
        // No daemon of the machine has a say.
        command.args(arguments).env("LLMASOS_SOCKET", self.path("socket")).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it to the end, which must be a good one.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{:?}: {said}", output.status);
        said + &String::from_utf8_lossy(&output.stdout)
    }

    /// Runs it, and returns the sentence with which it fails.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Writes a model that was trained in a format.
    pub fn export(&self, run: &str, format: &str, name: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llmasos-trainer"));
        command.arg("export").arg(self.path(run)).args(["--format", format, "--out"]).arg(self.path(name));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{format}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts it, with its events on a pipe.
    pub fn start(&self, arguments: &[&str]) -> Started {
        let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        let there = OwnedFd::from(there);
        let fd = there.as_raw_fd();
        let mut command = self.command(arguments);
        command.args(["--events", &fd.to_string()]).stderr(Stdio::null());
        // SAFETY: `fcntl` is one of the calls that are allowed between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::fcntl(fd, libc::F_SETFD, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let child = command.spawn().unwrap();
        drop(there);
        Started { child, events: BufReader::new(here) }
    }

    /// The files of the newest checkpoint that must be the same after the same steps.
    pub fn last(&self) -> [Vec<u8>; 2] {
        ["model.safetensors", "optimiser.safetensors"]
            .map(|name| fs::read(self.path("run/checkpoints/last").join(name)).unwrap())
    }

    pub fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("run/log.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A program that runs, and its events.
pub struct Started {
    pub child: Child,
    pub events: BufReader<std::os::unix::net::UnixStream>,
}

impl Started {
    /// Waits for an event that is wanted; none if the program ends before.
    pub fn wait_for(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Option<Value> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.events.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            let event: Value = serde_json::from_str(&line).unwrap();
            if wanted(&event) {
                return Some(event);
            }
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is our child and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a program is there that a test needs.
pub fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        eprintln!("skipped: there is no {program}");
    }
    found
}

pub fn exists(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.len() > 0)
}
