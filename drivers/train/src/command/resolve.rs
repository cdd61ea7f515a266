//! `resolve` and `find`: what a specification, or a name, means on this machine.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::place;
use crate::data::{Search, find};
use crate::run::RunError;
use crate::spec::{SpecError, TrainSpec};

/// A specification, as a command line names or has it.
#[derive(Debug, Args)]
pub(super) struct Specification {
    /// The specification, a RON file
    #[arg(required_unless_present = "json")]
    spec: Option<PathBuf>,
    /// The specification itself, as JSON
    #[arg(long, value_name = "TEXT", conflicts_with = "spec")]
    json: Option<String>,
    /// Changes a part of it, such as optimiser.lr=1e-3; may be given often
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl Specification {
    /// Reads it, with its settings.
    pub(super) fn read(&self) -> Result<TrainSpec, SpecError> {
        match &self.spec {
            Some(path) => TrainSpec::load(path, &self.set),
            None => TrainSpec::from_json(self.json.as_deref().unwrap_or("{}"), "--json", &self.set),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Resolve {
    #[command(flatten)]
    specification: Specification,
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
    let spec = arguments.specification.read()?.resolved(&here, &search(&arguments.cache))?;
    let json = serde_json::to_string(&spec).map_err(|error| {
        // Paths are the only parts that may have none.
        RunError::Unfit(format!("{error}; start it in a folder, and name folders, whose names are UTF-8"))
    })?;
    println!("{json}");
    Ok(ExitCode::SUCCESS)
}

/// Prints the folder of a data set, which is fetched where it is not there.
pub(super) fn find_data(arguments: &Find) -> Result<ExitCode, RunError> {
    println!("{}", find(&arguments.name, &search(&arguments.cache))?.display());
    Ok(ExitCode::SUCCESS)
}

fn search(cache: &Option<PathBuf>) -> Search {
    Search::from_environment(&cache.clone().unwrap_or_else(place::cache))
}
