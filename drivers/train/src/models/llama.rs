//! GPT in the form of Llama, and in that of Qwen2, which has biases on queries, keys and values, under Hugging Face's
//! names.

use super::config::LlamaConfig;
use super::head::{output, table};
use super::{Decoder, ModelConfig};
use crate::Result;
use crate::nn::{Attention, FeedForward, Layer, Linear, Norm, Order, Projections, Split};
use crate::ops::linear::Layout;
use crate::parameters::{Init, Parameters};

/// A new model.
pub(super) fn build(
    whole: &ModelConfig,
    config: &LlamaConfig,
    mut parameters: Parameters,
) -> Result<Decoder> {
    let biases = match whole {
        ModelConfig::Qwen2(_) => Biases { projections: true, out: false },
        _ => Biases { projections: config.attention_bias, out: config.attention_bias },
    };
    let init = Init::Normal(config.initializer_range);
    let (tied, first) = (config.tie_word_embeddings, parameters.mesh().is_first_stage());
    let dims = [config.vocab_size, config.hidden_size];
    let tokens = table(&mut parameters, "model.embed_tokens.weight", dims, (first, tied), init)?;
    let stage = parameters.stage(config.num_hidden_layers)?;
    let layers = stage.map(|i| layer(&mut parameters, config, biases, i)).collect::<Result<_>>()?;
    let end = match parameters.mesh().is_last_stage() {
        true => {
            let norm = Norm::rms(&mut parameters, "model.norm", config.hidden_size, config.rms_norm_eps)?;
            output(&mut parameters, "lm_head.weight", dims, tokens, (tied, init))?.map(|head| (norm, head))
        }
        false => None,
    };
    let (rotary, config) = (Some(config.rotation()?), whole.clone());
    Ok(Decoder { config, parameters, tokens, positions: None, rotary, dropout: 0.0, layers, end })
}

/// Which of attention's products have biases.
#[derive(Clone, Copy)]
struct Biases {
    /// Queries, keys and values.
    projections: bool,
    out: bool,
}

fn layer(parameters: &mut Parameters, config: &LlamaConfig, biases: Biases, number: usize) -> Result<Layer> {
    let (width, size, inner) = (config.hidden_size, config.head_size(), config.intermediate_size);
    let (heads, kv_heads) = (config.num_attention_heads, config.kv_heads());
    let name = |part: &str| format!("model.layers.{number}.{part}");
    let linear = |parameters: &mut Parameters, part: &str, sizes, split, bias| {
        let init = Init::Normal(config.initializer_range);
        Linear::new(parameters, &name(part), sizes, bias, Layout::OutIn, split, init)
    };
    let out = Split::OUTPUTS;
    let norm = |parameters: &mut Parameters, part: &str| {
        Norm::rms(parameters, &name(part), width, config.rms_norm_eps)
    };
    let attention = Attention {
        projections: Projections::Separate([
            linear(parameters, "self_attn.q_proj", [width, heads * size], out, biases.projections)?,
            linear(parameters, "self_attn.k_proj", [width, kv_heads * size], out, biases.projections)?,
            linear(parameters, "self_attn.v_proj", [width, kv_heads * size], out, biases.projections)?,
        ]),
        out: linear(parameters, "self_attn.o_proj", [heads * size, width], Split::Inputs, biases.out)?,
        heads: parameters.heads(heads, kv_heads)?,
        scale: (size as f64).sqrt().recip(),
        dropout: config.attention_dropout,
        relative: None,
        place: number,
    };
    let feed = FeedForward {
        up: linear(parameters, "mlp.gate_proj", [width, inner], out, config.mlp_bias)?,
        gate: Some(linear(parameters, "mlp.up_proj", [width, inner], out, config.mlp_bias)?),
        down: linear(parameters, "mlp.down_proj", [inner, width], Split::Inputs, config.mlp_bias)?,
        inner,
        activation: config.hidden_act,
        dropout: 0.0,
    };
    Ok(Layer {
        attention: (attention, norm(parameters, "input_layernorm")?),
        source: None,
        feed: (feed, norm(parameters, "post_attention_layernorm")?),
        order: Order::Before,
        dropout: 0.0,
        number: number as u32,
    })
}
