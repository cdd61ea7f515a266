//! Makes up models: any of eight architectures at any size, with random weights, as files that llama.cpp runs.
//!
//! Benches compare speeds on a model of a known shape, and tests need models that are small and made here. The
//! weights come from a seed, scaled as a freshly initialised network's, so activations stay finite at any depth.
//! Quantised weights are made as blocks, not as numbers that are then quantised, so half a gigabyte takes seconds.

mod mamba;
mod tensors;
mod weights;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::header::{Array, Value};
use super::quantise::can_store;
use super::tensor::{TensorInfo, TensorType};
use super::vocabulary::{
    BYTE_LEVEL_MAX, BYTE_LEVEL_MIN, END_OF_TEXT, WORD_PIECE_MIN, plan_byte_level, plan_word_pieces,
};
use super::write::Plan;
use tensors::Tensors;
use weights::{Random, fill_random};

/// How much smaller a tied embedding table is than the other matrices.
const TIED_SHRINK: f32 = 4.0;

/// Positions that a layer with a sliding window sees: few, so that short tests go past them.
pub const WINDOW: u32 = 32;

/// Experts of a layer that has such.
pub const EXPERTS: u32 = 8;

/// Experts that a token goes through.
pub const EXPERTS_USED: u32 = 2;

/// An architecture that can be made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Llama,
    Qwen2,
    Gpt2,
    Bert,
    /// Every other layer has a sliding window of [`WINDOW`] positions.
    Gemma2,
    /// Recurrent: no layer has attention.
    Mamba,
    /// Recurrent layers and such with attention in turns.
    Jamba,
    /// A token goes through [`EXPERTS_USED`] of [`EXPERTS`] feed-forward layers, whose width is that of the shape.
    Qwen3Moe,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 8] = [
        Family::Llama,
        Family::Qwen2,
        Family::Gpt2,
        Family::Bert,
        Family::Gemma2,
        Family::Mamba,
        Family::Jamba,
        Family::Qwen3Moe,
    ];

    /// The family of this name, as GGUF has it.
    pub fn from_name(name: &str) -> Option<Family> {
        Family::ALL.into_iter().find(|family| family.name() == name)
    }

    /// Its name in GGUF.
    pub fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Qwen2 => "qwen2",
            Family::Gpt2 => "gpt2",
            Family::Bert => "bert",
            Family::Gemma2 => "gemma2",
            Family::Mamba => "mamba",
            Family::Jamba => "jamba",
            Family::Qwen3Moe => "qwen3moe",
        }
    }

    /// Whether heads can share keys and values. (Mamba has no heads that would not.)
    fn groups_heads(self) -> bool {
        !matches!(self, Family::Gpt2 | Family::Bert)
    }

    /// Whether there can be an output layer beside the embedding table.
    fn can_untie(self) -> bool {
        !matches!(self, Family::Bert | Family::Gemma2)
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
    /// Heads that share keys and values; as many as `heads` for GPT-2 and BERT. Mamba has no heads.
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
    /// A shape by its name: `tiny` (0.3 M weights), `30m`, or `0.5b` (that of Qwen2.5-0.5B); or `tiny-` and the name
    /// of another family.
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
            _ => {
                let family = Family::from_name(name.strip_prefix("tiny-")?)?;
                Some(Shape::preset("tiny")?.of(family))
            }
        }
    }

    /// The same sizes in another family.
    pub fn of(self, family: Family) -> Shape {
        let kv_heads = if family.groups_heads() { self.kv_heads } else { self.heads };
        Shape { family, kv_heads, ..self }
    }

    /// What keeps this shape from being a model, if anything.
    pub fn trouble(&self) -> Option<String> {
        let (vocabulary_min, vocabulary_max) = match self.family {
            Family::Bert => (WORD_PIECE_MIN, WORD_PIECE_MIN + 26 * 26 + 676 * 676),
            _ => (BYTE_LEVEL_MIN, BYTE_LEVEL_MAX),
        };
        let block = self.kind.block_elements() as u32;
        let grouped = self.family.groups_heads();
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
            None => Ok(Random::new(self.seed)),
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
        // Converters say of models without heads that they have none, and no feed-forward layers; of models with experts
        // they say what a layer without any would be, though there is none.
        let (heads, feed_forward) = match self.family {
            Family::Mamba => (0, 0),
            Family::Qwen3Moe => (self.heads, self.feed_forward.saturating_mul(EXPERTS_USED)),
            _ => (self.heads, self.feed_forward),
        };
        let sizes = [
            ("block_count", self.layers),
            ("context_length", self.context),
            ("embedding_length", self.embedding),
            ("feed_forward_length", feed_forward),
            ("attention.head_count", heads),
        ];
        for (key, size) in sizes {
            plan.set(&format!("{family}.{key}"), Value::U32(size));
        }
        match self.family {
            Family::Mamba => {}
            Family::Jamba => {
                let heads = (0..self.layers).map(|layer| if self.attends(layer) { self.kv_heads } else { 0 });
                let heads = Value::Array(Array::U32(heads.collect()));
                plan.set("jamba.attention.head_count_kv", heads);
            }
            _ => plan.set(&format!("{family}.attention.head_count_kv"), Value::U32(self.kv_heads)),
        }
        self.plan_details(plan);
    }

    /// Whether a layer of Jamba has attention: every other one, the last one among them.
    fn attends(&self, layer: u32) -> bool {
        !(self.layers - layer).is_multiple_of(2)
    }

    fn plan_details(&self, plan: &mut Plan) {
        let family = self.family.name();
        match self.family {
            Family::Llama | Family::Qwen2 | Family::Gemma2 | Family::Qwen3Moe => {
                plan.set(&format!("{family}.attention.layer_norm_rms_epsilon"), Value::F32(1e-6));
                plan.set(&format!("{family}.rope.freq_base"), Value::F32(10_000.0));
                plan.set(&format!("{family}.rope.dimension_count"), Value::U32(self.embedding / self.heads));
                if self.family == Family::Gemma2 {
                    plan.set("gemma2.attention.sliding_window", Value::U32(WINDOW));
                    plan.set("gemma2.attn_logit_softcapping", Value::F32(50.0));
                    plan.set("gemma2.final_logit_softcapping", Value::F32(30.0));
                }
                if self.family == Family::Qwen3Moe {
                    plan.set("qwen3moe.expert_count", Value::U32(EXPERTS));
                    plan.set("qwen3moe.expert_used_count", Value::U32(EXPERTS_USED));
                    plan.set("qwen3moe.expert_feed_forward_length", Value::U32(self.feed_forward));
                }
            }
            Family::Mamba | Family::Jamba => {
                plan.set(&format!("{family}.attention.layer_norm_rms_epsilon"), Value::F32(1e-6));
                self.plan_states(plan);
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
            let value =
                if is_norm { self.norm_weight(&tensor.name) } else { mamba::vector_value(&tensor.name) };
            return out.write_all(&value.to_le_bytes().repeat(elements));
        }
        if let Some(filled) = mamba::fill_decays(tensor, out) {
            return filled;
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
