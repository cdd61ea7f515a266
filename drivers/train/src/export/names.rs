//! What tensors are called in GGUF, and how they are turned on the way there and back.

use super::ExportError;
use crate::ModelConfig;
use crate::models::config::T5FeedForward;

/// What is done to a tensor on its way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Turn {
    /// Nothing: rows are outputs.
    Same,
    /// GPT-2's files have columns as outputs.
    Transposed,
    /// Rotary positions turn neighbours in llama.cpp's Llama and halves in Hugging Face's files: rows of each of so many
    /// heads change their places. Of Qwen2 both turn halves.
    Interleaved { heads: usize },
    /// Every number is multiplied.
    Scaled(f64),
}

/// The names of an architecture: in Hugging Face's files, and in GGUF.
struct Names {
    /// What names begin with in Hugging Face's files, but for those of the output layer. Some have it left out.
    prefix: &'static str,
    /// Tensors that there is one of.
    single: &'static [(&'static str, &'static str)],
    /// Parts of blocks, with what stands before a block's number.
    blocks: &'static [Block],
}

/// The blocks of one side.
struct Block {
    before: (&'static str, &'static str),
    parts: &'static [(&'static str, &'static str)],
}

/// The output layer, which has no prefix.
pub const OUTPUT: &str = "lm_head.weight";

/// What the frequencies of rotary positions are divided by, in GGUF alone.
pub const DIVISORS: &str = "rope_freqs.weight";

const GPT2: Names = Names {
    prefix: "transformer.",
    single: &[
        ("wte.weight", "token_embd.weight"),
        ("wpe.weight", "position_embd.weight"),
        ("ln_f.weight", "output_norm.weight"),
        ("ln_f.bias", "output_norm.bias"),
        (OUTPUT, "output.weight"),
    ],
    blocks: &[Block {
        before: ("h.", "blk."),
        parts: &[
            ("ln_1", "attn_norm"),
            ("attn.c_attn", "attn_qkv"),
            ("attn.c_proj", "attn_output"),
            ("ln_2", "ffn_norm"),
            ("mlp.c_fc", "ffn_up"),
            ("mlp.c_proj", "ffn_down"),
        ],
    }],
};

const LLAMA: Names = Names {
    prefix: "model.",
    single: &[
        ("embed_tokens.weight", "token_embd.weight"),
        ("norm.weight", "output_norm.weight"),
        (OUTPUT, "output.weight"),
    ],
    blocks: &[Block {
        before: ("layers.", "blk."),
        parts: &[
            ("input_layernorm", "attn_norm"),
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("post_attention_layernorm", "ffn_norm"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
        ],
    }],
};

const BERT: Names = Names {
    prefix: "bert.",
    single: &[
        ("embeddings.word_embeddings.weight", "token_embd.weight"),
        ("embeddings.position_embeddings.weight", "position_embd.weight"),
        ("embeddings.token_type_embeddings.weight", "token_types.weight"),
        ("embeddings.LayerNorm.weight", "token_embd_norm.weight"),
        ("embeddings.LayerNorm.bias", "token_embd_norm.bias"),
    ],
    blocks: &[Block {
        before: ("encoder.layer.", "blk."),
        parts: &[
            ("attention.self.query", "attn_q"),
            ("attention.self.key", "attn_k"),
            ("attention.self.value", "attn_v"),
            ("attention.output.dense", "attn_output"),
            ("attention.output.LayerNorm", "attn_output_norm"),
            ("intermediate.dense", "ffn_up"),
            ("output.dense", "ffn_down"),
            ("output.LayerNorm", "layer_output_norm"),
        ],
    }],
};

const T5: Names = Names {
    prefix: "",
    single: &[
        ("shared.weight", "token_embd.weight"),
        (OUTPUT, "output.weight"),
        ("encoder.final_layer_norm.weight", "enc.output_norm.weight"),
        ("decoder.final_layer_norm.weight", "dec.output_norm.weight"),
    ],
    blocks: &[
        Block {
            before: ("encoder.block.", "enc.blk."),
            parts: &[
                ("layer.0.layer_norm", "attn_norm"),
                ("layer.0.SelfAttention.q", "attn_q"),
                ("layer.0.SelfAttention.k", "attn_k"),
                ("layer.0.SelfAttention.v", "attn_v"),
                ("layer.0.SelfAttention.o", "attn_o"),
                ("layer.0.SelfAttention.relative_attention_bias", "attn_rel_b"),
                ("layer.1.layer_norm", "ffn_norm"),
                ("layer.1.DenseReluDense.wi", "ffn_up"),
                ("layer.1.DenseReluDense.wi_1", "ffn_up"),
                ("layer.1.DenseReluDense.wi_0", "ffn_gate"),
                ("layer.1.DenseReluDense.wo", "ffn_down"),
            ],
        },
        Block {
            before: ("decoder.block.", "dec.blk."),
            parts: &[
                ("layer.0.layer_norm", "attn_norm"),
                ("layer.0.SelfAttention.q", "attn_q"),
                ("layer.0.SelfAttention.k", "attn_k"),
                ("layer.0.SelfAttention.v", "attn_v"),
                ("layer.0.SelfAttention.o", "attn_o"),
                ("layer.0.SelfAttention.relative_attention_bias", "attn_rel_b"),
                ("layer.1.layer_norm", "cross_attn_norm"),
                ("layer.1.EncDecAttention.q", "cross_attn_q"),
                ("layer.1.EncDecAttention.k", "cross_attn_k"),
                ("layer.1.EncDecAttention.v", "cross_attn_v"),
                ("layer.1.EncDecAttention.o", "cross_attn_o"),
                ("layer.2.layer_norm", "ffn_norm"),
                ("layer.2.DenseReluDense.wi", "ffn_up"),
                ("layer.2.DenseReluDense.wi_1", "ffn_up"),
                ("layer.2.DenseReluDense.wi_0", "ffn_gate"),
                ("layer.2.DenseReluDense.wo", "ffn_down"),
            ],
        },
    ],
};

/// Heads, which are not part of an encoder in GGUF.
const HEADS: [&str; 5] = ["cls.", "classifier.", "qa_outputs.", "bert.pooler.", "pooler."];

fn names(config: &ModelConfig) -> Result<&'static Names, ExportError> {
    match config {
        ModelConfig::Gpt2(_) => Ok(&GPT2),
        ModelConfig::Llama(_) | ModelConfig::Qwen2(_) => Ok(&LLAMA),
        ModelConfig::Bert(_) => Ok(&BERT),
        ModelConfig::T5(_) => Ok(&T5),
        ModelConfig::Marian(_) => Err(ExportError::NoModel("encoder-decoder of the original form")),
    }
}

/// The place of a tensor in GGUF; none for one that GGUF's model does without.
///
/// # Errors
///
/// A tensor that the format has no place for.
pub fn place(config: &ModelConfig, name: &str) -> Result<Option<(String, Turn)>, ExportError> {
    let names = names(config)?;
    if matches!(config, ModelConfig::Bert(_)) && HEADS.iter().any(|head| name.starts_with(head)) {
        return Ok(None);
    }
    let bare = name.strip_prefix(names.prefix).unwrap_or(name);
    let single = names.single.iter().find(|(from, _)| *from == bare).map(|(_, to)| (*to).to_owned());
    let in_block = || {
        names.blocks.iter().find_map(|side| {
            let (number, part, end) = block(bare, side.before.0)?;
            let (_, to) = side.parts.iter().find(|(from, _)| *from == part)?;
            Some(format!("{}{number}.{to}.{end}", side.before.1))
        })
    };
    let place = single.or_else(in_block).ok_or_else(|| ExportError::Tensor(name.to_owned()))?;
    let turn = turn(config, &place);
    Ok(Some((place, turn)))
}

/// The name of a tensor of GGUF in Hugging Face's files, and how it was turned; none where the architecture has no such
/// tensor.
///
/// # Errors
///
/// An architecture that GGUF has not.
pub fn origin(config: &ModelConfig, place: &str) -> Result<Option<(String, Turn)>, ExportError> {
    let names = names(config)?;
    let single = names.single.iter().find(|(_, to)| *to == place).map(|(from, _)| (*from).to_owned());
    let in_block = || {
        names.blocks.iter().find_map(|side| {
            let (number, part, end) = block(place, side.before.1)?;
            let fits = |(from, to): &&(&str, &str)| *to == part && (part != "ffn_up" || is_up(config, from));
            let (from, _) = side.parts.iter().find(fits)?;
            Some(format!("{}{number}.{from}.{end}", side.before.0))
        })
    };
    let Some(bare) = single.or_else(in_block) else { return Ok(None) };
    let name = if bare == OUTPUT { bare } else { format!("{}{bare}", names.prefix) };
    Ok(Some((name, turn(config, place))))
}

/// T5's wide layer has another name where there is a gate beside it.
fn is_up(config: &ModelConfig, from: &str) -> bool {
    match config {
        ModelConfig::T5(c) => from.ends_with("wi") == (c.feed_forward_proj == T5FeedForward::Relu),
        _ => true,
    }
}

/// How a tensor at a place in GGUF was turned on the way there.
fn turn(config: &ModelConfig, place: &str) -> Turn {
    const MATRICES: [&str; 4] = ["attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight"];
    match config {
        ModelConfig::Gpt2(_) if MATRICES.iter().any(|end| place.ends_with(end)) => Turn::Transposed,
        ModelConfig::Llama(c) if place.contains(".attn_q.") => {
            Turn::Interleaved { heads: c.num_attention_heads }
        }
        ModelConfig::Llama(c) if place.contains(".attn_k.") => Turn::Interleaved { heads: c.kv_heads() },
        _ => Turn::Same,
    }
}

/// The number of a block and the rest of a name, `h.3.ln_1.weight` → (3, `ln_1`, `weight`).
fn block<'a>(name: &'a str, before: &str) -> Option<(u32, &'a str, &'a str)> {
    let (number, rest) = name.strip_prefix(before)?.split_once('.')?;
    let (part, end) = rest.rsplit_once('.')?;
    Some((number.parse().ok()?, part, end))
}
