//! The program `llmasos-trainer`: its arguments, signals and exit codes.
//!
//! Exit codes: 0 when all steps are done, 1 for a failure, 2 for wrong usage, 128 + n when signal n ended the run, which
//! then has a checkpoint to go on from.

mod manual;
mod mpi;
mod place;
mod predict;
mod ranks;
mod resolve;
mod signals;
mod turns;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use syscalls::call::Class;
use syscalls::limits::{NICE_MAX, NICE_MIN, RANKS_MAX};
use syscalls::paths;

use crate::checkpoint::Folder;
use crate::export::{Exported, Format, Matrices};
use crate::ranks::{Mesh, together};
use crate::run::{Always, End, Feed, Hooks, RunError, Setup, Stop, Turn, expect, run};
use crate::spec::TrainSpec;
use crate::trained::{Trained, Which};
use turns::Turns;

/// Trains language models.
#[derive(Debug, Parser)]
#[command(name = "llmasos-trainer", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trains as a specification says
    Run(Run),
    /// Writes a trained model in a format for other programs
    Export(Export),
    /// Answers questions with a trained model: JSON lines in and out
    Predict(predict::Predict),
    /// Prints a specification as JSON, complete and with absolute paths
    Resolve(resolve::Resolve),
    /// Prints the folder of a data set, and fetches it where it is not there
    Find(resolve::Find),
    /// Writes manual pages and completions into a folder
    Manual(manual::Manual),
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    specification: resolve::Specification,
    /// Goes on from the newest checkpoint in the run's folder
    #[arg(long)]
    resume: bool,
    /// Goes on from the newest checkpoint where there is one, and begins otherwise
    #[arg(long, conflicts_with = "resume")]
    go_on: bool,
    /// Shows parameters, memory and time, and trains nothing
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,
    /// Writes what happens to this file descriptor, as JSON lines
    #[arg(long, value_name = "FD")]
    events: Option<i32>,
    /// Trains over so many ranks, which share this machine's processors; `ranks` in the specification lays them out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(RANKS_MAX)))]
    ranks: Option<u32>,
    /// Starts the ranks as processes under mpirun, instead of as threads
    #[arg(long, requires = "ranks", conflicts_with = "events")]
    mpi: bool,
    /// Sums over ranks by NCCL; each rank needs a card of NVIDIA's of its own
    #[arg(long)]
    nccl: bool,
    /// Computes only when nothing else on the machine wants to, as the class batch does too
    #[arg(long)]
    idle: bool,
    /// The scheduling class that it has in the daemon, where one listens
    #[arg(short, long, value_enum, default_value = "batch")]
    class: ClassName,
    /// From -20 (most) to 19 (least)
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value = "0",
          value_parser = clap::value_parser!(i8).range(i64::from(NICE_MIN)..=i64::from(NICE_MAX)))]
    nice: i8,
    /// The daemon's socket
    #[arg(long, value_name = "PATH", env = "LLMASOS_SOCKET")]
    socket: Option<PathBuf>,
    /// Asks no daemon for its turns
    #[arg(long)]
    alone: bool,
    /// Shows no progress
    #[arg(long, short)]
    quiet: bool,
    /// Where tokenised text and fetched data sets are kept
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Export {
    /// The folder of a run, or of a model in the Hugging Face layout
    run: PathBuf,
    /// The format
    #[arg(long, value_enum, default_value = "hf")]
    format: FormatName,
    /// Where to: a folder for hf, a file otherwise
    #[arg(long)]
    out: PathBuf,
    /// The newest checkpoint instead of the best one
    #[arg(long)]
    last: bool,
    /// How a GGUF stores matrices
    #[arg(long, value_enum, default_value = "f32")]
    matrices: MatricesName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ClassName {
    Interactive,
    Normal,
    Batch,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatName {
    Hf,
    Safetensors,
    Gguf,
    Pt,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MatricesName {
    F32,
    F16,
    Bf16,
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(arguments) => train(&arguments),
        Command::Export(arguments) => export(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Predict(arguments) => predict::predict(&arguments),
        Command::Resolve(arguments) => resolve::resolve(&arguments),
        Command::Find(arguments) => resolve::find_data(&arguments),
        Command::Manual(arguments) => manual::manual(&arguments),
    };
    done.unwrap_or_else(|error| {
        if matches!(error, RunError::Told) {
            return ExitCode::FAILURE;
        }
        eprintln!("llmasos-trainer: {error}");
        ExitCode::FAILURE
    })
}

fn train(arguments: &Run) -> Result<ExitCode, RunError> {
    crate::memory::keep();
    if arguments.idle || (!arguments.alone && arguments.class == ClassName::Batch) {
        // Before any other thread is there: they inherit it.
        place::idle().map_err(|error| RunError::Unfit(format!("--idle: {error}")))?;
    }
    let stop = Stop::default();
    signals::watch(&stop).map_err(|error| RunError::Unfit(format!("signals cannot be watched: {error}")))?;
    let spec = arguments.specification.read()?;
    let feed = match arguments.events {
        Some(fd) => Feed::on(fd).map_err(|error| RunError::Unfit(format!("--events {fd}: {error}")))?,
        None => Feed::none(),
    };
    let cache = arguments.cache.clone().unwrap_or_else(place::cache);
    match ranks::start(&Given { arguments, spec, cache, stop }, feed)? {
        End::Done | End::Early => Ok(ExitCode::SUCCESS),
        End::Signal(signal) => Ok(ExitCode::from(128 + signal as u8)),
    }
}

/// What all ranks of a run are given.
struct Given<'a> {
    arguments: &'a Run,
    spec: TrainSpec,
    cache: PathBuf,
    stop: Stop,
}

/// Trains as one rank of a mesh. The one that leads shows the run, and asks the daemon for turns: the others wait for it
/// in every step.
fn train_on(mesh: Arc<Mesh>, given: &Given<'_>, feed: Feed) -> Result<End, RunError> {
    let (arguments, stop, leads) = (given.arguments, given.stop.clone(), mesh.leads());
    let resume = arguments.resume || (arguments.go_on && !Folder::of(&given.spec.out).steps().is_empty());
    let setup = Setup::on(mesh, &given.spec, &given.cache, resume)?;
    let quiet = arguments.quiet || !leads;
    if !quiet && !arguments.dry_run {
        setup.passed.iter().for_each(|error| eprintln!("llmasos-trainer: {error}"));
    }
    let asks = leads && !arguments.alone;
    let turns = asks.then(|| turns(arguments, &stop)).transpose();
    // The others wait for the one that asks, and would wait for ever if it were refused alone.
    let (mut turns, mut always) = (together(setup.team.mesh().world(), turns)?, Always);
    let turn: &mut dyn Turn = match &mut turns {
        Some(turns) => turns,
        None => &mut always,
    };
    if !arguments.dry_run {
        return run(setup, Hooks { turn, stop, feed, quiet });
    }
    let expectation = expect(setup, turn)?;
    if leads {
        println!("{expectation}");
    }
    Ok(End::Done)
}

/// The run as a process of the daemon, where one listens.
fn turns(arguments: &Run, stop: &Stop) -> Result<Turns, RunError> {
    let socket = arguments.socket.clone().unwrap_or_else(paths::socket);
    let mut turns = Turns::new(socket, arguments.class.into(), arguments.nice, stop.clone());
    let refused = |fault: syscalls::Fault| RunError::Unfit(format!("the daemon refuses: {}", fault.message));
    turns.connect().map_err(refused)?;
    Ok(turns)
}

impl From<ClassName> for Class {
    fn from(name: ClassName) -> Class {
        match name {
            ClassName::Interactive => Class::Interactive,
            ClassName::Normal => Class::Normal,
            ClassName::Batch => Class::Batch,
        }
    }
}

fn export(arguments: &Export) -> Result<(), RunError> {
    let which = if arguments.last { Which::Newest } else { Which::Best };
    let trained = Trained::load(&arguments.run, which)?;
    let exported = Exported {
        config: &trained.config,
        weights: &trained.weights,
        tokeniser: &trained.tokeniser,
        name: &trained.name,
    };
    let format = match (arguments.format, arguments.matrices) {
        (FormatName::Hf, _) => Format::Hf,
        (FormatName::Safetensors, _) => Format::Safetensors,
        (FormatName::Pt, _) => Format::Pt,
        (FormatName::Gguf, MatricesName::F32) => Format::Gguf(Matrices::F32),
        (FormatName::Gguf, MatricesName::F16) => Format::Gguf(Matrices::F16),
        (FormatName::Gguf, MatricesName::Bf16) => Format::Gguf(Matrices::BF16),
    };
    Ok(exported.write(format, &arguments.out)?)
}
