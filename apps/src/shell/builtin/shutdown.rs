//! `shutdown`: ends the daemon.

use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use syscalls::Errno;
use syscalls::client::blocking::Client;

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};

pub const BUILTIN: Builtin =
    Builtin { name: "shutdown", command: || arguments::command::<Args>("shutdown"), run: Run::Program(run) };

/// How long the daemon may take to end its workers.
const END_MAX: Duration = Duration::from_secs(10);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Ends the daemon, with its workers and every call that runs
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    // Which socket is meant depends on which ones there are, so it is settled once.
    let socket = args.daemon.path();
    let connect = || Client::connect(&socket, "shutdown");
    let mut client = connect()?;
    match client.shutdown() {
        // The daemon may be gone before its answer is read.
        Err(fault) if fault.errno != Errno::ECONNRESET => return Err(fault.into()),
        _ => {}
    }
    // Whoever starts a daemon next must find the socket free, so a closed connection is not enough.
    let begin = Instant::now();
    while connect().is_ok() || socket.exists() {
        if begin.elapsed() > END_MAX {
            return Err(Failure::Message(format!(
                "the daemon has not ended within {END_MAX:?}; see its log"
            )));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(0)
}
