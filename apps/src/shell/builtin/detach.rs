//! `detach`: takes a process off its connection.

use clap::Parser;
use syscalls::Pid;

use super::arguments::{self, Daemon, Invocation};
use super::{Builtin, Outcome, Run};

pub const BUILTIN: Builtin =
    Builtin { name: "detach", command: || arguments::command::<Args>("detach"), run: Run::Program(run) };

/// Takes processes off their connections
///
/// They go on, and what they generate is kept until `attach`. A program whose own process is taken off loses its
/// connection.
#[derive(Debug, Parser)]
struct Args {
    /// The processes, as `ps` lists them
    #[arg(required = true, value_name = "PID")]
    pids: Vec<Pid>,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mut client = args.daemon.connect("detach")?;
    let mut status = 0;
    for pid in args.pids {
        if let Err(fault) = client.detach(Some(pid)) {
            note!("detach: {}", fault.message);
            status = 1;
        }
    }
    Ok(status)
}
