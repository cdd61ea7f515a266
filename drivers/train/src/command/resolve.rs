//! `resolve` and `find`: what a specification, or a name, means on this machine.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::place;
use crate::data::{Search, find};
use crate::run::RunError;
use crate::spec::{SpecError, TrainSpec};

#[derive(Debug, Args)]
pub(super) struct Resolve {
    /// The specification, a RON file
    #[arg(required_unless_present = "json")]
    spec: Option<PathBuf>,
    /// The specification itself, as JSON
    #[arg(long, value_name = "TEXT", conflicts_with = "spec")]
    json: Option<String>,
    /// Changes a part of it, such as optimiser.lr=1e-3; may be given often
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Where fetched data sets are kept
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Find {
    /// The name of a data set, such as wikitext-2
    name: String,
    /// Where fetched data sets are kept
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
}

/// Prints a specification as the call `train` takes it.
pub(super) fn resolve(arguments: &Resolve) -> Result<ExitCode, RunError> {
    let here = std::env::current_dir().map_err(RunError::io(Path::new(".")))?;
    let spec = specification(arguments.spec.as_deref(), arguments.json.as_deref(), &arguments.set)?;
    let spec = spec.resolved(&here, &search(&arguments.cache))?;
    println!("{}", serde_json::to_string(&spec).expect("a specification has a form in JSON"));
    Ok(ExitCode::SUCCESS)
}

/// The specification that a command line names or has, with its settings.
pub(super) fn specification(
    path: Option<&Path>,
    json: Option<&str>,
    settings: &[String],
) -> Result<TrainSpec, SpecError> {
    match path {
        Some(path) => TrainSpec::load(path, settings),
        None => TrainSpec::from_json(json.unwrap_or("{}"), "--json", settings),
    }
}

/// Prints the folder of a data set, which is fetched where it is not there.
pub(super) fn find_data(arguments: &Find) -> Result<ExitCode, RunError> {
    println!("{}", find(&arguments.name, &search(&arguments.cache))?.display());
    Ok(ExitCode::SUCCESS)
}

fn search(cache: &Option<PathBuf>) -> Search {
    Search::from_environment(&cache.clone().unwrap_or_else(place::cache))
}
