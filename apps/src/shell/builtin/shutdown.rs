//! `shutdown`: ends the daemon.

use std::time::Duration;

use clap::Parser;
use syscalls::Errno;

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};

pub const BUILTIN: Builtin =
    Builtin { name: "shutdown", command: || arguments::command::<Args>("shutdown"), run: Run::Program(run) };

/// How long the daemon may take to end its workers.
const END_MAX: Duration = Duration::from_secs(10);

/// Ends the daemon, with its workers and every call that runs
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mut client = args.daemon.connect("shutdown")?;
    match client.shutdown() {
        // The daemon may be gone before its answer is read.
        Err(fault) if fault.errno != Errno::ECONNRESET => return Err(fault.into()),
        _ => {}
    }
    client.set_timeout(Some(END_MAX))?;
    loop {
        match client.next_frame() {
            Ok(_) => {}
            Err(fault) if fault.errno == Errno::ETIMEDOUT => {
                return Err(Failure::Message(format!("the daemon did not end within {END_MAX:?}; see its log")));
            }
            Err(_) => return Ok(0),
        }
    }
}
