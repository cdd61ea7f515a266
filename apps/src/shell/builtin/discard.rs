//! `discard`: removes snapshots.

use clap::Parser;

use super::arguments::{self, Daemon, Invocation};
use super::{Builtin, Outcome, Run};

pub const BUILTIN: Builtin =
    Builtin { name: "discard", command: || arguments::command::<Args>("discard"), run: Run::Program(run) };

/// Removes snapshots
///
/// Contexts that were opened from them keep what they have.
#[derive(Debug, Parser)]
struct Args {
    /// Their names, as `snapshots` lists them
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mut client = args.daemon.connect("discard")?;
    let mut status = 0;
    for name in args.names {
        if let Err(fault) = client.discard(&name) {
            note!("discard: {}", fault.message);
            status = 1;
        }
    }
    Ok(status)
}
