//! `chat`: a conversation with a model.

use std::process::ExitCode;

use apps::{chat, program};
use clap::Parser;

fn main() -> ExitCode {
    program::exit_code("chat", chat::run(&chat::Args::parse()))
}
