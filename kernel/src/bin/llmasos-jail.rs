//! The helper that becomes a program in the jail. The daemon starts it; nobody else has a use for it.

use std::process::ExitCode;

fn main() -> ExitCode {
    kernel::jail::helper::main()
}
