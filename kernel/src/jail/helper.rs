//! The helper's command line: what it is to become, and within which bounds.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::{Orders, enter};

/// The helper's name. The daemon's executable is the helper where it is called by this name.
pub const NAME: &str = "llmasos-jail";

/// The exit status where the program was not started, as of `env` and shells.
const NOT_STARTED: u8 = 126;

#[derive(Parser)]
#[command(name = NAME, version, about = "Runs a program for the llmasos daemon, with little in its reach")]
struct Arguments {
    /// What it may reach, as JSON
    #[arg(long, value_parser = orders)]
    orders: Orders,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

fn orders(json: &str) -> Result<Orders, String> {
    serde_json::from_str(json).map_err(|e| e.to_string())
}

/// Becomes the program, or says why not.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some((program, rest)) = arguments.program.split_first() else { return ExitCode::from(NOT_STARTED) };
    let Err(error) = enter(&arguments.orders, program, rest);
    eprintln!("{NAME}: {error}");
    ExitCode::from(NOT_STARTED)
}
