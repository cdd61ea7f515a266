//! `snapshots`: what `restore` can go on from.

use clap::Parser;
use syscalls::reply::SnapshotInfo;

use super::arguments::{self, Daemon, Invocation};
use super::listing::Listing;
use super::{Builtin, Outcome, Run};
use crate::terminal::table::Align;

pub const BUILTIN: Builtin = Builtin {
    name: "snapshots",
    command: || arguments::command::<Args>("snapshots"),
    run: Run::Program(run),
};

/// Lists the contexts that are kept under names
#[derive(Debug, Parser)]
struct Args {
    /// Prints {"snapshots":[…]} with every field
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

const LISTING: Listing<3> = Listing {
    field: "snapshots",
    columns: [("NAME", Align::Left), ("MODEL", Align::Left), ("TOKENS", Align::Right)],
};

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let snapshots = args.daemon.connect("snapshots")?.snapshots()?;
    if snapshots.is_empty() && !args.json {
        note!("snapshots: there are none; make one with `{}snapshot PID NAME`", invocation.prefix);
        return Ok(0);
    }
    LISTING.print(args.json, &snapshots, || snapshots.iter().map(cells).collect())?;
    Ok(0)
}

fn cells(snapshot: &SnapshotInfo) -> [String; 3] {
    [snapshot.name.clone(), snapshot.model.clone(), snapshot.length.to_string()]
}
