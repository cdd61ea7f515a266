//! `translator`: translates texts.

use std::process::ExitCode;

use apps::{program, translator};
use clap::Parser;

fn main() -> ExitCode {
    program::exit_code("translator", translator::run(&translator::Args::parse()))
}
