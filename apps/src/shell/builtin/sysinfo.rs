//! `sysinfo`: the machine and the daemon.

use std::time::Duration;

use clap::Parser;

use super::arguments::{self, Daemon, Invocation};
use super::{Builtin, Outcome, Run};
use crate::terminal::output::Output;
use crate::terminal::units;

pub const BUILTIN: Builtin =
    Builtin { name: "sysinfo", command: || arguments::command::<Args>("sysinfo"), run: Run::Program(run) };

/// Describes the machine and the daemon
#[derive(Debug, Parser)]
struct Args {
    /// Prints one object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let info = args.daemon.connect("sysinfo")?.sysinfo()?;
    let mut output = Output::stdout();
    if args.json {
        output.write_json(&info)?;
        return Ok(0);
    }
    let rows = [
        ("daemon", format!("llmasos {}, process {}", info.daemon, info.os_pid)),
        ("uptime", units::duration(Duration::from_millis(info.uptime_ms))),
        ("socket", info.socket),
        ("data", info.data),
        ("policy", info.policy),
        ("jail", info.jail),
        ("cpu", format!("{} ({} usable)", info.cpu, info.cpus)),
        ("memory", units::bytes(info.memory_bytes)),
    ];
    let devices = info.devices.iter().map(|d| {
        let (free, all) = (units::bytes(d.free_bytes), units::bytes(d.memory_bytes));
        ("device", format!("{}, {free} of {all} free for models", d.name))
    });
    for (name, value) in rows.into_iter().chain(devices) {
        output.write(&format!("{name:<8}{value}\n"))?;
    }
    Ok(0)
}
