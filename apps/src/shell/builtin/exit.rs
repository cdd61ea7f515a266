//! `exit`: leaves the shell.

use std::io::Write;

use clap::Parser;

use super::arguments::{self, Invocation};
use super::{Builtin, Outcome, Run};
use crate::shell::Shell;

pub const BUILTIN: Builtin =
    Builtin { name: "exit", command: || arguments::command::<Args>("exit"), run: Run::Shell(run) };

/// Leaves the shell
#[derive(Debug, Parser)]
struct Args {
    /// The exit status [default: that of the last command]
    status: Option<u8>,
}

fn run(shell: &mut Shell, invocation: &Invocation, _: &mut dyn Write) -> Outcome {
    let args: Args = invocation.parse()?;
    let status = args.status.unwrap_or(shell.variables.status);
    shell.leave(status);
    Ok(status)
}
