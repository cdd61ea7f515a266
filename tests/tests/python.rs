//! The Python package's own tests, with a daemon of their own and the programs of this build.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

#[test]
fn package_passes_its_tests() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../syscalls/python");
    let version = "import sys; sys.exit(sys.version_info < (3, 10))";
    if !Command::new("python3").args(["-c", version]).status().is_ok_and(|status| status.success()) {
        return harness::skipped("the Python package: there is no python3 of version 3.10 or newer");
    }
    let programs = harness::binary("llmasos");
    let done = Command::new("python3")
        .args(["-m", "unittest", "discover", "-t", ".", "-s", "tests"])
        .current_dir(package)
        .env("LLMASOS_BIN", programs.parent().unwrap())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
