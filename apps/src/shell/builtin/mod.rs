//! The shell's builtins, one file each, and the list of them.
//!
//! There are two kinds. A builtin that asks the daemon is a [`Run::Program`]: it runs as a process of its own,
//! so that pipes, redirections, signals and job control are the same for it as for any other program, and
//! `llmasos NAME` can run it too. A builtin that changes the shell itself, as `cd` does, is a [`Run::Shell`] and
//! runs inside it.

use std::ffi::OsString;
use std::io::Write;

use super::Shell;
use arguments::Invocation;
use failure::Failure;

pub mod arguments;
pub mod failure;

mod attach;
mod bg;
mod cd;
mod detach;
mod devices;
mod discard;
mod exit;
mod export;
mod fg;
mod generate;
mod groups;
pub mod help;
mod inspect;
mod jobs;
mod kill;
mod listing;
mod manual;
pub mod models;
pub mod mount;
mod nice;
mod output;
mod policy;
mod printed;
mod ps;
mod replay;
mod restore;
mod segments;
mod service;
mod share;
mod shutdown;
mod snapshot;
mod snapshots;
mod spawn;
mod stat;
mod store;
mod sysinfo;
mod timeline;
mod tokenize;
mod top;
mod trace;
mod train;
mod umount;
mod wait;

/// One builtin.
pub struct Builtin {
    /// The word that runs it.
    pub name: &'static str,
    /// Its arguments, with a sentence on what it does.
    pub command: fn() -> clap::Command,
    /// How it runs.
    pub run: Run,
}

/// The end of a builtin: its exit status, or what went wrong.
pub type Outcome = Result<u8, Failure>;

/// Runs a builtin as a process of its own.
pub type Program = fn(&Invocation) -> Outcome;

/// Runs a builtin inside the shell, with its standard output.
pub type InShell = fn(&mut Shell, &Invocation, &mut dyn Write) -> Outcome;

/// Where a builtin runs.
pub enum Run {
    /// As a process of its own.
    Program(Program),
    /// Inside the shell, and nowhere else.
    Shell(InShell),
    /// Inside the shell where the arguments are about the shell's jobs, else as a process of its own.
    Either {
        /// Whether these arguments are for the shell.
        in_shell: fn(&Shell, &[OsString]) -> bool,
        /// Inside the shell.
        shell: InShell,
        /// As a process of its own.
        program: Program,
    },
}

/// Every builtin, in the order of `help`: first those that ask the daemon.
pub const ALL: &[Builtin] = &[
    generate::BUILTIN,
    tokenize::BUILTIN,
    models::BUILTIN,
    mount::BUILTIN,
    umount::BUILTIN,
    share::BUILTIN,
    segments::BUILTIN,
    snapshot::BUILTIN,
    restore::BUILTIN,
    snapshots::BUILTIN,
    discard::BUILTIN,
    ps::BUILTIN,
    top::BUILTIN,
    inspect::BUILTIN,
    trace::BUILTIN,
    train::BUILTIN,
    spawn::BUILTIN,
    output::BUILTIN,
    service::BUILTIN,
    replay::BUILTIN,
    kill::BUILTIN,
    wait::BUILTIN,
    detach::BUILTIN,
    attach::BUILTIN,
    nice::BUILTIN,
    policy::BUILTIN,
    groups::BUILTIN,
    store::BUILTIN,
    stat::BUILTIN,
    sysinfo::BUILTIN,
    devices::BUILTIN,
    timeline::BUILTIN,
    shutdown::BUILTIN,
    manual::BUILTIN,
    help::BUILTIN,
    cd::BUILTIN,
    export::BUILTIN,
    jobs::BUILTIN,
    fg::BUILTIN,
    bg::BUILTIN,
    exit::BUILTIN,
];

impl Builtin {
    /// The one with this name.
    pub fn named(name: &str) -> Option<&'static Builtin> {
        ALL.iter().find(|b| b.name == name)
    }

    /// What it does, in one sentence.
    pub fn summary(&self) -> String {
        (self.command)().get_about().map(ToString::to_string).unwrap_or_default()
    }

    /// What runs it outside of a shell, if anything can.
    pub fn program(&self) -> Option<Program> {
        match self.run {
            Run::Program(program) | Run::Either { program, .. } => Some(program),
            Run::Shell(_) => None,
        }
    }
}

/// Runs a builtin as this process, and gives its exit status.
pub fn run_program(invocation: &Invocation) -> u8 {
    let Some(builtin) = Builtin::named(&invocation.name) else {
        return unknown(invocation);
    };
    match builtin.program() {
        Some(program) => program(invocation).unwrap_or_else(|failure| failure.report(&invocation.name)),
        None => {
            note!("{}: changes the shell itself and works inside llmsh only", invocation.shown());
            2
        }
    }
}

fn unknown(invocation: &Invocation) -> u8 {
    let names: Vec<&str> = ALL.iter().filter(|b| b.program().is_some()).map(|b| b.name).collect();
    let hint = match syscalls::call::nearest(&invocation.name, &names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("`{}help` lists the commands", invocation.prefix),
    };
    note!("{}: no such command; {hint}", invocation.shown());
    2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_has_sound_arguments_and_a_summary() {
        for builtin in ALL {
            (builtin.command)().debug_assert();
            assert!(!builtin.summary().is_empty(), "{} has no summary", builtin.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = ALL.iter().map(|b| b.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
