//! `qa`: answers questions from documents.

use std::process::ExitCode;

use apps::{program, qa};
use clap::Parser;

fn main() -> ExitCode {
    program::exit_code("qa", qa::run(&qa::Args::parse()))
}
