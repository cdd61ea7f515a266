//! Makes up a model with random weights as a GGUF file: for benches, and for tests that need a shape.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use clap::Parser;
use drivers::gguf::TensorType;
use drivers::gguf::random::{Family, Shape};

/// Writes a model with random weights.
#[derive(Parser)]
#[command(name = "make-model")]
struct Options {
    /// The file to write.
    out: PathBuf,
    /// The shape to begin with: tiny, 30m or 0.5b.
    #[arg(long, default_value = "tiny")]
    preset: String,
    /// How matrices are stored: f32, f16, bf16, q8_0 or q4_0.
    #[arg(long = "type", default_value = "q8_0")]
    kind: String,
    /// llama, qwen2, gpt2, bert, gemma2, mamba, jamba or qwen3moe.
    #[arg(long)]
    family: Option<String>,
    #[arg(long)]
    layers: Option<u32>,
    /// Width of the residual stream.
    #[arg(long)]
    embedding: Option<u32>,
    #[arg(long)]
    heads: Option<u32>,
    /// Heads that share keys and values.
    #[arg(long)]
    kv_heads: Option<u32>,
    /// Width of the feed-forward layers.
    #[arg(long)]
    feed_forward: Option<u32>,
    /// Tokens.
    #[arg(long)]
    vocabulary: Option<u32>,
    /// Positions.
    #[arg(long)]
    context: Option<u32>,
    /// Gives the output layer a matrix of its own.
    #[arg(long)]
    untied: bool,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Options {
    fn shape(&self) -> anyhow::Result<Shape> {
        let Some(mut shape) = Shape::preset(&self.preset) else {
            bail!("no preset `{}`; there are tiny, 30m and 0.5b", self.preset);
        };
        if let Some(name) = &self.family {
            let names = || Family::ALL.map(Family::name).join(", ");
            let family = Family::from_name(name)
                .with_context(|| format!("no family `{name}`; there are {}", names()))?;
            shape = shape.of(family);
        }
        shape.kind = kind(&self.kind)?;
        shape.layers = self.layers.unwrap_or(shape.layers);
        shape.embedding = self.embedding.unwrap_or(shape.embedding);
        shape.heads = self.heads.unwrap_or(shape.heads);
        shape.kv_heads = self.kv_heads.or(self.heads).unwrap_or(shape.kv_heads);
        shape.feed_forward = self.feed_forward.unwrap_or(shape.feed_forward);
        shape.vocabulary = self.vocabulary.unwrap_or(shape.vocabulary);
        shape.context = self.context.unwrap_or(shape.context);
        shape.tied &= !self.untied;
        shape.seed = self.seed;
        Ok(shape)
    }
}

fn kind(name: &str) -> anyhow::Result<TensorType> {
    use TensorType::{BF16, F16, F32, Q4_0, Q8_0};
    let found = [F32, F16, BF16, Q8_0, Q4_0].into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name));
    found.with_context(|| format!("no type `{name}`; there are f32, f16, bf16, q8_0 and q4_0"))
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let began = Instant::now();
    let out = options.out.display();
    options.shape()?.write(&options.out).map_err(|e| anyhow!("cannot write {out}: {e}"))?;
    let header = drivers::gguf::open(&options.out)?;
    println!(
        "{}: {} with {} weights in {} bytes, {:.1} s",
        options.out.display(),
        header.architecture,
        header.parameters(),
        header.bytes,
        began.elapsed().as_secs_f64()
    );
    Ok(())
}
