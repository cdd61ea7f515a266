//! `simulate scale`: very many processes and contexts, for hours of virtual time.

use std::time::Instant;

use anyhow::Result;
use harness::sim::calibration::Device;
use harness::sim::chance::Chance;
use harness::sim::load::{Act, Load, Part, Task, clients};
use harness::sim::probe::quantile_us;
use harness::sim::run::{Setting, run as run_load};
use syscalls::call::Class;

use super::memory::live_bytes;

/// Runs ten thousand processes with a million contexts for hours of virtual time
///
/// Each process opens contexts over the whole time, has a short answer made in each, and keeps all of them.
#[derive(clap::Args)]
pub struct Args {
    /// Processes
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    processes: usize,
    /// Contexts of each process
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    contexts: u32,
    /// Tokens of each prompt
    #[arg(long, default_value_t = 32, value_name = "N")]
    prompt: u32,
    /// Tokens of each answer
    #[arg(long, default_value_t = 4, value_name = "N")]
    answer: u32,
    /// Models, each on a device of its own
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    models: u32,
    /// Hours over which contexts are opened
    #[arg(long, default_value_t = 3.0, value_name = "N")]
    hours: f64,
    /// How many times faster than the measured machine each device is
    #[arg(long, default_value_t = 2.0, value_name = "FACTOR")]
    speed: f64,
    /// The seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs, and says what it took.
pub fn run(args: &Args) -> Result<()> {
    let begin = Instant::now();
    let load = load(args);
    let setting = Setting {
        device: Device { speed: args.speed, context_tokens: 1024, ..Device::default() },
        models: args.models as usize,
        seed: args.seed,
        ..Setting::default()
    };
    let before = live_bytes();
    let (report, probe) = run_load::<Vec<u8>>(&load, &setting, None)?;
    let contexts = args.processes * args.contexts as usize;
    println!(
        "| processes | contexts | virtual hours | wall, s | core, s | events | steps | step p50 · p99, µs | call p50 · p99, µs |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let times = |of| format!("{:.1} · {:.1}", quantile_us(of, 0.5), quantile_us(of, 0.99));
    println!(
        "| {} | {contexts} | {:.1} | {:.0} | {:.1} | {} | {} | {} | {} |",
        args.processes,
        report.measure.seconds() / 3600.0,
        begin.elapsed().as_secs_f64(),
        probe.total_ns as f64 / 1e9,
        probe.events,
        probe.steps.len(),
        times(&probe.steps),
        times(&probe.calls),
    );
    let kept = live_bytes().saturating_sub(before) >> 20;
    eprintln!(
        "simulate: {} answers, {} failed, fairness {:.3}; {kept} MiB are kept when all have gone",
        report.answers,
        report.failed.values().sum::<u64>(),
        report.fairness
    );
    Ok(())
}

fn load(args: &Args) -> Load {
    let pause = args.hours * 3600e6 / f64::from(args.contexts);
    let task = |client: usize| {
        let mut chance = Chance::of(args.seed, client as u64);
        let mut acts = Vec::with_capacity(4 * args.contexts as usize);
        for _ in 0..args.contexts {
            let prompt = Part { seed: chance.bits(), tokens: args.prompt };
            acts.push(Act::Think(chance.exponential(pause) as u64));
            acts.extend([Act::Open, Act::Append(vec![prompt]), Act::Generate(args.answer)]);
        }
        Task { at_us: 0, client, acts }
    };
    let tasks = (0..args.processes).map(task).collect();
    Load::new("scale".into(), clients(args.processes, "client", Class::Normal), tasks)
}
