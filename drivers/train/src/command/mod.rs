//! The program `llmasos-trainer`: its arguments, signals and exit codes.
//!
//! Exit codes: 0 when all steps are done, 1 for a failure, 2 for wrong usage, 128 + n when signal n ended the run, which
//! then has a checkpoint to go on from.

mod place;
mod signals;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::checkpoint::Folder;
use crate::export::{Exported, Format, Matrices};
use crate::run::{Always, End, Feed, Hooks, RunError, Setup, Stop, expect, run};
use crate::spec::TrainSpec;
use crate::token::Tokeniser;

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
}

#[derive(Debug, Args)]
struct Run {
    /// The specification, a RON file
    spec: PathBuf,
    /// Changes a part of it, such as optimiser.lr=1e-3; may be given often
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Goes on from the newest checkpoint in the run's folder
    #[arg(long)]
    resume: bool,
    /// Shows parameters, memory and time, and trains nothing
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,
    /// Writes what happens to this file descriptor, as JSON lines
    #[arg(long, value_name = "FD")]
    events: Option<i32>,
    /// Computes only when nothing else on the machine wants to
    #[arg(long)]
    idle: bool,
    /// Shows no progress
    #[arg(long, short)]
    quiet: bool,
    /// Where tokenised text and fetched data sets are kept
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Export {
    /// The folder of a run
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
    };
    done.unwrap_or_else(|error| {
        eprintln!("llmasos-trainer: {error}");
        ExitCode::FAILURE
    })
}

fn train(arguments: &Run) -> Result<ExitCode, RunError> {
    crate::memory::keep();
    if arguments.idle {
        // Before any other thread is there: they inherit it.
        place::idle().map_err(|error| RunError::Unfit(format!("--idle: {error}")))?;
    }
    let stop = Stop::default();
    signals::watch(&stop).map_err(|error| RunError::Unfit(format!("signals cannot be watched: {error}")))?;
    let spec = TrainSpec::load(&arguments.spec, &arguments.set)?;
    place::threads(spec.threads).map_err(RunError::Unfit)?;
    let feed = match arguments.events {
        Some(fd) => Feed::on(fd).map_err(|error| RunError::Unfit(format!("--events {fd}: {error}")))?,
        None => Feed::none(),
    };
    let cache = arguments.cache.clone().unwrap_or_else(place::cache);
    let setup = Setup::new(&spec, &cache, arguments.resume)?;
    if arguments.dry_run {
        println!("{}", expect(setup)?);
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.quiet {
        setup.passed.iter().for_each(|error| eprintln!("llmasos-trainer: {error}"));
    }
    let hooks = Hooks { turn: &mut Always, stop, feed, quiet: arguments.quiet };
    match run(setup, hooks)? {
        End::Done | End::Early => Ok(ExitCode::SUCCESS),
        End::Signal(signal) => Ok(ExitCode::from(128 + signal as u8)),
    }
}

fn export(arguments: &Export) -> Result<(), RunError> {
    let folder = Folder::of(&arguments.run);
    let checkpoint = match arguments.last {
        true => folder.newest()?.0,
        false => folder.best()?,
    };
    let tokeniser = Tokeniser::from_json(&checkpoint.tokeniser)?;
    let name = arguments.run.file_name().map(|name| name.to_string_lossy().into_owned());
    let exported = Exported {
        config: &checkpoint.config,
        weights: &checkpoint.weights,
        tokeniser: &tokeniser,
        name: name.as_deref().unwrap_or("model"),
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
