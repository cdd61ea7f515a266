//! GPT in the form of Llama, under Hugging Face's names.

use super::config::LlamaConfig;
use super::{Decoder, ModelConfig};
use crate::Result;
use crate::nn::{Attention, FeedForward, Layer, Linear, Norm, Order, Projections};
use crate::ops::linear::Layout;
use crate::parameters::{Init, Parameters};

/// A new model.
pub(super) fn build(config: &LlamaConfig, mut parameters: Parameters) -> Result<Decoder> {
    let init = Init::Normal(config.initializer_range);
    let shape = [config.vocab_size, config.hidden_size];
    let tokens = parameters.add("model.embed_tokens.weight", &shape, init)?;
    let layers =
        (0..config.num_hidden_layers).map(|i| layer(&mut parameters, config, i)).collect::<Result<_>>()?;
    let norm = Norm::rms(&mut parameters, "model.norm", config.hidden_size, config.rms_norm_eps)?;
    let head = match config.tie_word_embeddings {
        true => tokens,
        false => parameters.add("lm_head.weight", &shape, init)?,
    };
    let (rotary, config) = (Some((config.head_size(), config.theta())), ModelConfig::Llama(config.clone()));
    Ok(Decoder { config, parameters, tokens, positions: None, rotary, dropout: 0.0, layers, norm, head })
}

fn layer(parameters: &mut Parameters, config: &LlamaConfig, number: usize) -> Result<Layer> {
    let (width, size, inner) = (config.hidden_size, config.head_size(), config.intermediate_size);
    let (heads, kv_heads) = (config.num_attention_heads, config.kv_heads());
    let name = |part: &str| format!("model.layers.{number}.{part}");
    let linear = |parameters: &mut Parameters, part: &str, sizes, bias| {
        Linear::new(
            parameters,
            &name(part),
            sizes,
            bias,
            Layout::OutIn,
            Init::Normal(config.initializer_range),
        )
    };
    let norm = |parameters: &mut Parameters, part: &str| {
        Norm::rms(parameters, &name(part), width, config.rms_norm_eps)
    };
    let attention = Attention {
        projections: Projections::Separate([
            linear(parameters, "self_attn.q_proj", [width, heads * size], config.attention_bias)?,
            linear(parameters, "self_attn.k_proj", [width, kv_heads * size], config.attention_bias)?,
            linear(parameters, "self_attn.v_proj", [width, kv_heads * size], config.attention_bias)?,
        ]),
        out: linear(parameters, "self_attn.o_proj", [heads * size, width], config.attention_bias)?,
        heads,
        kv_heads,
        scale: (size as f64).sqrt().recip(),
        dropout: config.attention_dropout,
        relative: None,
        place: number,
    };
    let feed = FeedForward {
        up: linear(parameters, "mlp.gate_proj", [width, inner], config.mlp_bias)?,
        gate: Some(linear(parameters, "mlp.up_proj", [width, inner], config.mlp_bias)?),
        down: linear(parameters, "mlp.down_proj", [inner, width], config.mlp_bias)?,
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
