//! `llmsh`, the shell of llmasos.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<OsString> = env::args_os().collect();
    ExitCode::from(apps::shell::main(&argv))
}
