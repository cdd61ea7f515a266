//! What a run takes of memory, reckoned before the first step.

use std::fmt;

use super::counts::Counts;
use super::error::RunError;
use crate::ModelConfig;
use crate::data::Task;
use crate::ops::Kernels;
use crate::ops::composed;
use crate::ops::cross_entropy::LOGITS;
use crate::ranks::Layout;
use crate::spec::TrainSpec;

const MIB: f64 = (1 << 20) as f64;

/// The program itself, its threads' stacks and the batches that wait, as measured.
const PROGRAM_BYTES: u64 = 8 << 20;

/// What CUDA's context, its kernels and cuBLAS's workspace take on a card. It is reckoned, and not measured.
const CONTEXT_BYTES: u64 = 600 << 20;

/// Bytes by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub weights: u64,
    pub gradients: u64,
    pub optimiser: u64,
    pub activations: u64,
    pub program: u64,
}

impl Memory {
    /// The sum for one rank of a run, which has and trains so much of the model.
    pub fn of(
        spec: &TrainSpec,
        config: &ModelConfig,
        task: &Task,
        (layout, kernels): (Layout, Kernels),
        counts: Counts,
    ) -> Memory {
        let number = match spec.precision {
            crate::spec::PrecisionSpec::F64 => 8,
            crate::spec::PrecisionSpec::F32 | crate::spec::PrecisionSpec::Bf16 => 4,
        };
        let data = layout.data as u64;
        let (weights, trained) = (counts.all * number, counts.trained * number);
        // One-forward-one-backward keeps as many microbatches as there are stages, each of a part of the layers.
        let at_once = (layout.pipeline as u64).min(spec.ranks.plans().micro_batches as u64);
        let cut = data * spec.ranks.plans().micro_batches as u64 * layout.pipeline as u64 / at_once;
        // Data ranks have gradients once more, in the buckets that are summed. A rank that keeps a part of the optimiser's
        // state has that part of the weights and of their gradients beside it.
        let (copies, each) = (if data > 1 { 2 } else { 1 }, spec.optimiser.numbers_each());
        Memory {
            weights,
            gradients: trained * copies,
            optimiser: if spec.ranks.zero && data > 1 { trained * (each + 2) / data } else { trained * each },
            activations: number * activations(spec, config, task, layout.tensor as u64, counts.kept) / cut
                + composed(spec, config, task, layout, kernels),
            program: if kernels == Kernels::Fused { PROGRAM_BYTES } else { CONTEXT_BYTES },
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.optimiser + self.activations + self.program
    }

    /// Refuses a run that does not fit into `free` bytes.
    ///
    /// # Errors
    ///
    /// [`RunError::Memory`] with the sum.
    pub fn check(&self, free: u64, recompute: bool) -> Result<(), RunError> {
        if self.total() <= free {
            return Ok(());
        }
        let advice = if recompute { "" } else { ", or set `recompute: true`" };
        Err(RunError::Memory { sum: self.to_string(), free_mib: free >> 20, advice })
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / MIB;
        write!(
            f,
            "{:.1} MiB = {:.1} of weights + {:.1} of gradients + {:.1} of the optimiser + {:.1} of activations \
             + {:.0} of the program",
            mib(self.total()),
            mib(self.weights),
            mib(self.gradients),
            mib(self.optimiser),
            mib(self.activations),
            mib(self.program)
        )
    }
}

/// Numbers that are kept from the way forward for the way back, and those that one block needs on the way back.
///
/// A block keeps what its operations need: both norms' inputs and outputs, queries, keys and values, what attention
/// gives and a sum for each head, and the wide layer before and after its activation. On its way back there are the
/// gradients of the wide layer, before and after, beside what they are computed from. With `recompute` a block keeps its
/// input alone, and one block at a time the rest. Scores of the vocabulary exist for some rows at a time. `tensor` ranks
/// divide heads, the wide layer and the vocabulary among them; what is before and behind these, each of them has whole.
fn activations(
    spec: &TrainSpec,
    config: &ModelConfig,
    task: &Task,
    tensor: u64,
    [kept, of]: [u64; 2],
) -> u64 {
    /// Numbers of the model's width that a block keeps for each token: its norms' inputs and outputs.
    const NORMS: u64 = 4;
    /// Those that are divided: queries, keys, values, and what attention gives.
    const HEADS: u64 = 4;
    /// Numbers of the feed-forward layer's width.
    const WIDE: u64 = 2;
    /// What attention with the source adds to a block: a norm's input and output, beside what is divided.
    const SOURCE_NORM: u64 = 2;
    /// Numbers of either width for each token of one block on its way back.
    const NARROW_BACK: u64 = 4;
    const WIDE_BACK: u64 = 3;
    let shape = Shape::of(config);
    let length = task.length() as u64;
    let tokens = spec.batch as u64 * length;
    // An encoder-decoder computes both sides, and its decoder looks at both.
    let (sides, source) = match task {
        Task::Continue { .. } | Task::Translate { .. } => {
            (2, SOURCE_NORM * shape.width + HEADS * shape.width / tensor)
        }
        // Both texts of a pair are rows.
        Task::Similar { .. } | Task::Compare { .. } => (2, 0),
        _ => (1, 0),
    };
    let divided = HEADS * shape.width + WIDE * shape.inner + shape.heads;
    let block = tokens * (sides * (NORMS * shape.width + divided / tensor) + source);
    let back = tokens * (NARROW_BACK * shape.width + WIDE_BACK * shape.inner / tensor);
    let blocks = match spec.recompute {
        true => tokens * shape.width * shape.layers * sides * kept / of + block,
        // One that keeps nothing is still computed.
        false => (block * shape.layers * kept / of).max(block),
    };
    let vocabulary = config.vocabulary() as u64;
    let scores = match task {
        Task::NextToken { .. } | Task::Masked { .. } | Task::Continue { .. } | Task::Translate { .. } => {
            (tokens * vocabulary).min(LOGITS.max(16 * vocabulary as usize) as u64)
        }
        _ => 0,
    };
    blocks + back + scores / tensor + 2 * tokens * shape.width
}

/// Bytes that composed operations need beside that: what is between two of them, and the choices of dropout, one byte
/// each.
fn composed(spec: &TrainSpec, config: &ModelConfig, task: &Task, layout: Layout, kernels: Kernels) -> u64 {
    /// Scores, their exponentials, the weights and two gradients of a block of queries.
    const OF_SCORES: u64 = 5;
    /// Logits, their exponentials and gradients.
    const OF_LOGITS: u64 = 3;
    /// Numbers of the wide layer that its activation has between operations.
    const OF_WIDE: u64 = 4;
    /// Places of dropout of a block that are as wide as the model.
    const DROPPED: u64 = 2;
    /// Numbers of the model's width that a block keeps once more: what attention gives, by heads and by places.
    const KEPT: u64 = 1;
    /// A parameter, its gradient and its state while it is changed.
    const OF_CHANGE: u64 = 5;
    if kernels == Kernels::Fused {
        return 0;
    }
    let number = if spec.precision == crate::spec::PrecisionSpec::F64 { 8 } else { 4 };
    let shape = Shape::of(config);
    let (tensor, stages) = (layout.tensor as u64, layout.pipeline as u64);
    let length = task.length() as u64;
    let tokens = spec.batch as u64 * length / (layout.data * spec.ranks.plans().micro_batches) as u64;
    let pairs = tokens * shape.heads * length / tensor;
    let logits = (tokens * config.vocabulary() as u64 / tensor).min(composed::cross_entropy::LOGITS as u64);
    let blocks = if spec.recompute { 1 } else { shape.layers / stages };
    let choices = match config.drops() {
        true => blocks * (pairs + DROPPED * tokens * shape.width),
        false => 0,
    };
    let largest = shape.width * shape.rows.max(shape.inner) / tensor;
    number
        * (OF_SCORES * pairs.min(composed::attention::SCORES as u64)
            + OF_LOGITS * logits
            + OF_WIDE * tokens * shape.inner / tensor
            + KEPT * blocks * tokens * shape.width / tensor
            + OF_CHANGE * largest)
        + choices
}

struct Shape {
    layers: u64,
    heads: u64,
    width: u64,
    inner: u64,
    /// Matrices of width × width, and of width × inner, of all blocks.
    square: u64,
    wide: u64,
    /// Rows of width in tables.
    rows: u64,
}

impl Shape {
    /// Parameters without biases and norms, which are less than a hundredth.
    fn parameters(&self) -> u64 {
        self.width * (self.square * self.width + self.wide * self.inner + self.rows)
    }

    fn of(config: &ModelConfig) -> Shape {
        let vocabulary = config.vocabulary() as u64;
        let shape = |layers: usize, heads: usize, width: usize, inner: usize| Shape {
            layers: layers as u64,
            heads: heads as u64,
            width: width as u64,
            inner: inner as u64,
            square: 4 * layers as u64,
            wide: 2 * layers as u64,
            rows: vocabulary,
        };
        match config {
            ModelConfig::Gpt2(c) => {
                let tables = vocabulary * (1 + u64::from(!c.tie_word_embeddings));
                let rows = tables + c.n_positions as u64;
                Shape { rows, ..shape(c.n_layer, c.n_head, c.n_embd, c.n_inner.unwrap_or(4 * c.n_embd)) }
            }
            // Keys and values are counted in full, and the gated layer as one half wider.
            ModelConfig::Llama(c) | ModelConfig::Qwen2(c) => {
                let inner = c.intermediate_size * 3 / 2;
                let rows = vocabulary * (1 + u64::from(!c.tie_word_embeddings));
                Shape { rows, ..shape(c.num_hidden_layers, c.num_attention_heads, c.hidden_size, inner) }
            }
            ModelConfig::Bert(c) => {
                let rows = vocabulary + c.max_position_embeddings as u64;
                Shape {
                    rows,
                    ..shape(c.num_hidden_layers, c.num_attention_heads, c.hidden_size, c.intermediate_size)
                }
            }
            ModelConfig::Marian(c) => {
                both(shape(c.encoder_layers, c.encoder_attention_heads, c.d_model, c.encoder_ffn_dim))
            }
            ModelConfig::T5(c) => both(shape(c.num_layers, c.num_heads, c.d_model, c.d_ff)),
        }
    }
}

/// An encoder-decoder: the decoder has a second attention.
fn both(side: Shape) -> Shape {
    Shape { square: 3 * side.square, wide: 2 * side.wide, ..side }
}

/// What one rank has of a model that is trained as a whole, reckoned before it is built.
pub fn whole(config: &ModelConfig, layout: Layout) -> Counts {
    Counts::whole(Shape::of(config).parameters() / (layout.tensor * layout.pipeline) as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn device_has_room_for_what_is_between_operations_and_for_choices_of_dropout() {
        let of = |dropout: f64, kernels| {
            let text = format!(
                "(model: Gpt(dropout: {dropout}), data: (train: Text([\"a\"])), steps: 1, batch: 8, out: \"b\")"
            );
            let spec = TrainSpec::parse(&text, "a.ron").unwrap();
            let config = format!("{{\"model_type\": \"gpt2\", \"vocab_size\": 100, \"n_positions\": 64, \"n_embd\": 128,
                \"n_layer\": 4, \"n_head\": 4, \"resid_pdrop\": {dropout}, \"attn_pdrop\": {dropout}, \"embd_pdrop\": {dropout}}}");
            let config = ModelConfig::from_json(&config).unwrap();
            let counts = whole(&config, Layout::ONE);
            Memory::of(&spec, &config, &spec.task().unwrap(), (Layout::ONE, kernels), counts).activations
        };
        let fused = of(0.0, Kernels::Fused);
        assert_eq!(fused, of(0.1, Kernels::Fused));
        let (without, with) = (of(0.0, Kernels::Composed), of(0.1, Kernels::Composed));
        // Five times the scores of 8 rows and 4 heads with 64 tokens each.
        assert!(without >= fused + 5 * 4 * 8 * 4 * 64 * 64, "{without} beside {fused}");
        // A byte for each score and each number of both sums, in 4 blocks.
        assert_eq!(with - without, 4 * (8 * 4 * 64 * 64 + 2 * 8 * 64 * 128));
    }
}
