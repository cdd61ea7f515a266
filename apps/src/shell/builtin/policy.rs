//! `policy`: how processes of one class share a model.

use clap::Parser;
use syscalls::call::Setpolicy;

use super::arguments::{self, Daemon, Invocation};
use super::{Builtin, Outcome, Run};
use crate::terminal::output::Output;

pub const BUILTIN: Builtin =
    Builtin { name: "policy", command: || arguments::command::<Args>("policy"), run: Run::Program(run) };

/// Shows the scheduling policy, or changes it
///
/// fifo serves in the order of the calls, rr in turns, fair by weighted service with a bound on the difference, mlfq
/// those first that have used little of late, edf by deadline. Classes stand above every policy. Only the
/// administrator changes it, and a restart of the daemon brings back the configured one.
#[derive(Debug, Parser)]
struct Args {
    /// fifo, rr, fair, mlfq or edf; the one of now is shown if left out
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mut client = args.daemon.connect("policy")?;
    match args.name {
        Some(policy) => drop(client.call(Setpolicy { policy })?),
        None => Output::stdout().write(&format!("{}\n", client.sysinfo()?.policy))?,
    }
    Ok(0)
}
