//! `bg`: a stopped job goes on in the background.

use std::ffi::OsString;
use std::io::Write;

use clap::Parser;

use super::arguments::{self, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};
use crate::shell::{Shell, job};

pub const BUILTIN: Builtin =
    Builtin { name: "bg", command: || arguments::command::<Args>("bg"), run: Run::Shell(run) };

/// Lets a stopped job go on in the background
#[derive(Debug, Parser)]
struct Args {
    /// The job, as %1 [default: the one that was put away last]
    job: Option<OsString>,
}

fn run(shell: &mut Shell, invocation: &Invocation, out: &mut dyn Write) -> Outcome {
    let args: Args = invocation.parse()?;
    let id = shell.jobs.find(args.job.as_deref())?;
    if let Some(job) = shell.jobs.get_mut(id) {
        job.go_on().map_err(|e| Failure::Message(format!("job {id} cannot go on: {e}")))?;
        writeln!(out, "{}", job::line(job, job.state()))?;
    }
    Ok(0)
}
