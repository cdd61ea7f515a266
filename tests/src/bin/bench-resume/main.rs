//! Measures what a restart of the daemon costs a long context: resumed from its pages on disk, against computed again;
//! and what it costs others that its pages are written.
//!
//! One run computes the context, kills the daemon with SIGKILL, resumes it, kills it again, takes the pages away and
//! computes it once more. Times are from the request to the first token, with the model loaded.

mod beside;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use harness::bench::models::model_file;
use harness::bench::random::Random;
use harness::said::greedy;
use harness::{Daemon, wait_for, wait_until};
use syscalls::call::{Attach, Hello, Lifetime, Mount};
use syscalls::client::blocking::Client;
use syscalls::client::{hello, mount};
use syscalls::reply::{ModelState, Stats};
use syscalls::{ContextId, Pid, Reply, Tokens};

const MODEL: &str = "bench";

/// Tokens of a page.
const PAGE: u32 = 64;

/// Tokens that are computed when a context is resumed: what fills no page, and pages that were on their way to the disk
/// when the daemon was killed.
const COMPUTED_MAX: u64 = 4 * PAGE as u64;

/// What resuming may take of computing.
const WANTED: f64 = 0.10;

#[derive(Parser)]
#[command(about = "Measures resuming a context after a restart against computing it again")]
struct Args {
    /// Tokens of the context.
    #[arg(long, default_value_t = 16_384)]
    tokens: u32,
    /// The shape of the model: tiny, 30m or 0.5b.
    #[arg(long, default_value = "30m")]
    preset: String,
    /// The type of its weights.
    #[arg(long, default_value = "q8_0")]
    weights: String,
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Where generated models are kept.
    #[arg(long, default_value = "target/bench-models")]
    models: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let cells = (args.tokens + 8 * PAGE).next_multiple_of(256);
    let path = model_file(&args.models, &args.preset, &args.weights, Some(cells))?;
    let mut daemon = Daemon::start();
    let request = Mount {
        context: Some(Tokens(cells)),
        threads: Some(args.threads),
        ..mount(path.to_str().context("the model's path is not UTF-8")?, MODEL)
    };
    beside::measure(&daemon, &request)?;
    daemon.client().mount_with(request, |_| {})?;

    let mut client = Client::connect_with(
        &daemon.socket(),
        Hello { lifetime: Lifetime::Persistent, ..hello("bench-resume") },
    )?;
    let context = client.open(Some(MODEL))?.context;
    client.append_tokens(context, Random(1).tokens(args.tokens))?;
    let begun = Instant::now();
    client.generate(greedy(context, 1), |_| {})?;
    println!("computed for the first time: {:.3} s", begun.elapsed().as_secs_f64());
    let pid = client.pid();
    client.detach(None)?;
    let whole = u64::from(args.tokens / PAGE);
    wait_until("the pages on disk", || stats(&daemon).pages_disk >= whole);

    daemon.kill9();
    let (resumed, counted) = first_token(&mut daemon, pid, context)?;
    println!(
        "resumed: {:.3} s, {} tokens evaluated, {} MiB loaded",
        resumed.as_secs_f64(),
        evaluated(&counted),
        counted.swap_in_bytes >> 20
    );
    ensure!(evaluated(&counted) <= COMPUTED_MAX, "it was computed again: {counted:?}");

    daemon.kill9();
    std::fs::remove_dir_all(daemon.data().join("swap"))?;
    let (computed, counted) = first_token(&mut daemon, pid, context)?;
    println!("computed again: {:.3} s, {} tokens evaluated", computed.as_secs_f64(), evaluated(&counted));
    ensure!(evaluated(&counted) >= u64::from(args.tokens), "it was not computed: {counted:?}");

    let ratio = resumed.as_secs_f64() / computed.as_secs_f64();
    let takes = format!("{:.2} % of computing its {} tokens, of at most 10 %", ratio * 100.0, args.tokens);
    harness::figure("a long context resumed", &takes);
    if ratio > WANTED {
        bail!("the ratio is above what is wanted");
    }
    Ok(())
}

/// Starts the daemon again, and measures how long the context takes for a token when the model is loaded.
fn first_token(daemon: &mut Daemon, pid: Pid, context: ContextId) -> Result<(Duration, Stats)> {
    let begun = Instant::now();
    daemon.restart();
    wait_for("the model", || {
        let models = daemon.client().models().ok()?;
        models.iter().any(|m| m.state == ModelState::Ready).then_some(())
    });
    println!("the daemon and its model are there after {:.3} s", begun.elapsed().as_secs_f64());
    let mut client = daemon.client();
    let Reply::Attached(_) = client.call(Attach { pid, force: true })? else { bail!("no process") };
    let begun = Instant::now();
    let Reply::Generated(_) = client.call_as(pid, greedy(context, 1))? else { bail!("no token") };
    let took = begun.elapsed();
    client.detach(Some(pid))?;
    Ok((took, stats(daemon)))
}

fn stats(daemon: &Daemon) -> Stats {
    daemon.client().stat(None, None).expect("the daemon counts")
}

fn evaluated(stats: &Stats) -> u64 {
    stats.prompt_tokens_evaluated + stats.tokens_recomputed
}
