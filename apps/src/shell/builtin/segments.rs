//! `segments`: what contexts can begin with.

use clap::Parser;
use serde::Serialize;
use syscalls::Reply;
use syscalls::call::Segments;
use syscalls::reply::SegmentInfo;

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};
use crate::terminal::output::Output;
use crate::terminal::table::{Align, Table};

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

/// The form of `--json`.
#[derive(Serialize)]
struct Listed {
    segments: Vec<SegmentInfo>,
}

const COLUMNS: &[(&str, Align)] = &[
    ("NAME", Align::Left),
    ("MODEL", Align::Left),
    ("UID", Align::Right),
    ("MODE", Align::Right),
    ("TOKENS", Align::Right),
];

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let Reply::Segments(segments) = args.daemon.connect("segments")?.call(Segments {})? else {
        return Err(Failure::Message("the daemon answered with the reply of another call".into()));
    };
    let mut output = Output::stdout();
    if args.json {
        output.write_json(&Listed { segments })?;
        return Ok(0);
    }
    if segments.is_empty() {
        eprintln!("segments: there are none; make one with `{}share NAME TEXT`", invocation.prefix);
        return Ok(0);
    }
    let mut table = Table::new(COLUMNS);
    for s in segments {
        table.row([s.name, s.model, s.uid.to_string(), format!("{:03o}", s.mode), s.length.to_string()]);
    }
    output.write(&table.show())?;
    Ok(0)
}
