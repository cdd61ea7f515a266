//! The daemon, and by the same name the shell's commands: `llmasos daemon` serves, `llmasos ps` asks.
//!
//! Every word but `daemon` is a builtin of the shell. The kernel does not depend on the shell; this executable
//! becomes it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Parser;
use kernel::host::daemon::{self, executable};
use kernel::host::log;
use kernel::host::settings::{Flags, Settings};

/// What the command line can be.
#[derive(Parser)]
#[command(
    name = "llmasos",
    version,
    about = "An operating system for language models",
    after_help = "Every other COMMAND is one of the shell's: `llmasos help` lists them, `llmasos help ps` explains one.",
    arg_required_else_help = true
)]
enum Arguments {
    /// Serves programs on a socket until it is asked to end by SIGTERM, SIGINT or `llmasos shutdown`
    Daemon(Flags),
    /// Any command of the shell, such as ps, mount or generate
    #[command(external_subcommand)]
    Builtin(Vec<OsString>),
}

/// Exit codes: 0 success, 1 failure, 2 usage.
fn main() -> ExitCode {
    // `help` is the shell's own, which knows its commands.
    let second = std::env::args_os().nth(1);
    if second.is_some_and(|word| word == "help") {
        return become_shell(std::env::args_os().skip(1).collect());
    }
    match Arguments::parse() {
        Arguments::Daemon(flags) => serve(flags),
        Arguments::Builtin(words) => become_shell(words),
    }
}

fn serve(flags: Flags) -> ExitCode {
    let settings = match Settings::settle(flags) {
        Ok(settings) => settings,
        Err(e) => {
            eprintln!("llmasos: {e}");
            return ExitCode::from(2);
        }
    };
    log::start(&settings.log);
    match daemon::run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("llmasos: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Replaces this process with the shell, which runs one builtin.
fn become_shell(words: Vec<OsString>) -> ExitCode {
    let shell = executable("llmsh");
    let error = Command::new(&shell).arg("--builtin").args(words).exec();
    eprintln!("llmasos: cannot run {}: {error}; it belongs beside llmasos or on the PATH", shell.display());
    ExitCode::FAILURE
}
