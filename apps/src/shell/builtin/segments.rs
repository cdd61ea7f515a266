//! `segments`: what contexts can begin with.

use clap::Parser;
use syscalls::reply::SegmentInfo;

use super::arguments::{self, Daemon, Invocation};
use super::listing::Listing;
use super::{Builtin, Outcome, Run};
use crate::terminal::table::Align;

pub const BUILTIN: Builtin =
    Builtin { name: "segments", command: || arguments::command::<Args>("segments"), run: Run::Program(run) };

/// Lists shared segments, which contexts can begin with
#[derive(Debug, Parser)]
struct Args {
    /// Prints {"segments":[…]} with every field
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

const LISTING: Listing<5> = Listing {
    field: "segments",
    columns: [
        ("NAME", Align::Left),
        ("MODEL", Align::Left),
        ("UID", Align::Right),
        ("MODE", Align::Right),
        ("TOKENS", Align::Right),
    ],
};

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let segments = args.daemon.connect("segments")?.segments()?;
    if segments.is_empty() && !args.json {
        note!("segments: there are none; make one with `{}share NAME TEXT`", invocation.prefix);
        return Ok(0);
    }
    LISTING.print(args.json, &segments, || segments.iter().map(cells).collect())?;
    Ok(0)
}

fn cells(segment: &SegmentInfo) -> [String; 5] {
    [
        segment.name.clone(),
        segment.model.clone(),
        segment.uid.to_string(),
        format!("{:03o}", segment.mode),
        segment.length.to_string(),
    ]
}
