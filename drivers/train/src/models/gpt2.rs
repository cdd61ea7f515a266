//! GPT in the form of GPT-2, under Hugging Face's names.

use super::config::Gpt2Config;
use super::{Decoder, ModelConfig};
use crate::Result;
use crate::nn::{Attention, FeedForward, Layer, Linear, Norm, Order, Projections};
use crate::ops::linear::Layout;
use crate::parameters::{Init, Parameters};

/// A new model.
pub(super) fn build(config: &Gpt2Config, mut parameters: Parameters) -> Result<Decoder> {
    let init = Init::Normal(config.initializer_range);
    let table = |parameters: &mut Parameters, name, rows| parameters.add(name, &[rows, config.n_embd], init);
    let tokens = table(&mut parameters, "transformer.wte.weight", config.vocab_size)?;
    let positions = Some(table(&mut parameters, "transformer.wpe.weight", config.n_positions)?);
    let layers = (0..config.n_layer).map(|i| layer(&mut parameters, config, i)).collect::<Result<_>>()?;
    let norm = Norm::layer(&mut parameters, "transformer.ln_f", config.n_embd, config.layer_norm_epsilon)?;
    let head = match config.tie_word_embeddings {
        true => tokens,
        false => table(&mut parameters, "lm_head.weight", config.vocab_size)?,
    };
    let (dropout, config) = (config.embd_pdrop, ModelConfig::Gpt2(config.clone()));
    Ok(Decoder { config, parameters, tokens, positions, rotary: None, dropout, layers, norm, head })
}

fn layer(parameters: &mut Parameters, config: &Gpt2Config, number: usize) -> Result<Layer> {
    let width = config.n_embd;
    let init = Init::Normal(config.initializer_range);
    // Each layer adds twice to the sum that goes through all of them (GPT-2, section 2.3).
    let last = Init::Normal(config.initializer_range / (2.0 * config.n_layer as f64).sqrt());
    let inner = config.n_inner.unwrap_or(4 * width);
    let name = |part: &str| format!("transformer.h.{number}.{part}");
    let linear = |parameters: &mut Parameters, part: &str, sizes, init| {
        Linear::new(parameters, &name(part), sizes, true, Layout::InOut, init)
    };
    let norm = |parameters: &mut Parameters, part: &str| {
        Norm::layer(parameters, &name(part), width, config.layer_norm_epsilon)
    };
    let attention_norm = norm(parameters, "ln_1")?;
    let attention = Attention {
        projections: Projections::Packed(linear(parameters, "attn.c_attn", [width, 3 * width], init)?),
        out: linear(parameters, "attn.c_proj", [width, width], last)?,
        heads: config.n_head,
        kv_heads: config.n_head,
        scale: ((width / config.n_head) as f64).sqrt().recip(),
        dropout: config.attn_pdrop,
        relative: None,
        place: number,
    };
    let feed_norm = norm(parameters, "ln_2")?;
    let feed = FeedForward {
        up: linear(parameters, "mlp.c_fc", [width, inner], init)?,
        gate: None,
        down: linear(parameters, "mlp.c_proj", [inner, width], last)?,
        activation: config.activation_function,
        dropout: 0.0,
    };
    Ok(Layer {
        attention: (attention, attention_norm),
        source: None,
        feed: (feed, feed_norm),
        order: Order::Before,
        dropout: config.resid_pdrop,
        number: number as u32,
    })
}
