//! Measures what a training run of class batch costs a chat, and what the chat leaves to it: replies with pauses in
//! which somebody reads, in alternation with the run stopped and going on.

mod chat;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use harness::Daemon;
use harness::bench::models::model_file;
use harness::bench::ours::{MODEL, mount};
use harness::bench::report::median;
use syscalls::call::Signal;

/// What the time between two tokens may rise to.
const WANTED: f64 = 1.15;

#[derive(Parser)]
#[command(about = "Measures a chat beside training, in alternation with the chat alone")]
struct Args {
    /// The shape of the chat's model: tiny, 30m or 0.5b.
    #[arg(long, default_value = "0.5b")]
    preset: String,
    /// The type of its weights.
    #[arg(long, default_value = "q8_0")]
    weights: String,
    #[arg(long, default_value_t = 2)]
    threads: u32,
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// Tokens of a reply.
    #[arg(long, default_value_t = 48)]
    tokens: u32,
    /// Seconds that somebody reads a reply.
    #[arg(long, default_value_t = 1.0)]
    pause: f64,
    /// Where generated models are kept.
    #[arg(long, default_value = "target/bench-models")]
    models: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let path = model_file(&args.models, &args.preset, &args.weights, None)?;
    let daemon = Daemon::start();
    mount(&daemon, &path, 4096, args.threads)?;
    let mut run = run::Training::start(&daemon, args.threads)?;
    let mut control = daemon.client();
    let pause = Duration::from_secs_f64(args.pause);
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let (mut free, mut left) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        // The run alone, the chat alone, and both.
        free.push(run.tokens_per_second(|| {
            std::thread::sleep(pause);
            Ok(())
        })?);
        control.kill(run.pid, Signal::Stop)?;
        alone.push(chat::talk(&daemon, MODEL, 2 * round as u32, args.tokens, pause)?);
        control.kill(run.pid, Signal::Cont)?;
        let mut talked = None;
        left.push(run.tokens_per_second(|| {
            talked = Some(chat::talk(&daemon, MODEL, 2 * round as u32 + 1, args.tokens, pause)?);
            Ok(())
        })?);
        beside.extend(talked);
    }
    run.end(&mut control)?;
    let of = |talks: &[chat::Talk], figure: fn(&chat::Talk) -> f64| {
        median(&talks.iter().map(figure).collect::<Vec<_>>())
    };
    println!("medians of {} rounds    alone   beside   ratio", args.rounds);
    for (what, figure) in [
        ("between tokens, ms ", (|t| t.between_ms) as fn(&chat::Talk) -> f64),
        ("longest gap, ms    ", |t| t.longest_ms),
        ("to first token, ms ", |t| t.first_ms),
    ] {
        let (a, b) = (of(&alone, figure), of(&beside, figure));
        println!("{what} {a:>10.2} {b:>8.2} {:>7.3}", b / a);
    }
    let (free, left) = (median(&free), median(&left));
    println!("training, tokens/s  {free:>10.0} {left:>8.0} {:>7.3}", left / free);
    let busy = of(&beside, |t| t.busy);
    println!(
        "the chat generates {:.0} % of the time, which leaves {:.3} to training",
        busy * 100.0,
        1.0 - busy
    );
    let ratio = of(&beside, |t| t.between_ms) / of(&alone, |t| t.between_ms);
    if ratio > WANTED {
        bail!("the time between tokens rises to {ratio:.3} of what it was; wanted ≤ {WANTED}");
    }
    Ok(())
}
