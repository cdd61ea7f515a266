//! `snapshot`: keeps a context of a process under a name.

use clap::Parser;
use syscalls::reply::ContextView;
use syscalls::{ContextId, Pid};

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};

pub const BUILTIN: Builtin =
    Builtin { name: "snapshot", command: || arguments::command::<Args>("snapshot"), run: Run::Program(run) };

/// Keeps a context of a process under a name
///
/// The process is not disturbed: what is kept is the context as it is after the last step. It outlives the process, the
/// daemon and the mount of its model, and `restore NAME` goes on from there as often as one likes. A snapshot that has
/// the name already is replaced.
#[derive(Debug, Parser)]
struct Args {
    /// Which context, as `inspect` lists them [default: the only one that the process has]
    #[arg(long, short, value_name = "CONTEXT")]
    context: Option<u64>,
    /// The process, as `ps` lists it
    #[arg(value_name = "PID")]
    pid: Pid,
    /// The name
    name: String,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mut client = args.daemon.connect("snapshot")?;
    let contexts = client.inspect(args.pid)?.contexts;
    let context = choose(args.pid, &contexts, args.context.map(ContextId))?;
    client.snapshot(context, &args.name)?;
    Ok(0)
}

/// The context that is meant.
fn choose(pid: Pid, contexts: &[ContextView], wanted: Option<ContextId>) -> Result<ContextId, Failure> {
    let numbers = || contexts.iter().map(|c| c.context.to_string()).collect::<Vec<_>>().join(", ");
    match (contexts, wanted) {
        ([], _) => Err(Failure::Message(format!("process {pid} has no contexts"))),
        (all, Some(id)) if all.iter().any(|c| c.context == id) => Ok(id),
        (_, Some(id)) => {
            Err(Failure::Message(format!("process {pid} has no context {id}; it has {}", numbers())))
        }
        ([one], None) => Ok(one.context),
        (_, None) => Err(Failure::Usage(format!(
            "process {pid} has {} contexts; choose with --context one of {}",
            contexts.len(),
            numbers()
        ))),
    }
}
