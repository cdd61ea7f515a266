//! `nice`: how soon a process gets the model.

use clap::Parser;
use syscalls::Pid;
use syscalls::call::{Class, Setpriority};
use syscalls::limits::{NICE_MAX, NICE_MIN};

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};

pub const BUILTIN: Builtin =
    Builtin { name: "nice", command: || arguments::command::<Args>("nice"), run: Run::Program(run) };

/// Changes the nice value and class of processes
///
/// A process of class realtime goes before one of interactive, that before normal, and batch gets what the
/// others leave. Inside a class the nice value weighs: each step towards -20 is about a quarter more.
#[derive(Debug, Parser)]
struct Args {
    /// From -20 (most) to 19 (least)
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i8).range(i64::from(NICE_MIN)..=i64::from(NICE_MAX)))]
    nice: Option<i8>,
    /// The scheduling class
    #[arg(short, long, value_parser = arguments::class())]
    class: Option<Class>,
    /// The processes, as `ps` lists them
    #[arg(required = true, value_name = "PID")]
    pids: Vec<Pid>,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    if args.nice.is_none() && args.class.is_none() {
        return Err(Failure::Usage("nothing to change; give -n N, --class CLASS or both".into()));
    }
    let mut client = args.daemon.connect("nice")?;
    let mut status = 0;
    for pid in args.pids {
        if let Err(fault) = client.call(Setpriority { pid, class: args.class, nice: args.nice }) {
            note!("nice: {}", fault.message);
            status = 1;
        }
    }
    Ok(status)
}
