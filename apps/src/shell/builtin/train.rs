//! `train`: trains a model as a process of the daemon.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Parser;

use super::arguments::{self, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};
use crate::shell::locate;

/// The program that does it.
const TRAINER: &str = "llmasos-trainer";

pub const BUILTIN: Builtin =
    Builtin { name: "train", command: || arguments::command::<Args>("train"), run: Run::Program(run) };

/// Trains a model as a specification says
///
/// Runs `llmasos-trainer run`, whose --help has all options: --set NAME=VALUE changes a part of the specification,
/// --dry-run shows what it would take, --resume goes on. The run is a process of the class batch: `ps` lists it, and
/// signals, limits and `nice` act on it. INT and TERM leave a checkpoint.
#[derive(Debug, Parser)]
struct Args {
    /// The specification, a RON file, and options
    #[arg(required = true, value_name = "SPEC", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let program = locate::sibling(TRAINER);
    let error = Command::new(&program).arg("run").args(&args.arguments).exec();
    Err(Failure::Message(format!("{} cannot be started: {error}", program.display())))
}
