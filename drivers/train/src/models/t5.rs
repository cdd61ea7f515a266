//! The Transformer in the form of T5 (Raffel et al., 2020), under Hugging Face's names: norms before and without a
//! mean, no biases, a bias by distance in the scores, and from version 1.1 on a gate.

use std::sync::Arc;

use super::config::{Activation, T5Config, T5FeedForward};
use super::decoder::EMBEDDING_SITE;
use super::head::{output, table};
use super::transformer::{Share, Stack, stages};
use super::{ModelConfig, Transformer};
use crate::Result;
use crate::nn::{Attention, FeedForward, Layer, Linear, Norm, Order, Projections, Split};
use crate::ops::linear::Layout;
use crate::parameters::{Id, Init, Parameters};

/// A new model.
pub(super) fn build(config: &T5Config, mut parameters: Parameters) -> Result<Transformer> {
    let shape = [config.vocab_size, config.d_model];
    let (tied, init) = (config.tie_word_embeddings, Init::Normal(config.initializer_factor));
    let layers = config.num_decoder_layers.unwrap_or(config.num_layers);
    let [encoder, decoder] = stages(&parameters, config.num_layers, layers)?;
    let reads = encoder.ends[0] || decoder.ends[0];
    let tokens = table(&mut parameters, "shared.weight", shape, (reads, tied), init)?;
    let encoder = stack(&mut parameters, config, "encoder", encoder, 0)?;
    let decoder = stack(&mut parameters, config, "decoder", decoder, config.num_layers)?;
    let weight = output(&mut parameters, "lm_head.weight", shape, tokens, (tied, init))?;
    // The numbers of a table that is also the output layer are too large for that (Mesh TensorFlow's rule).
    let scaled = config.scale_decoder_outputs.unwrap_or(config.tie_word_embeddings);
    let factor = if scaled { (config.d_model as f64).sqrt().recip() } else { 1.0 };
    let head = weight.map(|weight| (weight, None, factor));
    Ok(Transformer {
        scale: 1.0,
        positions: None,
        buckets: Some([config.relative_attention_num_buckets, config.relative_attention_max_distance]),
        dropout: config.dropout_rate,
        encoder,
        decoder,
        head,
        config: ModelConfig::T5(config.clone()),
        parameters,
        tokens,
    })
}

fn stack(
    parameters: &mut Parameters,
    config: &T5Config,
    side: &str,
    share: Share,
    first: usize,
) -> Result<Stack> {
    let site = EMBEDDING_SITE + if first == 0 { 0 } else { 4 };
    if share.layers.is_empty() {
        return Ok(Stack { layers: Vec::new(), norm: None, ends: share.ends, site });
    }
    let name = format!("{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
    let init = Init::Normal(config.initializer_factor * (config.d_model as f64).sqrt().recip());
    let part = parameters.share(&[config.relative_attention_num_buckets, config.num_heads], 1, 1)?;
    let table = parameters.add_part(name, part, init)?;
    // All layers of a side have one table.
    parameters.share_between_stages(table);
    let layers = share.layers.map(|i| layer(parameters, config, side, table, [i, first + i]));
    let layers = layers.collect::<Result<_>>()?;
    let name = format!("{side}.final_layer_norm");
    let norm = match share.ends[1] {
        true => Some(Norm::rms(parameters, &name, config.d_model, config.layer_norm_epsilon)?),
        false => None,
    };
    Ok(Stack { layers, norm, ends: share.ends, site })
}

fn layer(
    parameters: &mut Parameters,
    config: &T5Config,
    side: &str,
    table: Id,
    [number, place]: [usize; 2],
) -> Result<Layer> {
    let (width, size, heads) = (config.d_model, config.d_kv, config.num_heads);
    let inner = heads * size;
    let name = |part: &str| format!("{side}.block.{number}.layer.{part}");
    let linear = |parameters: &mut Parameters, part: &str, sizes: [usize; 2], fan: usize| {
        let split = if part.ends_with('o') { Split::Inputs } else { Split::OUTPUTS };
        let init = Init::Normal(config.initializer_factor * (fan as f64).sqrt().recip());
        Linear::new(parameters, &name(part), sizes, false, Layout::OutIn, split, init)
    };
    let norm = |parameters: &mut Parameters, part: usize| {
        Norm::rms(parameters, &name(&format!("{part}.layer_norm")), width, config.layer_norm_epsilon)
    };
    let attention = |parameters: &mut Parameters, part: &str, relative, place| {
        let mut linear = |end: &str, sizes, fan| linear(parameters, &format!("{part}.{end}"), sizes, fan);
        Ok::<_, crate::Error>(Attention {
            projections: Projections::Separate([
                linear("q", [width, inner], width * size)?,
                linear("k", [width, inner], width)?,
                linear("v", [width, inner], width)?,
            ]),
            out: linear("o", [inner, width], inner)?,
            heads: parameters.heads(heads, heads)?,
            // The initial values of q make up for it.
            scale: 1.0,
            dropout: config.dropout_rate,
            relative,
            place,
        })
    };
    let itself = attention(parameters, "0.SelfAttention", Some(table), 2 * place)?;
    let itself = (itself, norm(parameters, 0)?);
    let source = match side {
        "decoder" => {
            let source = attention(parameters, "1.EncDecAttention", None, 2 * place + 1)?;
            Some((source, norm(parameters, 1)?))
        }
        _ => None,
    };
    let part = if source.is_some() { 2 } else { 1 };
    let mut dense = |end: &str, sizes: [usize; 2]| {
        linear(parameters, &format!("{part}.DenseReluDense.{end}"), sizes, sizes[0])
    };
    let (up, gate, activation) = match config.feed_forward_proj {
        T5FeedForward::Relu => (dense("wi", [width, config.d_ff])?, None, Activation::Relu),
        gated => {
            let activation =
                if gated == T5FeedForward::GatedGelu { Activation::GeluTanh } else { Activation::Silu };
            (dense("wi_0", [width, config.d_ff])?, Some(dense("wi_1", [width, config.d_ff])?), activation)
        }
    };
    let down = dense("wo", [config.d_ff, width])?;
    let feed = FeedForward { up, gate, down, inner: config.d_ff, activation, dropout: config.dropout_rate };
    Ok(Layer {
        attention: itself,
        source,
        feed: (feed, norm(parameters, part)?),
        order: Order::Before,
        dropout: config.dropout_rate,
        number: place as u32,
    })
}

/// The bucket of each pair of query and key: exact for near ones, by the logarithm of the distance for far ones.
/// `both` says whether keys on both sides are told apart, as in the encoder.
pub(super) fn buckets(
    both: bool,
    offset: usize,
    [queries, keys]: [usize; 2],
    count: usize,
    distance: usize,
) -> Arc<[u32]> {
    let half = if both { count / 2 } else { count };
    let exact = half / 2;
    let bucket = |query: usize, key: usize| {
        let after = both && key > query;
        let away = if both { key.abs_diff(query) } else { query.saturating_sub(key) };
        // In f32, as where the published weights come from: it decides which side of a border a distance is on.
        let log = |x: f32| x.ln();
        let far = || {
            let part = log(away as f32 / exact as f32) / log(distance as f32 / exact as f32);
            (exact + (part * (half - exact) as f32) as usize).min(half - 1)
        };
        let bucket = if away < exact { away } else { far() };
        (bucket + if after { half } else { 0 }) as u32
    };
    (0..queries).flat_map(|query| (0..keys).map(move |key| bucket(offset + query, key))).collect()
}
