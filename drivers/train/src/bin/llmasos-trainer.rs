//! The training program. All that it does is in the library `train`.

use std::process::ExitCode;

fn main() -> ExitCode {
    train::command::main()
}
