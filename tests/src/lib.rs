//! What the tests of the whole system share: a daemon of one's own ([`Daemon`]), programs, and waiting with a deadline.
//!
//! The programs are those that were built beside the test; `cargo build --release --workspace` builds them, which
//! `make test` does first.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::time::{Duration, Instant};

pub mod bench;
mod daemon;
pub mod disk;
pub mod flood;
pub mod process;
pub mod said;
pub mod sim;
pub mod soak;
pub mod steps;
pub mod terminal;

pub use daemon::Daemon;

/// How long anything that a test waits for may take. Long, for a machine under load: a test that passes never
/// waits for it.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// Between two looks at something that a test waits for.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Insists on times that are promised. `make faults` sets it; a machine that runs other tests besides may take longer.
pub const STRICT_VAR: &str = "LLMASOS_TEST_STRICT";

/// Checks that something took no longer than is promised, where that is insisted on.
///
/// # Panics
///
/// It took longer.
pub fn promised(what: &str, took: Duration, most: Duration) {
    let insists = std::env::var_os(STRICT_VAR).is_some();
    assert!(!insists || took <= most, "{what} took {took:?}; {most:?} are promised");
}

/// A program of the project, built beside this test.
///
/// # Panics
///
/// It was not built.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own file");
    let deps = test.parent().expect("a file is in a folder");
    let folder = if deps.ends_with("deps") { deps.parent().expect("deps is in a folder") } else { deps };
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built; run `cargo build --release --workspace` first", path.display());
    path
}

/// Prints a figure that a test has come to, for `make faults` to put into its table.
pub fn figure(what: &str, value: &str) {
    println!("figure: {what}: {value}");
}

/// The root of the project.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the workspace")
}

/// The starter model, which the project ships.
pub fn starter() -> PathBuf {
    workspace().join("drivers/starter/starter.gguf")
}

/// Says that something was not looked at, past the test runner, which shows nothing of tests that pass.
pub fn skipped(why: &str) {
    // Where nobody can hear it, the test goes on.
    let _ = io::stderr().write_all(format!("NOT CHECKED: {why}\n").as_bytes());
}

/// Models and texts that are too large or too restricted to be kept in the project: the folder `data` of
/// `LLMASOS_SHARED`, or of `shared` beside the project. Where there is none, says so, and the test that wanted
/// it has nothing to do.
pub fn shared_data() -> Option<PathBuf> {
    let data = shared_data_folder()?;
    if data.is_dir() {
        return Some(data);
    }
    skipped(&format!("there is no {}; LLMASOS_SHARED can name another folder", data.display()));
    None
}

/// Where [`shared_data`] looks.
pub fn shared_data_folder() -> Option<PathBuf> {
    let shared = match std::env::var_os("LLMASOS_SHARED") {
        Some(path) => PathBuf::from(path),
        None => workspace().parent()?.join("shared"),
    };
    Some(shared.join("data"))
}

/// Looks until there is something to see.
///
/// # Panics
///
/// [`DEADLINE`] has passed.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begin.elapsed() < DEADLINE, "{what} did not come within {DEADLINE:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// As [`wait_for`], for a condition.
///
/// # Panics
///
/// [`DEADLINE`] has passed.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

/// The exit code as a shell shows it: 128 + n for the end by signal n.
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Standard output as text.
///
/// # Panics
///
/// The program failed, or its output is not UTF-8.
pub fn stdout(output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout).expect("output is UTF-8")
}
