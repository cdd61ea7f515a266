//! `train`: trains a model as a process of the daemon.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use clap::Parser;
use serde_json::Value;
use syscalls::call::Class;
use syscalls::limits::{NICE_MAX, NICE_MIN, RANKS_MAX};
use syscalls::{Reply, call};

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};
use crate::shell::locate;
use crate::terminal::output::Output;

/// The program that does it.
const TRAINER: &str = "llmasos-trainer";

pub const BUILTIN: Builtin =
    Builtin { name: "train", command: || arguments::command::<Args>("train"), run: Run::Program(run) };

/// Trains a model as a specification says
///
/// Runs `llmasos-trainer run`, whose --help has all options: --set NAME=VALUE changes a part of the specification,
/// --dry-run shows what it would take, --resume goes on. The run is a process of the class batch: `ps` lists it, and
/// signals, limits and `nice` act on it. INT and TERM leave a checkpoint. --ranks N trains over N threads; with --mpi
/// besides, and a trainer that was built with the feature `mpi`, mpirun starts them as processes. With --detach the daemon
/// starts the run, and it needs no terminal: the process's number is printed, `output` follows what it says, and
/// `log.jsonl` in its folder has it all. Such a run takes --set, --resume, --ranks, --class and --nice.
#[derive(Debug, Parser)]
struct Args {
    /// Has the daemon start the run, in the jail, and leaves it; stands before SPEC
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    daemon: Daemon,
    /// The specification, a RON file, and options
    #[arg(required = true, value_name = "SPEC", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// What a run can be told that the daemon starts.
#[derive(Debug, Parser)]
struct Detached {
    /// The specification, a RON file
    #[arg(value_name = "SPEC")]
    spec: OsString,
    /// Changes a part of it
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<OsString>,
    /// Goes on from the newest checkpoint in the run's folder
    #[arg(long)]
    resume: bool,
    /// Trains over so many ranks, which are threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(RANKS_MAX)))]
    ranks: Option<u32>,
    /// The scheduling class
    #[arg(short, long, value_parser = arguments::class())]
    class: Option<Class>,
    /// From -20 (most) to 19 (least)
    #[arg(long, value_name = "N", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i8).range(i64::from(NICE_MIN)..=i64::from(NICE_MAX)))]
    nice: Option<i8>,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    if args.detach {
        return detach(invocation, &args);
    }
    let program = locate::sibling(TRAINER);
    let mut command = Command::new(&program);
    command.arg("run").args(&args.arguments);
    if let Some(socket) = &args.daemon.socket {
        command.arg("--socket").arg(socket);
    }
    let error = command.exec();
    Err(Failure::Message(format!("{} cannot be started: {error}", program.display())))
}

/// Hands the run over to the daemon. The trainer says what the specification means, since the daemon does not know.
fn detach(invocation: &Invocation, args: &Args) -> Outcome {
    let program = locate::sibling(TRAINER);
    let unstarted = |error| Failure::Message(format!("{} cannot be started: {error}", program.display()));
    let told: Detached = invocation.parse_from(&args.arguments)?;
    let mut command = Command::new(&program);
    command.arg("resolve").arg(&told.spec);
    for setting in &told.set {
        command.arg("--set").arg(setting);
    }
    let done = command.stderr(Stdio::inherit()).output().map_err(unstarted)?;
    if !done.status.success() {
        // It has told why.
        return Ok(done.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
    }
    let bad = |what: String| Failure::Message(format!("{} has answered {what}", program.display()));
    let spec: Value = serde_json::from_slice(&done.stdout).map_err(|error| bad(error.to_string()))?;
    let out = spec["out"].as_str().ok_or_else(|| bad("a specification without `out`".into()))?;
    std::fs::create_dir_all(out).map_err(|error| Failure::Message(format!("{out}: {error}")))?;
    let mut client = args.daemon.connect("train")?;
    let Detached { resume, ranks, class, nice, .. } = told;
    let train = call::Train { spec, resume, ranks, name: None, class, nice, group: None };
    match client.call(train)? {
        Reply::Spawned { pid } => Output::stdout().write(&format!("{pid}\n"))?,
        _ => return Err(Failure::Message("the daemon answered with the reply of another call".into())),
    }
    Ok(0)
}
