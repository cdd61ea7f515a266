//! `fg`: a job to the foreground.

use std::ffi::OsString;
use std::io::Write;

use clap::Parser;

use super::arguments::{self, Invocation};
use super::{Builtin, Outcome, Run};
use crate::shell::Shell;

pub const BUILTIN: Builtin =
    Builtin { name: "fg", command: || arguments::command::<Args>("fg"), run: Run::Shell(run) };

/// Brings a job to the foreground and waits for it
#[derive(Debug, Parser)]
struct Args {
    /// The job, as %1 [default: the one that was put away last]
    job: Option<OsString>,
}

fn run(shell: &mut Shell, invocation: &Invocation, out: &mut dyn Write) -> Outcome {
    let args: Args = invocation.parse()?;
    let id = shell.jobs.find(args.job.as_deref())?;
    if let Some(job) = shell.jobs.get_mut(id) {
        writeln!(out, "{}", job.text)?;
        out.flush()?;
    }
    Ok(shell.job_to_foreground(id))
}
