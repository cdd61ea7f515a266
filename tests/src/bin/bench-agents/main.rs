//! `make bench-agents`: many processes on one model, beside `llama-server`.
//!
//! Both sides have the same model file, threads and KV types, and take turns within one run; each starts with
//! nothing cached. The server is measured as it comes and as it is set best for each case. The model has random
//! weights. Targets are for reading: what is not reached does not fail the run, but what could not be measured does.

mod cases;
mod check;
mod figures;
mod http;
mod interrupt;
mod llmasos;
mod server;
mod side;
mod system;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use cases::Case;
use clap::Parser;
use figures::Figures;
use harness::Daemon;
use harness::bench::machine::machine;
use harness::bench::models::model_file;
use harness::bench::peer::Peer;
use server::Installed;
use side::{Ground, Kind, Side};
use table::{Measured, Setup};

/// Positions of the models: the longest case has 8,192 tokens and streams beside them.
const POSITIONS: u32 = 32_768;

/// The exit code of a program that SIGINT has ended, as shells have it.
const INTERRUPTED: u8 = 130;

/// Measures llmasos against llama-server with many processes on one model.
#[derive(Parser)]
#[command(name = "bench-agents")]
struct Args {
    /// Shapes of the model, as `make-model` knows them [default: 0.5b,30m, or 30m with --quick]
    #[arg(long, value_delimiter = ',')]
    model: Vec<String>,
    /// The type of its weights
    #[arg(long, default_value = "q8_0")]
    weights: String,
    /// Cases to measure: W1, W2, W3, W3b, W4, W5, W6, batched, fairness; all if absent
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Runs of each row; the table has the medians
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Shorter prompts and answers, for a look that takes minutes
    #[arg(long)]
    quick: bool,
    /// Measures the server with more settings, to find the best ones
    #[arg(long)]
    search: bool,
    /// Measures llmasos alone
    #[arg(long)]
    alone: bool,
    /// Threads of both sides
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Processes of each row that say it again alone, to compare; 0 for none
    #[arg(long, default_value_t = 2)]
    compare: usize,
    /// Where prompts and arrival times come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes everything that was measured to this file, as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where generated models are kept
    #[arg(long, default_value = "target/bench-models")]
    models: PathBuf,
}

impl Args {
    fn presets(&self) -> Vec<String> {
        let default: &[&str] = if self.quick { &["30m"] } else { &["0.5b", "30m"] };
        match self.model.is_empty() {
            true => default.iter().map(|&preset| preset.into()).collect(),
            false => self.model.clone(),
        }
    }

    fn cases(&self) -> Result<Vec<Box<dyn Case>>> {
        let all = cases::all(self.quick);
        let names: Vec<&str> = all.iter().map(|case| case.name()).collect();
        if let Some(unknown) =
            self.only.iter().find(|only| !names.iter().any(|n| n.eq_ignore_ascii_case(only)))
        {
            bail!("no case `{unknown}`; there are {}", names.join(", "));
        }
        let wanted =
            |name: &str| self.only.is_empty() || self.only.iter().any(|only| name.eq_ignore_ascii_case(only));
        Ok(all.into_iter().filter(|case| wanted(case.name())).collect())
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let (cases, presets) = (args.cases()?, args.presets());
    interrupt::watch()?;
    let peer = if args.alone { None } else { Peer::find(args.threads) };
    if peer.is_none() && !args.alone {
        eprintln!(
            "bench: llama-server is not found; set LLMASOS_PEER_BIN to the folder of llama.cpp's programs"
        );
    }
    let daemon = Daemon::start();
    let registered = interrupt::register(daemon.os_pid());
    let mut measured = Vec::new();
    println!(
        "{}; {} threads on each side, {} weights, seed {}",
        machine(),
        args.threads,
        args.weights,
        args.seed
    );
    for preset in &presets {
        let model = model_file(&args.models, preset, &args.weights, Some(POSITIONS))?;
        let installed = peer.as_ref().and_then(|peer| peer.program("llama-server"));
        let server = installed.map(|program| Installed {
            program,
            log: daemon.dir().join("llama-server.log"),
            threads: args.threads,
        });
        let ground =
            Ground { daemon: &daemon, model: &model, positions: POSITIONS, threads: args.threads, server };
        for case in &cases {
            let rows = measure(&args, &ground, peer.as_ref(), case.as_ref(), preset);
            rows.print();
            measured.push(rows);
            if interrupt::happened() {
                eprintln!("bench: interrupted");
                return Ok(INTERRUPTED.into());
            }
        }
    }
    registered.forget();
    if let Some(path) = &args.out {
        let (weights, quick, seed) = (args.weights.clone(), args.quick, args.seed);
        let setup = Setup { machine: machine(), threads: args.threads, weights, quick, seed };
        table::write(path, &setup, &measured)?;
    }
    let failed: Vec<&str> =
        measured.iter().filter(|rows| !rows.is_whole()).map(|rows| rows.case.name()).collect();
    if !failed.is_empty() {
        eprintln!("bench: not all was measured of {}; the tables say what", failed.join(", "));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures the rows of a case in alternation.
fn measure<'a>(
    args: &Args,
    ground: &Ground<'_>,
    peer: Option<&Peer>,
    case: &'a dyn Case,
    preset: &'a str,
) -> Measured<'a> {
    let sides = case.sides(args.search).into_iter().filter(|side| peer.is_some() || !side.is_peer());
    let mut runs: Vec<(Side, Vec<Figures>)> = sides.map(|side| (side, Vec::new())).collect();
    let mut troubles = Vec::new();
    for run in 0..args.runs {
        for (side, figures) in &mut runs {
            if interrupt::happened() {
                break;
            }
            let begun = Instant::now();
            match measure_once(args, ground, peer, case, side, run) {
                Ok(Some(measured)) => figures.push(measured),
                Ok(None) => {}
                Err(error) => troubles.push(format!("{}: {error:#}", side.label)),
            }
            let (name, label, seconds) = (case.name(), &side.label, begun.elapsed().as_secs_f64());
            eprintln!("bench: {preset} {name}: {label}, run {} of {}: {seconds:.1} s", run + 1, args.runs);
        }
    }
    Measured { case, preset, runs, troubles }
}

fn measure_once(
    args: &Args,
    ground: &Ground<'_>,
    peer: Option<&Peer>,
    case: &dyn Case,
    side: &Side,
    run: u32,
) -> Result<Option<Figures>> {
    if let (Kind::Tool(tool), Some(peer)) = (&side.kind, peer) {
        return case.run_tool(peer, ground.model, *tool).map(Some);
    }
    let Some(system) = ground.start(side)? else { return Ok(None) };
    let mut ran = case.run(system.as_ref(), args.seed + u64::from(run))?;
    drop(system);
    if run == 0 {
        check::compare(ground, side, &ran.said, args.compare, &mut ran.figures)?;
    }
    Ok(Some(ran.figures))
}
