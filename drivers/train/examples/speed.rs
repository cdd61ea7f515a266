//! Tokens per second of training, beside `tests/peers/speed.py`, which does the same in PyTorch:
//!
//! ```text
//! RAYON_NUM_THREADS=2 cargo run --release -p llmasos-train --example speed -- nano mid vocabulary
//! ```

use std::time::{Duration, Instant};

use candle_core::DType;
use train::models::config::Gpt2Config;
use train::optim::{Adam, Optimiser};
use train::random::Philox;
use train::{Batch, Gradients, ModelConfig, Pass, memory, models};

/// nanoGPT's small CPU configuration, its larger one with fewer rows, and one with a vocabulary of 8,192.
const SHAPES: [(&str, [usize; 6]); 3] = [
    ("nano", [65, 4, 4, 128, 64, 12]),
    ("mid", [65, 6, 6, 384, 256, 8]),
    ("vocabulary", [8192, 4, 4, 256, 256, 8]),
];

fn main() -> train::Result<()> {
    memory::keep();
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    for (name, [vocabulary, layers, heads, width, length, rows]) in SHAPES {
        if !wanted.is_empty() && !wanted.iter().any(|w| w == name) {
            continue;
        }
        let config = ModelConfig::Gpt2(Gpt2Config {
            vocab_size: vocabulary,
            n_layer: layers,
            n_head: heads,
            n_embd: width,
            n_positions: length,
            resid_pdrop: 0.0,
            embd_pdrop: 0.0,
            attn_pdrop: 0.0,
            ..Gpt2Config::default()
        });
        let model = models::build(&config, DType::F32, 1)?;
        let source = Philox::new(1);
        let token = |i: u64| (source.integer(i) % vocabulary as u64) as u32;
        let count = rows * length;
        let tokens: Vec<u32> = (0..count as u64).map(token).collect();
        let targets = (1..=count as u64).map(|i| token(i) as i32).collect();
        let batch = Batch::next_token(tokens, targets, length);
        let mut gradients = Gradients::new(model.parameters())?;
        let mut adam = Adam::decoupled([0.9, 0.99], 1e-8, 0.1);
        let mut step = |number: u64| -> train::Result<f64> {
            gradients.clear();
            let loss = model.gradients(&batch, &Pass::training(1, number), &mut gradients)?;
            gradients.clip(1.0);
            adam.step(model.parameters(), &gradients, 1e-3)?;
            Ok(loss.mean())
        };
        for number in 0..3 {
            step(number)?;
        }
        let mut times = Vec::new();
        let begin = Instant::now();
        let mut loss = 0.0;
        while times.len() < 5 || begin.elapsed() < Duration::from_secs(8) {
            let begin = Instant::now();
            loss = step(times.len() as u64 + 3)?;
            times.push(begin.elapsed());
        }
        times.sort();
        let median = times[times.len() / 2].as_secs_f64();
        let parameters = model.parameters().counts().0;
        println!(
            "{name}: {parameters} parameters, {:.0} tokens/s, {:.1} ms a step (median of {}), loss {loss:.4}",
            count as f64 / median,
            median * 1e3,
            times.len()
        );
    }
    Ok(())
}
