//! What tensors are called in GGUF, and how they are turned on the way there.

use super::ExportError;
use crate::ModelConfig;

/// What is done to a tensor on its way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Turn {
    /// Nothing: rows are outputs.
    Same,
    /// GPT-2's files have columns as outputs.
    Transposed,
    /// Rotary positions turn neighbours in llama.cpp and halves in Hugging Face's files: rows of each of so many heads
    /// change their places.
    Interleaved { heads: usize },
    /// Every number is multiplied.
    Scaled(f64),
}

/// The place of a tensor in GGUF; none for one that GGUF's model does without.
///
/// # Errors
///
/// A tensor that the format has no place for.
pub fn place(config: &ModelConfig, name: &str) -> Result<Option<(String, Turn)>, ExportError> {
    let found = match config {
        ModelConfig::Gpt2(_) => gpt2(name),
        ModelConfig::Llama(llama) => match llama_place(name) {
            Some((place, _)) if place.contains("attn_q.") => {
                Some((place, Turn::Interleaved { heads: llama.num_attention_heads }))
            }
            Some((place, _)) if place.contains("attn_k.") => {
                Some((place, Turn::Interleaved { heads: llama.kv_heads() }))
            }
            other => other,
        },
        // Heads are not part of an encoder in GGUF.
        ModelConfig::Bert(_)
            if ["cls.", "classifier.", "qa_outputs.", "bert.pooler.", "pooler."]
                .iter()
                .any(|head| name.starts_with(head)) =>
        {
            return Ok(None);
        }
        ModelConfig::Bert(_) => bert(name),
        ModelConfig::T5(_) => t5(name),
        ModelConfig::Marian(_) => return Err(ExportError::NoModel("encoder-decoder of the original form")),
    };
    found.map(Some).ok_or_else(|| ExportError::Tensor(name.to_owned()))
}

/// The number of a block and the rest of a name, `h.3.ln_1.weight` → (3, `ln_1`, `weight`).
fn block<'a>(name: &'a str, before: &str) -> Option<(u32, &'a str, &'a str)> {
    let (number, rest) = name.strip_prefix(before)?.split_once('.')?;
    let (part, end) = rest.rsplit_once('.')?;
    Some((number.parse().ok()?, part, end))
}

fn gpt2(name: &str) -> Option<(String, Turn)> {
    let name = name.strip_prefix("transformer.").unwrap_or(name);
    let whole = match name {
        "wte.weight" => "token_embd.weight",
        "wpe.weight" => "position_embd.weight",
        "ln_f.weight" => "output_norm.weight",
        "ln_f.bias" => "output_norm.bias",
        "lm_head.weight" => "output.weight",
        _ => "",
    };
    if !whole.is_empty() {
        return Some((whole.into(), Turn::Same));
    }
    let (number, part, end) = block(name, "h.")?;
    let (part, matrix) = match part {
        "ln_1" => ("attn_norm", false),
        "attn.c_attn" => ("attn_qkv", true),
        "attn.c_proj" => ("attn_output", true),
        "ln_2" => ("ffn_norm", false),
        "mlp.c_fc" => ("ffn_up", true),
        "mlp.c_proj" => ("ffn_down", true),
        _ => return None,
    };
    let turn = if matrix && end == "weight" { Turn::Transposed } else { Turn::Same };
    Some((format!("blk.{number}.{part}.{end}"), turn))
}

fn llama_place(name: &str) -> Option<(String, Turn)> {
    let name = name.strip_prefix("model.").unwrap_or(name);
    let whole = match name {
        "embed_tokens.weight" => "token_embd.weight",
        "norm.weight" => "output_norm.weight",
        "lm_head.weight" => "output.weight",
        _ => "",
    };
    if !whole.is_empty() {
        return Some((whole.into(), Turn::Same));
    }
    let (number, part, end) = block(name, "layers.")?;
    let part = match part {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some((format!("blk.{number}.{part}.{end}"), Turn::Same))
}

fn bert(name: &str) -> Option<(String, Turn)> {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    let whole = match name {
        "embeddings.word_embeddings.weight" => "token_embd.weight",
        "embeddings.position_embeddings.weight" => "position_embd.weight",
        "embeddings.token_type_embeddings.weight" => "token_types.weight",
        "embeddings.LayerNorm.weight" => "token_embd_norm.weight",
        "embeddings.LayerNorm.bias" => "token_embd_norm.bias",
        _ => "",
    };
    if !whole.is_empty() {
        return Some((whole.into(), Turn::Same));
    }
    let (number, part, end) = block(name, "encoder.layer.")?;
    let part = match part {
        "attention.self.query" => "attn_q",
        "attention.self.key" => "attn_k",
        "attention.self.value" => "attn_v",
        "attention.output.dense" => "attn_output",
        "attention.output.LayerNorm" => "attn_output_norm",
        "intermediate.dense" => "ffn_up",
        "output.dense" => "ffn_down",
        "output.LayerNorm" => "layer_output_norm",
        _ => return None,
    };
    Some((format!("blk.{number}.{part}.{end}"), Turn::Same))
}

fn t5(name: &str) -> Option<(String, Turn)> {
    let whole = match name {
        "shared.weight" => "token_embd.weight",
        "lm_head.weight" => "output.weight",
        "encoder.final_layer_norm.weight" => "enc.output_norm.weight",
        "decoder.final_layer_norm.weight" => "dec.output_norm.weight",
        _ => "",
    };
    if !whole.is_empty() {
        return Some((whole.into(), Turn::Same));
    }
    let (side, feed) = if name.starts_with("encoder.") { ("enc", "layer.1") } else { ("dec", "layer.2") };
    let (number, part, end) = block(name, "encoder.block.").or_else(|| block(name, "decoder.block."))?;
    let (layer, part) = (&part[..part.len().min(7)], part.get(8..)?);
    let part = match (layer, part) {
        ("layer.0", "layer_norm") => "attn_norm",
        ("layer.0", "SelfAttention.q") => "attn_q",
        ("layer.0", "SelfAttention.k") => "attn_k",
        ("layer.0", "SelfAttention.v") => "attn_v",
        ("layer.0", "SelfAttention.o") => "attn_o",
        ("layer.0", "SelfAttention.relative_attention_bias") => "attn_rel_b",
        (layer, "layer_norm") if layer == feed => "ffn_norm",
        (layer, "DenseReluDense.wi" | "DenseReluDense.wi_1") if layer == feed => "ffn_up",
        (layer, "DenseReluDense.wi_0") if layer == feed => "ffn_gate",
        (layer, "DenseReluDense.wo") if layer == feed => "ffn_down",
        ("layer.1", "layer_norm") => "cross_attn_norm",
        ("layer.1", "EncDecAttention.q") => "cross_attn_q",
        ("layer.1", "EncDecAttention.k") => "cross_attn_k",
        ("layer.1", "EncDecAttention.v") => "cross_attn_v",
        ("layer.1", "EncDecAttention.o") => "cross_attn_o",
        _ => return None,
    };
    Some((format!("{side}.blk.{number}.{part}.{end}"), Turn::Same))
}
