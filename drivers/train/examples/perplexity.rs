//! Perplexity of a text, reckoned as `llama-perplexity` does, beside that program's own on the exported GGUF:
//!
//! ```text
//! llmasos-trainer export RUN --format hf --out hf && llmasos-trainer export RUN --format gguf --out model.gguf
//! cargo run --release -p llmasos-train --example perplexity -- hf model.gguf TEXT --peer PATH/llama-perplexity
//! ```
//!
//! The text is cut into windows of the context's length, and the second half of each is counted.

use std::path::PathBuf;
use std::process::Command;

use clap::Parser;
use train::trained::{Trained, Which, loss_of_windows};

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
    let trained = Trained::load(&options.folder, Which::Best)?;
    let length = trained.config.positions();
    let tokens = trained.tokeniser.encode(&std::fs::read_to_string(&options.text)?)?;
    let ours = loss_of_windows(&*trained.model()?, &tokens, length)?.mean().exp();
    let theirs = peer(&options, length)?;
    println!("{ours:.4} here, {theirs:.4} by llama-perplexity, windows of {length}");
    match (ours - theirs).abs() <= TOLERANCE * ours {
        true => Ok(()),
        false => Err("they differ in the first four digits".into()),
    }
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
