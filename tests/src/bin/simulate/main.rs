//! `make simulate`: the kernel's core in virtual time.

mod compare;
mod idle;
mod memory;
mod scale;

use anyhow::Result;
use clap::Parser;

/// Runs the kernel's core in virtual time, on simulated devices, under real and synthetic loads
///
/// The core is the daemon's own; the devices, the clients and the time are simulated. The same arguments give the
/// same results, but for those that say how long the core itself takes.
#[derive(Parser)]
#[command(name = "simulate")]
enum Command {
    Compare(compare::Args),
    Idle(idle::Args),
    Scale(scale::Args),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Compare(args) => compare::run(&args),
        Command::Idle(args) => idle::run(&args),
        Command::Scale(args) => scale::run(&args),
    }
}
