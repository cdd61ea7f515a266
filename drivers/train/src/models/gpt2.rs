//! GPT in the form of GPT-2, under Hugging Face's names.

use super::config::Gpt2Config;
use super::head::{output, table};
use super::{Decoder, ModelConfig};
use crate::Result;
use crate::nn::{Attention, FeedForward, Layer, Linear, Norm, Order, Projections, Split};
use crate::ops::linear::Layout;
use crate::parameters::{Init, Parameters};

/// A new model.
pub(super) fn build(config: &Gpt2Config, mut parameters: Parameters) -> Result<Decoder> {
    let init = Init::Normal(config.initializer_range);
    let (width, tied, first) =
        (config.n_embd, config.tie_word_embeddings, parameters.mesh().is_first_stage());
    let dims = [config.vocab_size, width];
    let tokens = table(&mut parameters, "transformer.wte.weight", dims, (first, tied), init)?;
    let positions = match first {
        true => Some(parameters.add("transformer.wpe.weight", &[config.n_positions, width], init)?),
        false => None,
    };
    let stage = parameters.stage(config.n_layer)?;
    let layers = stage.map(|i| layer(&mut parameters, config, i)).collect::<Result<_>>()?;
    let end = match parameters.mesh().is_last_stage() {
        true => {
            let norm = Norm::layer(&mut parameters, "transformer.ln_f", width, config.layer_norm_epsilon)?;
            output(&mut parameters, "lm_head.weight", dims, tokens, (tied, init))?.map(|head| (norm, head))
        }
        false => None,
    };
    let (dropout, config) = (config.embd_pdrop, ModelConfig::Gpt2(config.clone()));
    Ok(Decoder { config, parameters, tokens, positions, rotary: None, dropout, layers, end })
}

fn layer(parameters: &mut Parameters, config: &Gpt2Config, number: usize) -> Result<Layer> {
    let width = config.n_embd;
    let init = Init::Normal(config.initializer_range);
    // Each layer adds twice to the sum that goes through all of them (GPT-2, section 2.3).
    let last = Init::Normal(config.initializer_range / (2.0 * config.n_layer as f64).sqrt());
    let inner = config.n_inner.unwrap_or(4 * width);
    let name = |part: &str| format!("transformer.h.{number}.{part}");
    let linear = |parameters: &mut Parameters, part: &str, sizes, split, init| {
        Linear::new(parameters, &name(part), sizes, true, Layout::InOut, split, init)
    };
    let norm = |parameters: &mut Parameters, part: &str| {
        Norm::layer(parameters, &name(part), width, config.layer_norm_epsilon)
    };
    let attention_norm = norm(parameters, "ln_1")?;
    let attention = Attention {
        projections: Projections::Packed(linear(
            parameters,
            "attn.c_attn",
            [width, 3 * width],
            Split::Outputs { blocks: 3 },
            init,
        )?),
        out: linear(parameters, "attn.c_proj", [width, width], Split::Inputs, last)?,
        heads: parameters.heads(config.n_head, config.n_head)?,
        scale: ((width / config.n_head) as f64).sqrt().recip(),
        dropout: config.attn_pdrop,
        relative: None,
        place: number,
    };
    let feed_norm = norm(parameters, "ln_2")?;
    let feed = FeedForward {
        up: linear(parameters, "mlp.c_fc", [width, inner], Split::OUTPUTS, init)?,
        gate: None,
        down: linear(parameters, "mlp.c_proj", [inner, width], Split::Inputs, last)?,
        inner,
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
