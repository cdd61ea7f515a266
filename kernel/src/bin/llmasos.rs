//! The daemon, and by the same name the shell's commands: `llmasos daemon` serves, `llmasos ps` asks.
//!
//! Every word but `daemon` is a builtin of the shell. The kernel does not depend on the shell; this executable
//! becomes it.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{CommandFactory, Parser};
use kernel::host::daemon::{self, executable};
use kernel::host::settings::{Flags, Settings};
use kernel::host::{heap, log};
use kernel::jail::helper;

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
    /// Answers the program behind standard input, a socket, with the kernel's core and simulated models alone
    #[command(hide = true)]
    Simulation,
    /// Any command of the shell, such as ps, mount or generate
    #[command(external_subcommand)]
    Builtin(Vec<OsString>),
}

/// Exit codes: 0 success, 1 failure, 2 usage.
fn main() -> ExitCode {
    // What the daemon starts itself as where there is no helper beside it.
    if std::env::args_os().next().is_some_and(|name| name == helper::NAME) {
        return helper::main();
    }
    // `help` is the shell's own, which knows its commands.
    let second = std::env::args_os().nth(1);
    if second.is_some_and(|word| word == "help") {
        return become_shell(std::env::args_os().skip(1).collect());
    }
    match Arguments::parse() {
        Arguments::Builtin(words) if words.first().is_some_and(|word| word == "manual") => {
            write_manual(words)
        }
        Arguments::Daemon(flags) => serve(flags),
        Arguments::Simulation => simulate(),
        Arguments::Builtin(words) => become_shell(words),
    }
}

fn serve(flags: Flags) -> ExitCode {
    let heap = heap::keep_small();
    let settings = match Settings::settle(flags) {
        Ok(settings) => settings,
        Err(e) => {
            eprintln!("llmasos: {e}");
            return ExitCode::from(2);
        }
    };
    log::start(&settings.log);
    if let Err(e) = heap {
        tracing::warn!("the daemon cannot begin anew with a smaller heap, and goes on with what it has: {e}");
    }
    match daemon::run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("llmasos: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Plays the kernel for `replay --sim`, which is at the other end of standard input.
fn simulate() -> ExitCode {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    match socket.and_then(kernel::sim::serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!(
                "llmasos: the socket on standard input fails: {e}; `llmasos replay --sim FILE` makes one"
            );
            ExitCode::FAILURE
        }
    }
}

/// Has the shell write the manual of its commands, and adds the page of the daemon, whose options are known here.
fn write_manual(words: Vec<OsString>) -> ExitCode {
    let shell = executable("llmsh");
    let folder = words.get(1).cloned();
    match Command::new(&shell).arg("--builtin").args(words).status() {
        Ok(status) if status.success() => {}
        Ok(_) => return ExitCode::FAILURE,
        Err(e) => {
            eprintln!(
                "llmasos: cannot run {}: {e}; it belongs beside llmasos or on the PATH",
                shell.display()
            );
            return ExitCode::FAILURE;
        }
    }
    let Some(folder) = folder.map(PathBuf::from).filter(|folder| folder.is_dir()) else {
        return ExitCode::SUCCESS;
    };
    let mut command = Arguments::command();
    command.build();
    let daemon = command.find_subcommand("daemon").expect("it is a variant of the arguments").clone();
    let page = folder.join("llmasos-daemon.1");
    let written = File::create(&page).and_then(|mut file| clap_mangen::Man::new(daemon).render(&mut file));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("llmasos: cannot write {}: {e}", page.display());
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
