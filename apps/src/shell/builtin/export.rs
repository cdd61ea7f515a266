//! `export`: variables for programs.

use std::io::Write;

use clap::Parser;

use super::arguments::{self, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};
use crate::shell::Shell;
use crate::shell::syntax::is_name;

pub const BUILTIN: Builtin =
    Builtin { name: "export", command: || arguments::command::<Args>("export"), run: Run::Shell(run) };

/// Gives variables to the programs that are started from now on
#[derive(Debug, Parser)]
struct Args {
    /// NAME, or NAME=value; without any, lists those that were exported here
    variables: Vec<String>,
}

fn run(shell: &mut Shell, invocation: &Invocation, out: &mut dyn Write) -> Outcome {
    let args: Args = invocation.parse()?;
    if args.variables.is_empty() {
        for (name, value) in shell.variables.exported() {
            writeln!(out, "{name}={value}")?;
        }
    }
    for variable in args.variables {
        let (name, value) = match variable.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (variable.as_str(), None),
        };
        if !is_name(name) {
            return Err(Failure::Usage(format!(
                "`{name}` cannot name a variable; use letters, digits and _"
            )));
        }
        if let Some(value) = value {
            shell.variables.set(name, value.to_owned());
        }
        shell.variables.export(name);
    }
    Ok(0)
}
