//! `qa`: answers questions from documents.

use std::process::ExitCode;

use apps::{program, qa};

fn main() -> ExitCode {
    program::main("qa", qa::run)
}
