//! `chat`: a conversation with a model.

use std::process::ExitCode;

use apps::{chat, program};

fn main() -> ExitCode {
    program::main("chat", chat::run)
}
