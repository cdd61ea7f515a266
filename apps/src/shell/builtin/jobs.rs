//! `jobs`: what runs in the background of this shell.

use std::io::Write;

use clap::Parser;

use super::arguments::{self, Invocation};
use super::{Builtin, Outcome, Run};
use crate::shell::{Shell, job};

pub const BUILTIN: Builtin =
    Builtin { name: "jobs", command: || arguments::command::<Args>("jobs"), run: Run::Shell(run) };

/// Lists the shell's jobs
#[derive(Debug, Parser)]
struct Args {}

fn run(shell: &mut Shell, invocation: &Invocation, out: &mut dyn Write) -> Outcome {
    let Args {} = invocation.parse()?;
    shell.jobs.look();
    for job in shell.jobs.iter() {
        writeln!(out, "{}", job::line(job, job.state()))?;
    }
    shell.jobs.forget_ended();
    Ok(0)
}
