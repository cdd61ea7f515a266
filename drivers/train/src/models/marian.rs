//! The Transformer in its original form (Vaswani et al., "Attention is all you need", 2017), under the names of Hugging
//! Face's Marian: norms after the sums, sinusoidal positions, one table of tokens for both sides and the output.

use candle_core::{DType, Device, Tensor};

use super::config::MarianConfig;
use super::decoder::EMBEDDING_SITE;
use super::head::table;
use super::transformer::{Share, Stack, stages};
use super::{ModelConfig, Transformer};
use crate::nn::{Attention, FeedForward, Layer, Linear, Norm, Order, Projections, Split};
use crate::ops::linear::Layout;
use crate::parameters::{Init, Parameters};
use crate::{Error, Result};

/// The epsilon of PyTorch's LayerNorm; the configuration has none.
const EPSILON: f64 = 1e-5;

/// A new model.
pub(super) fn build(config: &MarianConfig, mut parameters: Parameters) -> Result<Transformer> {
    if !config.share_encoder_decoder_embeddings || !config.tie_word_embeddings {
        return Err(Error::Config("marian: both sides and the output must share one table of tokens".into()));
    }
    let init = Init::Normal(config.init_std);
    let [encoder, decoder] = stages(&parameters, config.encoder_layers, config.decoder_layers)?;
    let (reads, dims) = (encoder.ends[0] || decoder.ends[0], [config.vocab_size, config.d_model]);
    let tokens = table(&mut parameters, "model.shared.weight", dims, (reads, true), init)?;
    let last = parameters.mesh().is_last_stage();
    let bias = match last {
        true => {
            let part = parameters.share(&[1, config.vocab_size], 1, 1)?;
            Some(parameters.add_part("final_logits_bias", part, Init::Zeros)?)
        }
        false => None,
    };
    let mut stack = |share: Share, decoder, site| {
        let layers = share.layers.map(|i| layer(&mut parameters, config, decoder, i));
        Ok::<_, Error>(Stack { layers: layers.collect::<Result<_>>()?, norm: None, ends: share.ends, site })
    };
    let (encoder, decoder) =
        (stack(encoder, false, EMBEDDING_SITE)?, stack(decoder, true, EMBEDDING_SITE + 4)?);
    parameters.set_trainable(|name| name != "final_logits_bias");
    Ok(Transformer {
        scale: if config.scale_embedding { (config.d_model as f64).sqrt() } else { 1.0 },
        positions: Some(
            sinusoids(config.max_position_embeddings, config.d_model, parameters.dtype())?
                .to_device(parameters.device())?,
        ),
        buckets: None,
        dropout: config.dropout,
        encoder,
        decoder,
        head: tokens.filter(|_| last).map(|tokens| (tokens, bias, 1.0)),
        config: ModelConfig::Marian(config.clone()),
        parameters,
        tokens,
    })
}

/// Sines in the first half of the width, cosines in the second.
fn sinusoids(positions: usize, width: usize, dtype: DType) -> Result<Tensor> {
    let half = width.div_ceil(2);
    let number = |position: usize, i: usize| {
        let angle = |i: usize| position as f64 / 10_000f64.powf(2.0 * i as f64 / width as f64);
        if i < half { angle(i).sin() } else { angle(i - half).cos() }
    };
    let table: Vec<f64> = (0..positions).flat_map(|p| (0..width).map(move |i| number(p, i))).collect();
    Ok(Tensor::from_vec(table, (positions, width), &Device::Cpu)?.to_dtype(dtype)?)
}

fn layer(parameters: &mut Parameters, config: &MarianConfig, decoder: bool, number: usize) -> Result<Layer> {
    let (side, heads, inner) = match decoder {
        false => ("encoder", config.encoder_attention_heads, config.encoder_ffn_dim),
        true => ("decoder", config.decoder_attention_heads, config.decoder_ffn_dim),
    };
    // Both sides count on: dropout and the cache tell layers apart by their numbers.
    let place = if decoder { config.encoder_layers + number } else { number };
    let width = config.d_model;
    let name = |part: &str| format!("model.{side}.layers.{number}.{part}");
    let linear = |parameters: &mut Parameters, part: &str, sizes, split| {
        Linear::new(parameters, &name(part), sizes, true, Layout::OutIn, split, Init::Normal(config.init_std))
    };
    let norm = |parameters: &mut Parameters, part: &str| Norm::layer(parameters, &name(part), width, EPSILON);
    let attention = |parameters: &mut Parameters, part: &str, place| {
        let mut linear = |end: &str| {
            let split = if end == "out_proj" { Split::Inputs } else { Split::OUTPUTS };
            linear(parameters, &format!("{part}.{end}"), [width, width], split)
        };
        // Hugging Face's order, k first, is the order in which its files list them.
        let (k, v, q, out) = (linear("k_proj")?, linear("v_proj")?, linear("q_proj")?, linear("out_proj")?);
        Ok::<_, Error>(Attention {
            projections: Projections::Separate([q, k, v]),
            out,
            heads: parameters.heads(heads, heads)?,
            scale: ((width / heads) as f64).sqrt().recip(),
            dropout: config.attention_dropout,
            relative: None,
            place,
        })
    };
    let itself = attention(parameters, "self_attn", 2 * place)?;
    let itself = (itself, norm(parameters, "self_attn_layer_norm")?);
    let source = match decoder {
        true => {
            let source = attention(parameters, "encoder_attn", 2 * place + 1)?;
            Some((source, norm(parameters, "encoder_attn_layer_norm")?))
        }
        false => None,
    };
    let feed = FeedForward {
        up: linear(parameters, "fc1", [width, inner], Split::OUTPUTS)?,
        gate: None,
        down: linear(parameters, "fc2", [inner, width], Split::Inputs)?,
        inner,
        activation: config.activation_function,
        dropout: config.activation_dropout,
    };
    Ok(Layer {
        attention: itself,
        source,
        feed: (feed, norm(parameters, "final_layer_norm")?),
        order: Order::After,
        dropout: config.dropout,
        number: place as u32,
    })
}
