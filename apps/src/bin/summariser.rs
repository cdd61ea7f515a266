//! `summariser`: shortens texts to what matters.

use std::process::ExitCode;

use apps::{program, summariser};

fn main() -> ExitCode {
    program::main("summariser", summariser::run)
}
