//! `devices`: what models are loaded to, and who takes what of it.

use clap::Parser;
use serde::Serialize;
use syscalls::reply::{DeviceInfo, DeviceShare};

use super::arguments::{self, Daemon, Invocation};
use super::{Builtin, Outcome, Run};
use crate::terminal::output::Output;
use crate::terminal::table::{Align, Table};
use crate::terminal::units;

pub const BUILTIN: Builtin =
    Builtin { name: "devices", command: || arguments::command::<Args>("devices"), run: Run::Program(run) };

/// Lists devices, and what models take of their memory
///
/// A line for each device, and below it one for each model on it: bytes of weights, of the pool of KV entries, and
/// of buffers. The sums are what the mount was admitted with, before anything was loaded.
#[derive(Debug, Parser)]
struct Args {
    /// Prints {"devices":[…]}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// The form of `--json`.
#[derive(Serialize)]
struct Listed {
    devices: Vec<DeviceInfo>,
}

const COLUMNS: &[(&str, Align)] = &[
    ("DEVICE", Align::Left),
    ("MODEL", Align::Left),
    ("MEMORY", Align::Right),
    ("FREE", Align::Right),
    ("WEIGHTS", Align::Right),
    ("POOL", Align::Right),
    ("COMPUTE", Align::Right),
];

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let devices = args.daemon.connect("devices")?.sysinfo()?.devices;
    let mut output = Output::stdout();
    if args.json {
        output.write_json(&Listed { devices })?;
        return Ok(0);
    }
    let mut table = Table::new(COLUMNS);
    for device in &devices {
        table.row(of_device(device));
        device.shares.iter().for_each(|share| table.row(of_model(share)));
    }
    output.write(&table.show())?;
    Ok(0)
}

fn of_device(device: &DeviceInfo) -> [String; 7] {
    let sum = |of: fn(&DeviceShare) -> u64| units::bytes(device.shares.iter().map(of).sum());
    [
        device.name.clone(),
        String::new(),
        units::bytes(device.memory_bytes),
        units::bytes(device.free_bytes),
        sum(|s| s.weights_bytes),
        sum(|s| s.pool_bytes),
        sum(|s| s.compute_bytes),
    ]
}

fn of_model(share: &DeviceShare) -> [String; 7] {
    let name = if share.model.is_empty() { "(ending)" } else { &share.model };
    [
        String::new(),
        name.into(),
        units::bytes(share.weights_bytes + share.pool_bytes + share.compute_bytes),
        String::new(),
        units::bytes(share.weights_bytes),
        units::bytes(share.pool_bytes),
        units::bytes(share.compute_bytes),
    ]
}
