//! `umount`: takes a model away.

use clap::Parser;

use super::arguments::{self, Daemon, Invocation};
use super::{Builtin, Outcome, Run};

pub const BUILTIN: Builtin =
    Builtin { name: "umount", command: || arguments::command::<Args>("umount"), run: Run::Program(run) };

/// Takes models away, with their memory
#[derive(Debug, Parser)]
struct Args {
    /// The names, as `models` lists them
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Ends the calls that use a model instead of refusing
    #[arg(long, short)]
    force: bool,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mut client = args.daemon.connect("umount")?;
    let mut status = 0;
    for name in args.names {
        if let Err(fault) = client.unmount(&name, args.force) {
            note!("umount: {}", fault.message);
            status = 1;
        }
    }
    Ok(status)
}
