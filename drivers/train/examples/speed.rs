//! Tokens per second and memory of training, in alternation with PyTorch, as one table:
//!
//! ```text
//! make bench-train PYTHON=VENV/bin/python ARGS="nano mid"
//! ```
//!
//! Every measurement is a process of its own, so that peaks of memory are those of one model. Ours and PyTorch's
//! (`tests/peers/speed.py`) take turns, shape by shape, for some rounds; the table has the median over the rounds.

mod shapes;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use candle_core::DType;
use clap::Parser;
use serde::{Deserialize, Serialize};
use train::ops::product::Precision;
use train::optim::{Adam, Optimiser};
use train::parameters::Place;
use train::spec::DeviceSpec;
use train::{Batch, Gradients, Pass, memory, models};

use shapes::{SHAPES, Sizes, config};

/// Steps before the clock runs: caches are cold, and buffers are asked for.
const COLD: u64 = 3;

/// Steps whose losses are compared.
const COMPARED: u64 = 10;

#[derive(Parser)]
struct Options {
    /// Shapes to measure; all where none is named.
    shapes: Vec<String>,
    /// A Python that has PyTorch.
    #[arg(long)]
    python: Option<PathBuf>,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Measures on a card of NVIDIA's, by its number; on the CPU where it is left out. Peaks of memory are the host's.
    #[arg(long)]
    cuda: Option<usize>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long one process measures.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Measures one shape in this process and prints a line of JSON.
    #[arg(long, hide = true)]
    one: bool,
    /// Of that one: f32 or bf16.
    #[arg(long, hide = true, default_value = "f32")]
    precision: String,
}

/// What one process measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measured {
    tokens_per_second: f64,
    /// After `COMPARED` steps.
    loss: f64,
    /// Resident memory at its peak, and how much of it came after the program had begun.
    peak_mib: f64,
    grown_mib: f64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let wanted = |name: &str| options.shapes.is_empty() || options.shapes.iter().any(|shape| shape == name);
    if options.one {
        let (_, sizes) = SHAPES.into_iter().find(|(name, _)| wanted(name)).ok_or("no such shape")?;
        println!("{}", serde_json::to_string(&measure(sizes, &options)?)?);
        return Ok(());
    }
    let engines: &[&str] = match options.python {
        Some(_) => &["llmasos f32", "PyTorch f32", "llmasos bf16", "PyTorch bf16"],
        None => &["llmasos f32", "llmasos bf16"],
    };
    println!("{} threads, medians of {} rounds", options.threads, options.rounds);
    println!("shape       engine        tokens/s  ratio  loss@{COMPARED}  peak MiB  of it grown  ratio");
    for (shape, _) in SHAPES.into_iter().filter(|(name, _)| wanted(name)) {
        let mut rounds = vec![Vec::new(); engines.len()];
        for _ in 0..options.rounds {
            for (engine, rounds) in engines.iter().zip(&mut rounds) {
                rounds.push(run(&options, shape, engine)?);
            }
        }
        let figures: Vec<Measured> = rounds.into_iter().map(median).collect();
        for (engine, figure) in engines.iter().zip(&figures) {
            // Ours beside PyTorch's of the same precision.
            let number = engine.rsplit(' ').next().unwrap_or_default();
            let peer = engines.iter().position(|e| e.starts_with("PyTorch") && e.ends_with(number));
            let ratio = |of: fn(&Measured) -> f64| match peer.filter(|_| engine.starts_with("llmasos")) {
                Some(peer) => format!("{:.2}", of(figure) / of(&figures[peer])),
                None => String::new(),
            };
            println!(
                "{shape:<11} {engine:<12} {:>9.0}  {:>5}  {:>7.4}  {:>8.0}  {:>11.0}  {:>5}",
                figure.tokens_per_second,
                ratio(|m| m.tokens_per_second),
                figure.loss,
                figure.peak_mib,
                figure.grown_mib,
                ratio(|m| m.grown_mib),
            );
        }
    }
    Ok(())
}

/// One measurement in a process of its own.
fn run(options: &Options, shape: &str, engine: &str) -> Result<Measured, Box<dyn std::error::Error>> {
    let (threads, seconds) = (options.threads.to_string(), options.seconds.to_string());
    let (name, precision) = engine.split_once(' ').ok_or("an engine and a precision")?;
    let mut command = match &options.python {
        Some(python) if name == "PyTorch" => {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/speed.py");
            let mut command = Command::new(python);
            command.args([script, "--threads", &threads]);
            command
        }
        _ => {
            let mut command = Command::new(std::env::current_exe()?);
            command.env("RAYON_NUM_THREADS", &threads).arg("--one");
            command
        }
    };
    if let Some(card) = options.cuda {
        command.args(["--cuda", &card.to_string()]);
    }
    let output = command.args(["--precision", precision, "--seconds", &seconds, shape]).output()?;
    if !output.status.success() {
        return Err(format!("{engine}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let line = String::from_utf8(output.stdout)?;
    Ok(serde_json::from_str(line.lines().last().unwrap_or_default())?)
}

/// The round whose speed is the median, with the median of each other figure.
fn median(rounds: Vec<Measured>) -> Measured {
    let of = |figure: fn(&Measured) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Measured {
        tokens_per_second: of(|m| m.tokens_per_second),
        loss: of(|m| m.loss),
        peak_mib: of(|m| m.peak_mib),
        grown_mib: of(|m| m.grown_mib),
    }
}

fn measure(sizes: Sizes, options: &Options) -> Result<Measured, Box<dyn std::error::Error>> {
    let device = options.cuda.map_or(DeviceSpec::Cpu, DeviceSpec::Cuda).open(0)?;
    let [vocabulary, .., length, rows] = sizes;
    memory::keep();
    let begun = status("VmRSS:")?;
    let precision = if options.precision == "bf16" { Precision::Mixed } else { Precision::Full };
    let config = config(sizes);
    let model = models::build_at(&Place::on(device), &config, DType::F32, 1)?;
    // The same tokens as in speed.py (Knuth's multiplicative hash).
    let token = |i: u64| ((i * 2_654_435_761 % (1 << 32)) >> 8) % vocabulary as u64;
    let count = (rows * length) as u64;
    let tokens = (0..count).map(|i| token(i) as u32).collect();
    let targets = (1..=count).map(|i| token(i) as i32).collect();
    let batch = Batch::next_token(tokens, targets, length);
    let mut gradients = Gradients::new(model.parameters())?;
    let mut adam = Adam::decoupled([0.9, 0.99], 1e-8, 0.1);
    let mut step = |number: u64| -> train::Result<f64> {
        gradients.clear();
        let pass = Pass { precision, ..Pass::training(1, number) };
        let loss = model.gradients(&batch, &pass, &mut gradients)?;
        gradients.clip(1.0)?;
        adam.step(model.parameters(), &gradients, 1e-3)?;
        Ok(loss.mean())
    };
    let (mut times, mut loss, mut clock) = (Vec::new(), 0.0, Instant::now());
    for number in 0.. {
        let begin = Instant::now();
        let now = step(number)?;
        match number {
            0..COLD => clock = Instant::now(),
            _ => times.push(begin.elapsed()),
        }
        if number == COMPARED {
            loss = now;
        }
        if number >= COMPARED && clock.elapsed() > Duration::from_secs_f64(options.seconds) {
            break;
        }
    }
    times.sort();
    let peak = status("VmHWM:")?;
    let tokens_per_second = count as f64 / times[times.len() / 2].as_secs_f64();
    Ok(Measured { tokens_per_second, loss, peak_mib: peak, grown_mib: peak - begun })
}

/// A figure of this process's memory, in MiB.
fn status(name: &str) -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)).ok_or("a line of /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
