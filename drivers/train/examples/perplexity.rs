//! Perplexity of a text, reckoned as `llama-perplexity` does, beside that program's own on the exported GGUF:
//!
//! ```text
//! llmasos-trainer export RUN --format hf --out hf && llmasos-trainer export RUN --format gguf --out model.gguf
//! cargo run --release -p llmasos-train --example perplexity -- hf model.gguf TEXT --peer PATH/llama-perplexity
//! ```
//!
//! The text is cut into windows of the context's length, and the second half of each is counted.

use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::DType;
use clap::Parser;
use train::token::Tokeniser;
use train::{Batch, IGNORE, Loss, ModelConfig, Pass, checkpoint, models};

/// How far the two may be apart, as a part of either: four digits.
const TOLERANCE: f64 = 1e-4;

#[derive(Parser)]
struct Options {
    /// The model in the Hugging Face layout.
    folder: PathBuf,
    /// The same model in GGUF.
    gguf: PathBuf,
    text: PathBuf,
    /// llama.cpp's program.
    #[arg(long)]
    peer: PathBuf,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let config = ModelConfig::from_json(&std::fs::read_to_string(options.folder.join("config.json"))?)?;
    let length = config.positions();
    let ours = perplexity(&options.folder, &config, &std::fs::read_to_string(&options.text)?, length)?;
    let theirs = peer(&options, length)?;
    println!("{ours:.4} here, {theirs:.4} by llama-perplexity, windows of {length}");
    match (ours - theirs).abs() <= TOLERANCE * ours {
        true => Ok(()),
        false => Err("they differ in the first four digits".into()),
    }
}

fn perplexity(
    folder: &Path,
    config: &ModelConfig,
    text: &str,
    length: usize,
) -> Result<f64, Box<dyn std::error::Error>> {
    let model = models::build(config, DType::F32, 0)?;
    model.parameters().load(&checkpoint::read_tensors(&folder.join("model.safetensors"))?)?;
    let tokeniser = Tokeniser::from_json(&std::fs::read_to_string(folder.join("tokenizer.json"))?)?;
    let tokens = tokeniser.encode(text)?;
    let mut loss = Loss::default();
    for window in tokens.chunks_exact(length) {
        let counted =
            |i: usize| if i + 1 < length && i >= length / 2 { window[i + 1] as i32 } else { IGNORE };
        let batch = Batch::next_token(window.to_vec(), (0..length).map(counted).collect(), length);
        loss += model.loss(&batch, &Pass::evaluation())?;
    }
    Ok(loss.mean().exp())
}

/// What llama.cpp says, with keys and values in 32 bits, as they are here.
fn peer(options: &Options, length: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let length = length.to_string();
    let output = Command::new(&options.peer)
        .arg("-m")
        .arg(&options.gguf)
        .arg("-f")
        .arg(&options.text)
        .args(["-c", &length, "-b", &length, "-ctk", "f32", "-ctv", "f32", "-fa", "off"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let after = said.split_once("Final estimate: PPL = ").ok_or("llama-perplexity gives no estimate")?.1;
    Ok(after.split_whitespace().next().unwrap_or_default().parse()?)
}
