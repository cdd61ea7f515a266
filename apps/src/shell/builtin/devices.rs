//! `devices`: what models are loaded to, and who takes what of it.

use clap::Parser;
use syscalls::reply::{DeviceInfo, DeviceShare};

use super::arguments::{self, Daemon, Invocation};
use super::listing::Listing;
use super::{Builtin, Outcome, Run};
use crate::terminal::table::Align;
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

const LISTING: Listing<7> = Listing {
    field: "devices",
    columns: [
        ("DEVICE", Align::Left),
        ("MODEL", Align::Left),
        ("MEMORY", Align::Right),
        ("FREE", Align::Right),
        ("WEIGHTS", Align::Right),
        ("POOL", Align::Right),
        ("COMPUTE", Align::Right),
    ],
};

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let devices = args.daemon.connect("devices")?.sysinfo()?.devices;
    LISTING.print(args.json, &devices, || devices.iter().flat_map(with_models).collect())?;
    Ok(0)
}

fn with_models(device: &DeviceInfo) -> impl Iterator<Item = [String; 7]> {
    std::iter::once(of_device(device)).chain(device.shares.iter().map(of_model))
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
