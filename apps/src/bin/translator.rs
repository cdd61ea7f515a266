//! `translator`: translates texts.

use std::process::ExitCode;

use apps::{program, translator};

fn main() -> ExitCode {
    program::main("translator", translator::run)
}
