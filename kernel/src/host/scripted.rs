//! Programs of tests that are shell scripts.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Writes a script that can be run at once. By another process: a file that this one writes is open in what other tests
/// start meanwhile until that has become its own program, and the system runs nothing that is open to be written.
pub fn write(program: &Path, script: &str) {
    let text = program.with_extension("sh");
    fs::write(&text, format!("#!/bin/sh\n{script}\n")).expect("writes");
    let installed = Command::new("install").args(["-m", "755"]).arg(&text).arg(program).status();
    assert!(installed.expect("install is part of every Linux").success());
}
