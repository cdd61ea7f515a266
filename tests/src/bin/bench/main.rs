//! `make bench`: what the daemon costs beside llama.cpp's own tools, measured in alternation in one run.
//!
//! The model has random weights: speed does not depend on what they say. Where llama.cpp's tools are not found,
//! the table has the daemon's own figures alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use harness::bench::machine::machine;
use harness::bench::models::model_file;
use harness::bench::ours;
use harness::bench::peer::{Cells, Flash, Peer, Single};
use harness::bench::report::{self, Line};
use harness::flood::{CONNECTIONS, Flood};
use harness::{Daemon, STRICT_VAR};

/// Measures llmasos against llama-bench and llama-batched-bench.
#[derive(Parser)]
struct Args {
    /// The shape of the model, as `make-model` knows it.
    #[arg(long, default_value = "0.5b")]
    preset: String,
    /// The types of its weights.
    #[arg(long, value_delimiter = ',', default_value = "q8_0,q4_0")]
    types: Vec<String>,
    /// Runs of each measurement.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Threads of both sides.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Processes at once.
    #[arg(long, value_delimiter = ',', default_value = "8,32")]
    processes: Vec<u32>,
    /// What to measure.
    #[arg(long, value_delimiter = ',', default_value = "system,flood,single,batched")]
    only: Vec<Part>,
    /// Where generated models are kept.
    #[arg(long, default_value = "target/bench-models")]
    models: PathBuf,
}

/// A part of the bench.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The daemon without a model.
    System,
    /// A polite client beside a thousand rude ones.
    Flood,
    /// One stream alone.
    Single,
    /// Many streams at once.
    Batched,
}

/// Prompt and generated tokens of the single stream.
const SINGLE: (u32, u32) = (512, 64);
/// Prompt and generated tokens of each of many streams.
const BATCHED: (u32, u32) = (64, 64);
/// Calls of the null call's median.
const NULL_CALLS: usize = 20_000;
/// Windows of quiet, and as many of a flood, in turns; and null calls in each.
const FLOOD_WINDOWS: usize = 5;
const FLOOD_CALLS: usize = 10_000;
/// What the slowest calls may take beside a flood, of what they take in quiet.
const FLOOD_RATIO_MAX: f64 = 2.0;
/// How long the idle daemon is watched.
const IDLE_WATCH: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let args = Args::parse();
    let peer = Peer::find(args.threads);
    if peer.is_none() {
        eprintln!("bench: llama-bench is not found; set LLMASOS_PEER_BIN to the folder of llama.cpp's tools");
    }
    let mut lines = Vec::new();
    let daemon = Daemon::start();
    if args.only.contains(&Part::System) {
        system(&daemon, &mut lines)?;
    }
    if args.only.contains(&Part::Flood) {
        flood(&daemon, &mut lines)?;
    }
    let with_model = args.only.contains(&Part::Single) || args.only.contains(&Part::Batched);
    for weights in args.types.iter().filter(|_| with_model) {
        let model = model_file(&args.models, &args.preset, weights, None)?;
        if args.only.contains(&Part::Single) {
            single(&args, &daemon, peer.as_ref(), &model, weights, &mut lines)?;
        }
        if args.only.contains(&Part::Batched) {
            batched(&args, &daemon, peer.as_ref(), &model, weights, &mut lines)?;
        }
    }
    println!("machine: {}", machine());
    report::print(&lines);
    Ok(())
}

fn system(daemon: &Daemon, lines: &mut Vec<Line>) -> Result<()> {
    let (resident, percent) = ours::idle(daemon, IDLE_WATCH)?;
    let calls = ours::null_calls(daemon, NULL_CALLS)?;
    let mut alone = |what: &str, value: f64, unit, target| {
        lines.push(Line { what: what.into(), ours: vec![value], peer: Vec::new(), unit, target });
    };
    alone("idle daemon, resident", resident, "MiB", "< 30");
    alone("idle daemon, processor", percent, "%", "0");
    alone("null call, median", report::median(&calls), "µs", "< 50");
    alone("null call, p99", calls[calls.len() * 99 / 100], "µs", "");
    Ok(())
}

/// The same calls in quiet and in a flood, in turns.
fn flood(daemon: &Daemon, lines: &mut Vec<Line>) -> Result<()> {
    let (mut quiet, mut flooded) = (Vec::new(), Vec::new());
    let p99 = |calls: Vec<f64>| calls[calls.len() * 99 / 100];
    for window in 0..FLOOD_WINDOWS {
        progress(&format!("flood: window {} of {FLOOD_WINDOWS}", window + 1));
        quiet.push(p99(ours::null_calls(daemon, FLOOD_CALLS)?));
        let flood = Flood::begin(&daemon.socket(), CONNECTIONS);
        flooded.push(p99(ours::null_calls(daemon, FLOOD_CALLS)?));
        flood.end();
    }
    let ratio = report::median(&flooded) / report::median(&quiet);
    println!(
        "figure: socket flood: null call p99 {ratio:.2} × that in quiet, {CONNECTIONS} rude connections"
    );
    let mut alone = |what: &str, values: Vec<f64>, unit, target| {
        lines.push(Line { what: what.into(), ours: values, peer: Vec::new(), unit, target });
    };
    alone("null call, p99, in quiet", quiet, "µs", "");
    alone("null call, p99, beside 1,000 rude connections", flooded, "µs", "");
    alone("the latter of the former", vec![ratio], "×", "≤ 2");
    let insists = std::env::var_os(STRICT_VAR).is_some();
    ensure!(
        !insists || ratio <= FLOOD_RATIO_MAX,
        "the p99 is {ratio:.2} times that in quiet; 2 times is promised"
    );
    Ok(())
}

fn single(
    args: &Args,
    daemon: &Daemon,
    peer: Option<&Peer>,
    model: &Path,
    weights: &str,
    lines: &mut Vec<Line>,
) -> Result<()> {
    let (prompt, generate) = SINGLE;
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for run in 0..args.runs {
        progress(&format!("{weights}: one stream, run {} of {}", run + 1, args.runs));
        if let Some(peer) = peer {
            let plain = peer.single(model, prompt, generate, Flash::Off)?;
            let flash = peer.single(model, prompt, generate, Flash::On)?;
            peers.push((plain, flash));
        }
        ours::mount(daemon, model, 2 * (prompt + generate), args.threads)?;
        ours.push(ours::single(daemon, prompt, generate)?);
        ours::unmount(daemon)?;
    }
    for (flash, name) in [(Flash::Off, "plain"), (Flash::On, "flash")] {
        let of = |pair: &(Single, Single)| if flash == Flash::On { pair.1 } else { pair.0 };
        lines.push(Line {
            what: format!("{} {weights}: prefill {prompt} (llama-bench {name})", args.preset),
            ours: ours.iter().map(|s| s.prefill).collect(),
            peer: peers.iter().map(|p| of(p).prefill).collect(),
            unit: "tokens/s",
            target: "≥ 0.97",
        });
        lines.push(Line {
            what: format!("{} {weights}: decode {generate} (llama-bench {name})", args.preset),
            ours: ours.iter().map(|s| s.decode).collect(),
            peer: peers.iter().map(|p| of(p).decode).collect(),
            unit: "tokens/s",
            target: "≥ 0.97",
        });
    }
    Ok(())
}

fn batched(
    args: &Args,
    daemon: &Daemon,
    peer: Option<&Peer>,
    model: &Path,
    weights: &str,
    lines: &mut Vec<Line>,
) -> Result<()> {
    let (prompt, generate) = BATCHED;
    let settings = [
        ((Flash::On, Cells::Unified), "flash, unified"),
        ((Flash::Off, Cells::Unified), "plain, unified"),
        ((Flash::On, Cells::Split), "flash, split"),
        ((Flash::Off, Cells::Split), "plain, split"),
    ];
    for &processes in &args.processes {
        let mut ours = Vec::new();
        let mut peers = vec![Vec::new(); settings.len()];
        for run in 0..args.runs {
            progress(&format!("{weights}: {processes} streams, run {} of {}", run + 1, args.runs));
            if let Some(peer) = peer {
                for (speeds, (setting, _)) in peers.iter_mut().zip(settings) {
                    speeds.push(peer.batched(model, processes, prompt, generate, setting)?);
                }
            }
            ours::mount(daemon, model, processes * (prompt + generate), args.threads)?;
            ours.push(ours::batched(daemon, processes, prompt, generate)?);
            ours::unmount(daemon)?;
        }
        for (peer, (_, name)) in peers.into_iter().zip(settings) {
            lines.push(Line {
                what: format!(
                    "{} {weights}: {processes} × ({prompt} in, {generate} out) (llama-batched-bench {name})",
                    args.preset
                ),
                ours: ours.clone(),
                peer,
                unit: "tokens/s",
                target: "≥ 1",
            });
        }
    }
    Ok(())
}

fn progress(what: &str) {
    eprintln!("bench: {what}");
}
