//! `summariser`: shortens texts to what matters.

use std::process::ExitCode;

use apps::{program, summariser};
use clap::Parser;

fn main() -> ExitCode {
    program::exit_code("summariser", summariser::run(&summariser::Args::parse()))
}
