//! `make soak`: random operations of several clients for ten minutes, and what is left of them.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use harness::soak::{Setting, run};

/// By how much the daemon's memory may grow.
const GROWTH_PERCENT_MAX: f64 = 1.0;

/// Lets several clients do anything for some time, kills workers meanwhile, and looks for what is left
#[derive(Parser)]
struct Args {
    /// How long
    #[arg(long, default_value_t = 600, env = "SOAK_SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Rests at which everything is counted
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(4..))]
    rounds: u16,
    /// Clients at once
    #[arg(long, default_value_t = 6)]
    clients: usize,
    /// Begins with databases and a swap area that are empty, so that growth up to their bounds shows
    #[arg(long)]
    empty: bool,
    /// Chooses other operations
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let Args { clients, seed, empty, .. } = args;
    let (time, rounds) = (Duration::from_secs(args.seconds), usize::from(args.rounds));
    println!("seed {seed}: {clients} clients for {} seconds in {rounds} rounds", args.seconds);
    let report = run(Setting { time, rounds, clients, fill: !empty, seed });
    for (name, (done, refused)) in &report.operations {
        println!("{name:12} {done:8} done {refused:8} refused");
    }
    let (done, refused) = report.totals();
    println!("{done} operations, {refused} refused, {} tokens", report.tokens);
    println!("{} workers killed, {} models mounted and unmounted", report.workers_killed, report.mounts);
    println!("resident memory at rest, KiB: {:?}", report.resident_kib);
    println!("pages in the swap area, before and at rest: {:?}", report.pages);
    let growth = report.growth_percent();
    println!("memory growth {growth:.2} % (the last quarter of the rests beside the second)");
    report.leaks.iter().for_each(|leak| println!("left: {leak}"));
    println!("frames, contexts, processes, descriptors and children left: {}", report.leaks.len());
    let untried = report.untried();
    untried.iter().for_each(|what| println!("says nothing: {what}"));
    match report.leaks.is_empty() && growth < GROWTH_PERCENT_MAX && untried.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
