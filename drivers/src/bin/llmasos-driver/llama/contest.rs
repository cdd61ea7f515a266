//! `llmasos-driver attention`: how fast a model runs with each attention kernel, on loads that favour different ones.
//!
//! The kernels take turns, round for round, so that what else happens on the machine meets all of them; the fastest
//! round of each counts. A context is made for each turn and gone after it, because the threads of one that has just
//! computed keep looking for work for a while.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use drivers::wire::{Asid, DriverFault};
use syscalls::Token;
use syscalls::call::Attention;

use super::arithmetic::Arithmetic;
use super::batch::Output;
use super::context::{Context, ContextSettings, UBATCH_TOKENS};
use super::load::{physical_cores, start_backend};
use super::model::{Model, ModelSettings, Packing};

/// Cells of the pool.
const POOL_TOKENS: u32 = 16_384;

/// Tokens of one pass.
const BATCH_TOKENS: u32 = 2048;

/// Tokens that each sequence generates.
const GENERATED_TOKENS: u32 = 32;

/// A load: sequences with prompts of their own or one that they share, and then some tokens for each at once.
struct Load {
    name: &'static str,
    sequences: u16,
    prompt: u32,
    shared: bool,
    /// What is timed: the prompts, or what is generated behind them.
    prefill: bool,
}

const LOADS: [Load; 6] = [
    Load { name: "decode-1x512", sequences: 1, prompt: 512, shared: false, prefill: false },
    Load { name: "decode-32-shared-512", sequences: 32, prompt: 512, shared: true, prefill: false },
    Load { name: "decode-8x512", sequences: 8, prompt: 512, shared: false, prefill: false },
    Load { name: "decode-32x64", sequences: 32, prompt: 64, shared: false, prefill: false },
    Load { name: "prefill-512", sequences: 1, prompt: 512, shared: false, prefill: true },
    Load { name: "prefill-8192", sequences: 1, prompt: 8192, shared: false, prefill: true },
];

const KERNELS: [Attention; 3] = [Attention::Flash, Attention::Plain, Attention::Blocked];

/// Runs the loads whose name contains a text, and prints tokens per second for each kernel.
///
/// # Errors
///
/// The model cannot be loaded, or a pass fails.
pub fn run(file: &Path, threads: Option<u32>, rounds: u32, only: &str) -> Result<()> {
    start_backend(Arithmetic::Packed);
    let file = file.to_str().context("the path is not UTF-8")?;
    let settings = ModelSettings { gpu_layers: Some(0), packing: Packing::Best };
    let model = Model::load(file, &settings, &mut |_| {}).map_err(anyhow::Error::msg)?;
    let threads = threads.unwrap_or_else(physical_cores).clamp(1, 512);
    println!("{:24}{:>10}{:>10}{:>10}{:>18}", "tokens/s", "flash", "plain", "blocked", "blocked/better");
    for load in LOADS.iter().filter(|load| load.name.contains(only)) {
        let mut best = [0f64; KERNELS.len()];
        for _ in 0..rounds {
            for (best, attention) in best.iter_mut().zip(KERNELS) {
                let speed = turn(&model, load, attention, threads).map_err(anyhow::Error::msg)?;
                *best = best.max(speed);
            }
        }
        let [flash, plain, blocked] = best;
        let ratio = blocked / flash.max(plain);
        println!("{:24}{flash:>10.1}{plain:>10.1}{blocked:>10.1}{ratio:>18.2}", load.name);
    }
    Ok(())
}

/// Tokens per second of a load with one kernel.
fn turn(model: &Arc<Model>, load: &Load, attention: Attention, threads: u32) -> Result<f64, DriverFault> {
    let settings = ContextSettings {
        tokens: POOL_TOKENS,
        batch_tokens: BATCH_TOKENS,
        ubatch_tokens: UBATCH_TOKENS,
        sequences: load.sequences,
        outputs: u32::from(load.sequences),
        threads,
        attention,
        embeddings: false,
    };
    let mut context = Context::new(model, &settings)?;
    let prompts = if load.shared { 1 } else { load.sequences };
    // The first pass touches memory for the first time.
    pass(&mut context, &[(0, 0, 1)])?;
    context.clear();
    let mut time = Duration::ZERO;
    for sequence in 0..prompts {
        for from in (0..load.prompt).step_by(BATCH_TOKENS as usize) {
            time += pass(&mut context, &[(sequence, from, BATCH_TOKENS.min(load.prompt - from))])?;
        }
    }
    if load.prefill {
        return Ok(f64::from(load.prompt) * f64::from(prompts) / time.as_secs_f64());
    }
    for sequence in prompts..load.sequences {
        context.share(Asid(0), Asid(sequence), load.prompt);
    }
    let mut time = Duration::ZERO;
    for n in 0..GENERATED_TOKENS {
        let rows: Vec<_> = (0..load.sequences).map(|sequence| (sequence, load.prompt + n, 1)).collect();
        time += pass(&mut context, &rows)?;
    }
    Ok(f64::from(GENERATED_TOKENS) * f64::from(load.sequences) / time.as_secs_f64())
}

/// The time of one pass over rows: sequence, position, and tokens.
fn pass(context: &mut Context, rows: &[(u16, u32, u32)]) -> Result<Duration, DriverFault> {
    context.batch().clear();
    for &(sequence, position, count) in rows {
        let tokens: Vec<Token> = (0..count).map(|at| Token(20 + (position + at) * 7 % 200)).collect();
        context.batch().add(sequence, position, &tokens, Output::Last);
    }
    let start = Instant::now();
    let failed = |why| DriverFault::new(syscalls::Errno::EIO, format!("a pass failed: {why:?}"));
    context.decode().map_err(failed)?;
    context.wait();
    Ok(start.elapsed())
}
