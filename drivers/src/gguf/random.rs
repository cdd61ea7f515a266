//! Makes up models: any of four architectures at any size, with random weights, as files that llama.cpp runs.
//!
//! Benches compare speeds on a model of a known shape, and tests need models that are small and made here. The
//! weights come from a seed, scaled as a freshly initialised network's, so activations stay finite at any depth.
//! Quantised weights are made as blocks, not as numbers that are then quantised, so half a gigabyte takes seconds.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use half::f16;

use super::header::Value;
use super::quantise::{BLOCK, can_store, store};
use super::tensor::{TensorInfo, TensorType};
use super::vocabulary::{
    BYTE_LEVEL_MAX, BYTE_LEVEL_MIN, END_OF_TEXT, WORD_PIECE_MIN, plan_byte_level, plan_word_pieces,
};
use super::write::Plan;

/// How much smaller a tied embedding table is than the other matrices.
const TIED_SHRINK: f32 = 4.0;

/// Numbers made at once.
const CHUNK: usize = 64 * BLOCK;

/// An architecture that can be made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Llama,
    Qwen2,
    Gpt2,
    Bert,
}

impl Family {
    /// The family of this name, as GGUF has it.
    pub fn from_name(name: &str) -> Option<Family> {
        [Family::Llama, Family::Qwen2, Family::Gpt2, Family::Bert]
            .into_iter()
            .find(|family| family.name() == name)
    }

    /// Its name in GGUF.
    pub fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Qwen2 => "qwen2",
            Family::Gpt2 => "gpt2",
            Family::Bert => "bert",
        }
    }
}

/// The shape of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub family: Family,
    pub layers: u32,
    /// Width of the residual stream.
    pub embedding: u32,
    pub heads: u32,
    /// Heads that share keys and values; as many as `heads` for GPT-2 and BERT.
    pub kv_heads: u32,
    /// Width of the feed-forward layers.
    pub feed_forward: u32,
    /// Tokens.
    pub vocabulary: u32,
    /// Positions.
    pub context: u32,
    /// How matrices are stored; vectors are always F32.
    pub kind: TensorType,
    /// Whether the output layer is the embedding table.
    pub tied: bool,
    /// Where the weights come from.
    pub seed: u64,
}

impl Shape {
    /// A shape by its name: `tiny` (0.3 M weights), `30m`, or `0.5b` (that of Qwen2.5-0.5B).
    pub fn preset(name: &str) -> Option<Shape> {
        let shape = |family, layers, embedding, heads, kv_heads, feed_forward, vocabulary, context| Shape {
            family,
            layers,
            embedding,
            heads,
            kv_heads,
            feed_forward,
            vocabulary,
            context,
            kind: TensorType::Q8_0,
            tied: true,
            seed: 1,
        };
        match name {
            "tiny" => Some(shape(Family::Llama, 2, 128, 4, 2, 256, 1024, 2048)),
            "30m" => Some(shape(Family::Llama, 8, 512, 8, 4, 1536, 8192, 4096)),
            "0.5b" => Some(shape(Family::Qwen2, 24, 896, 14, 2, 4864, 151_936, 32_768)),
            _ => None,
        }
    }

    /// What keeps this shape from being a model, if anything.
    pub fn trouble(&self) -> Option<String> {
        let (vocabulary_min, vocabulary_max) = match self.family {
            Family::Bert => (WORD_PIECE_MIN, WORD_PIECE_MIN + 26 * 26 + 676 * 676),
            _ => (BYTE_LEVEL_MIN, BYTE_LEVEL_MAX),
        };
        let block = self.kind.block_elements() as u32;
        let grouped = matches!(self.family, Family::Llama | Family::Qwen2);
        if [self.layers, self.embedding, self.heads, self.kv_heads, self.feed_forward, self.context]
            .contains(&0)
        {
            Some("a size is 0; give at least 1".into())
        } else if !can_store(self.kind) {
            Some(format!("weights cannot be made as {}; use F32, F16, BF16, Q8_0 or Q4_0", self.kind.name()))
        } else if !self.embedding.is_multiple_of(block) || !self.feed_forward.is_multiple_of(block) {
            let name = self.kind.name();
            Some(format!(
                "the widths are {} and {}; {name} takes multiples of {block}",
                self.embedding, self.feed_forward
            ))
        } else if !self.embedding.is_multiple_of(2 * self.heads) {
            Some(format!("the width {} is no multiple of twice the {} heads", self.embedding, self.heads))
        } else if !self.heads.is_multiple_of(self.kv_heads) || (!grouped && self.heads != self.kv_heads) {
            Some(format!("{} heads cannot share {} key-value heads here", self.heads, self.kv_heads))
        } else if !(vocabulary_min..=vocabulary_max).contains(&self.vocabulary) {
            Some(format!(
                "the vocabulary is {}; it must be within {vocabulary_min}..={vocabulary_max}",
                self.vocabulary
            ))
        } else {
            None
        }
    }

    /// Writes the model to a file.
    ///
    /// # Errors
    ///
    /// `InvalidInput` with [`Shape::trouble`], and those of the file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut random = self.random()?;
        self.plan().write(path, |tensor, out| self.fill(tensor, &mut random, out))
    }

    /// Writes it to a file that is open.
    ///
    /// # Errors
    ///
    /// As [`Shape::write`].
    pub fn write_to(&self, file: File) -> io::Result<()> {
        let mut random = self.random()?;
        self.plan().write_to(file, |tensor, out| self.fill(tensor, &mut random, out))
    }

    /// Writes it to several files, the same weights as to one.
    ///
    /// # Errors
    ///
    /// As [`Shape::write`].
    pub fn write_in_parts(&self, paths: &[PathBuf]) -> io::Result<()> {
        let mut random = self.random()?;
        let count = u16::try_from(paths.len()).map_err(io::Error::other)?;
        let parts = self.plan().in_parts(count);
        parts
            .iter()
            .zip(paths)
            .try_for_each(|(plan, path)| plan.write(path, |tensor, out| self.fill(tensor, &mut random, out)))
    }

    /// Where the weights come from, if the sizes fit together.
    fn random(&self) -> io::Result<Random> {
        match self.trouble() {
            Some(trouble) => Err(io::Error::new(io::ErrorKind::InvalidInput, trouble)),
            None => Ok(Random { state: self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }),
        }
    }

    fn plan(&self) -> Plan {
        let mut plan = Plan::new(self.family.name());
        self.plan_metadata(&mut plan);
        match self.family {
            Family::Bert => plan_word_pieces(&mut plan, self.vocabulary),
            _ => plan_byte_level(&mut plan, self.vocabulary),
        }
        Tensors { shape: self, plan: &mut plan }.all();
        plan
    }

    fn plan_metadata(&self, plan: &mut Plan) {
        let family = self.family.name();
        let name = format!("random {family}, {} layers of {}", self.layers, self.embedding);
        plan.set("general.name", Value::Text(name));
        plan.set("general.license", Value::Text("CC0-1.0".into()));
        let sizes = [
            ("block_count", self.layers),
            ("context_length", self.context),
            ("embedding_length", self.embedding),
            ("feed_forward_length", self.feed_forward),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
        ];
        for (key, size) in sizes {
            plan.set(&format!("{family}.{key}"), Value::U32(size));
        }
        match self.family {
            Family::Llama | Family::Qwen2 => {
                plan.set(&format!("{family}.attention.layer_norm_rms_epsilon"), Value::F32(1e-6));
                plan.set(&format!("{family}.rope.freq_base"), Value::F32(10_000.0));
                plan.set(&format!("{family}.rope.dimension_count"), Value::U32(self.embedding / self.heads));
            }
            Family::Gpt2 => plan.set("gpt2.attention.layer_norm_epsilon", Value::F32(1e-5)),
            Family::Bert => {
                plan.set("bert.attention.layer_norm_epsilon", Value::F32(1e-12));
                plan.set("bert.attention.causal", Value::Bool(false));
                // The mean over all tokens, as sentence encoders are trained.
                plan.set("bert.pooling_type", Value::U32(1));
            }
        }
    }

    /// The standard deviation of a matrix's weights: that which keeps the spread of what goes through. A tied
    /// table is smaller, or the token that came last would always score highest and text would repeat one token.
    fn spread(&self, name: &str, inputs: u64) -> f32 {
        let even = (inputs as f32).sqrt().recip();
        if self.tied && name == "token_embd.weight" { even / TIED_SHRINK } else { even }
    }

    /// The weights of a norm: the last one makes up for a small table, so that scores are far enough apart.
    fn norm_weight(&self, name: &str) -> f32 {
        if self.tied && name == "output_norm.weight" { 2.0 * TIED_SHRINK } else { 1.0 }
    }

    fn fill(&self, tensor: &TensorInfo, random: &mut Random, out: &mut dyn Write) -> io::Result<()> {
        let elements = tensor.elements() as usize;
        if let [_] = tensor.dimensions.as_slice() {
            let is_norm = tensor.name.ends_with("norm.weight");
            let value = if is_norm { self.norm_weight(&tensor.name) } else { 0.0 };
            return out.write_all(&value.to_le_bytes().repeat(elements));
        }
        let row = tensor.dimensions[0] as usize;
        let spread = self.spread(&tensor.name, tensor.dimensions[0]);
        let is_vocabulary = matches!(tensor.name.as_str(), "token_embd.weight" | "output.weight");
        if !is_vocabulary || self.family == Family::Bert {
            return fill_random(tensor.kind, elements, spread, random, out);
        }
        // The row that ends the text is 0, so its score is never the highest and greedy text never ends.
        let before = END_OF_TEXT as usize * row;
        fill_random(tensor.kind, before, spread, random, out)?;
        fill_random(tensor.kind, row, 0.0, random, out)?;
        fill_random(tensor.kind, elements - before - row, spread, random, out)
    }
}

/// Names the tensors of a shape.
struct Tensors<'a> {
    shape: &'a Shape,
    plan: &'a mut Plan,
}

impl Tensors<'_> {
    fn all(&mut self) {
        let shape = self.shape;
        self.matrix("token_embd", shape.embedding, shape.vocabulary);
        match shape.family {
            Family::Llama | Family::Qwen2 => self.vector("output_norm.weight", shape.embedding),
            Family::Gpt2 => {
                self.positions();
                self.norm("output_norm");
            }
            Family::Bert => {
                self.positions();
                self.plan.tensor("token_types.weight", &[shape.embedding.into(), 2], TensorType::F32);
                self.norm("token_embd_norm");
            }
        }
        if !shape.tied && shape.family != Family::Bert {
            self.matrix("output", shape.embedding, shape.vocabulary);
        }
        for layer in 0..shape.layers {
            match shape.family {
                Family::Llama | Family::Qwen2 => self.llama_layer(&format!("blk.{layer}")),
                Family::Gpt2 => self.gpt2_layer(&format!("blk.{layer}")),
                Family::Bert => self.bert_layer(&format!("blk.{layer}")),
            }
        }
    }

    fn llama_layer(&mut self, at: &str) {
        let shape = self.shape;
        let shared = shape.embedding / shape.heads * shape.kv_heads;
        self.vector(&format!("{at}.attn_norm.weight"), shape.embedding);
        for (name, width) in [("attn_q", shape.embedding), ("attn_k", shared), ("attn_v", shared)] {
            self.matrix(&format!("{at}.{name}"), shape.embedding, width);
            if shape.family == Family::Qwen2 {
                self.vector(&format!("{at}.{name}.bias"), width);
            }
        }
        self.matrix(&format!("{at}.attn_output"), shape.embedding, shape.embedding);
        self.vector(&format!("{at}.ffn_norm.weight"), shape.embedding);
        self.matrix(&format!("{at}.ffn_gate"), shape.embedding, shape.feed_forward);
        self.matrix(&format!("{at}.ffn_up"), shape.embedding, shape.feed_forward);
        self.matrix(&format!("{at}.ffn_down"), shape.feed_forward, shape.embedding);
    }

    fn gpt2_layer(&mut self, at: &str) {
        let shape = self.shape;
        self.norm(&format!("{at}.attn_norm"));
        self.linear(&format!("{at}.attn_qkv"), shape.embedding, 3 * shape.embedding);
        self.linear(&format!("{at}.attn_output"), shape.embedding, shape.embedding);
        self.norm(&format!("{at}.ffn_norm"));
        self.linear(&format!("{at}.ffn_up"), shape.embedding, shape.feed_forward);
        self.linear(&format!("{at}.ffn_down"), shape.feed_forward, shape.embedding);
    }

    fn bert_layer(&mut self, at: &str) {
        let shape = self.shape;
        for name in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            self.linear(&format!("{at}.{name}"), shape.embedding, shape.embedding);
        }
        self.norm(&format!("{at}.attn_output_norm"));
        self.linear(&format!("{at}.ffn_up"), shape.embedding, shape.feed_forward);
        self.linear(&format!("{at}.ffn_down"), shape.feed_forward, shape.embedding);
        self.norm(&format!("{at}.layer_output_norm"));
    }

    /// Tables that are added, not multiplied, are kept in full.
    fn positions(&mut self) {
        let sizes = [self.shape.embedding.into(), self.shape.context.into()];
        self.plan.tensor("position_embd.weight", &sizes, TensorType::F32);
    }

    fn matrix(&mut self, name: &str, inputs: u32, outputs: u32) {
        self.plan.tensor(&format!("{name}.weight"), &[inputs.into(), outputs.into()], self.shape.kind);
    }

    fn vector(&mut self, name: &str, width: u32) {
        self.plan.tensor(name, &[width.into()], TensorType::F32);
    }

    fn linear(&mut self, name: &str, inputs: u32, outputs: u32) {
        self.matrix(name, inputs, outputs);
        self.vector(&format!("{name}.bias"), outputs);
    }

    fn norm(&mut self, name: &str) {
        self.vector(&format!("{name}.weight"), self.shape.embedding);
        self.vector(&format!("{name}.bias"), self.shape.embedding);
    }
}

/// A xorshift* generator: fast, and good enough for weights.
struct Random {
    state: u64,
}

impl Random {
    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Writes so many random weights of mean 0 and this standard deviation, evenly distributed.
fn fill_random(
    kind: TensorType,
    elements: usize,
    spread: f32,
    random: &mut Random,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(CHUNK * 4);
    let mut left = elements;
    while left > 0 {
        let count = left.min(CHUNK);
        bytes.clear();
        match kind {
            TensorType::Q8_0 => (0..count / BLOCK).for_each(|_| random_q8_0(spread, random, &mut bytes)),
            TensorType::Q4_0 => (0..count / BLOCK).for_each(|_| random_q4_0(spread, random, &mut bytes)),
            _ => {
                // Even on −1..1 has a standard deviation of 1/√3.
                let scale = spread * 3f32.sqrt() / (1u64 << 31) as f32;
                let numbers: Vec<f32> =
                    (0..count).map(|_| (random.next() as u32 as i32) as f32 * scale).collect();
                store(kind, &numbers, &mut bytes);
            }
        }
        out.write_all(&bytes)?;
        left -= count;
    }
    Ok(())
}

/// Even on −127..=127 has a standard deviation of 73.6.
fn random_q8_0(spread: f32, random: &mut Random, out: &mut Vec<u8>) {
    out.extend(f16::from_f32(spread / 73.6).to_le_bytes());
    for _ in 0..BLOCK / 8 {
        out.extend(random.next().to_le_bytes().map(|byte| (byte as i8).max(-127) as u8));
    }
}

/// Half-bytes are levels around 8. With every 0 made an 8, they are even on −7..=7 apart from twice as many zeros,
/// and have a standard deviation of 4.18 and no bias.
fn random_q4_0(spread: f32, random: &mut Random, out: &mut Vec<u8>) {
    const LOWEST_BITS: u64 = 0x1111_1111_1111_1111;
    out.extend(f16::from_f32(spread / 4.18).to_le_bytes());
    for _ in 0..BLOCK / 16 {
        let levels = random.next();
        let zeros = !(levels | levels >> 1 | levels >> 2 | levels >> 3) & LOWEST_BITS;
        out.extend((levels | zeros << 3).to_le_bytes());
    }
}
