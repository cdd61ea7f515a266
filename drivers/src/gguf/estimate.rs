//! What a model of this header takes of memory under llama.cpp.
//!
//! **Weights** are the sum of the tensors' bytes: `blk.N.` of layer N, `token_embd` and its like at the input, the
//! rest at the output. llama.cpp maps the file, so on the CPU this is what the page cache must hold. A table that
//! input and output share counts twice where the CPU multiplies by a copy of it (see `packing.rs`).
//!
//! **Pool**: for each token and layer with attention, a key and a value of two bytes (F16) a number for each
//! key-value head, or a key alone where values are a part of it; a layer that keeps sequences as a state has that instead
//! (`n_embd_r` and `n_embd_s` in `llama-hparams.cpp`).
//!
//! **Compute**: `ggml_gallocr` gives each byte to one operation after another, so the buffer is as large as the
//! widest moment of the graph that `llama_context::sched_reserve` plans for a full ubatch of n tokens over C cells:
//! the mask (n·C, F32, or F16 for the fused kernel), which lives throughout, and the largest of
//!
//! - attention: scores n·C·heads in F32 where they are stored, beside nine activations of n·width and the new keys
//!   and values;
//! - a recurrent layer: its activations of n·inner, beside copies of the states of all sequences;
//! - feed-forward: gate, up and their product, 3·n·width (times the experts that a token uses), beside seven
//!   activations;
//! - logits: outputs·vocabulary, beside seven activations.
//!
//! A model with sliding windows has a second mask, and its layers with windows have as many cells as the others
//! (`swa_full`); one without attention has neither mask nor scores. The numbers of activations are those with which no model that was looked at takes more than is estimated. The
//! worker's tests hold this against what llama.cpp reports.

use syscalls::call::Attention;

use super::architecture::RECURRENT;
use super::error::GgufError;
use super::header::{Header, Value};
use super::limits::LAYERS_MAX;
use super::packing::Units;
use super::tensor::TensorInfo;
use crate::estimate::{Compute, Estimate, Layer};
use crate::wire::LoadRequest;

/// Tokens that one graph computes at most; llama.cpp's own default.
pub const UBATCH_TOKENS: u32 = 512;

/// Tokens of a context where the mount does not say: as much as the model was trained with, but not above this.
pub const CONTEXT_TOKENS_DEFAULT: u32 = 8192;

/// Bytes of KV entries up to which the pool is made larger than one context, where the mount does not say: models
/// with short contexts are small, and room for many of them costs little.
const POOL_BYTES_CHEAP: u64 = 256 << 20;

/// Tokens up to which a pool has room for all that sequences can hold, where tokens take no memory: they are counted, which
/// takes a few bytes for each.
const POOL_TOKENS_COUNTED: u32 = 1 << 20;

/// llama.cpp rounds its pool up to a multiple of this.
pub const POOL_TOKENS_MULTIPLE: u32 = 256;

/// Sequences that the driver keeps for itself: one, through which pages move.
pub const SEQUENCES_KEPT: u16 = 1;

/// Sequences that llama.cpp can tell apart.
pub const SEQUENCES_MAX: u16 = 256;

/// Tokens of a pass that can have output, if there are not more sequences.
const OUTPUTS_MIN: u16 = 128;

/// The longest text of an encoder. It is one graph, whose memory grows with the square of this.
pub const WINDOW_MAX: u32 = 2048;

/// Bytes of a number in the pool (F16), and of one in a graph (F32).
const POOL_NUMBER_BYTES: u64 = 2;
const GRAPH_NUMBER_BYTES: u64 = 4;

/// Activations of n·width that are there at once beside the scores, and beside anything else.
const ACTIVATIONS_ATTENTION: u64 = 9;
const ACTIVATIONS_OTHER: u64 = 7;

/// Activations of n·inner that a recurrent layer has at once, and copies of all states beside them.
const ACTIVATIONS_RECURRENT: u64 = 6;
const STATES_AT_ONCE: u64 = 2;

/// Architectures with sliding windows also where the header does not say how large they are.
const WINDOWED: [&str; 5] = ["exaone-moe", "exaone4", "gemma2", "llama4", "smallthinker"];

/// Architectures in which the last of so many layers attends and the others recur, where the header does not say which.
const INTERVALS: [(&str, u64); 5] =
    [("minimax-01", 8), ("qwen35", 4), ("qwen35moe", 4), ("qwen3next", 4), ("qwen4exp", 4)];

/// Architectures whose keys are compressed where the header says so, with the values in them, and which keep nothing else
/// for a token.
const COMPRESSED: [&str; 3] = ["bailingmoe3", "deepseek2", "kimi-linear"];

/// Estimates what the model of this header takes when it is loaded as the request says. `others` are the tensors of its
/// other files, where it is split into several.
///
/// # Errors
///
/// [`GgufError::TooLarge`] where it claims more layers than a model can have: there is an entry for each.
pub fn estimate(
    header: &Header,
    others: &[TensorInfo],
    request: &LoadRequest,
) -> Result<Estimate, GgufError> {
    let layers = header.own_count("block_count").unwrap_or(0);
    if layers > LAYERS_MAX {
        let what = format!("`{}`", header.own_key("block_count"));
        return Err(GgufError::TooLarge { what, value: layers, limit: LAYERS_MAX });
    }
    let shape = Shape::of(header);
    let mut estimate = Estimate { pool_multiple: POOL_TOKENS_MULTIPLE, ..Estimate::default() };
    estimate.layers = vec![Layer::default(); shape.layers as usize];
    let units = Units::here();
    add_weights(&mut estimate, &header.tensors, units);
    add_weights(&mut estimate, others, units);
    let named = |name: &str| header.tensors.iter().chain(others).find(|tensor| tensor.name == name);
    if named("output.weight").is_none() {
        let table = named("token_embd.weight");
        estimate.output_copy_bytes = table.map_or(0, |table| table.bytes);
        // Rows are looked up in what is mapped, so here the other layout does not take its place.
        estimate.output_packing_bytes = table.and_then(|table| units.packed_bytes(table)).unwrap_or(0);
    }
    if shape.encodes {
        estimate.compute = shape.encoder_compute();
        estimate.fused_compute = estimate.compute;
        return Ok(estimate);
    }
    estimate.generates = true;
    for (number, layer) in estimate.layers.iter_mut().enumerate() {
        layer.token_bytes = shape.token_bytes(header, number);
        layer.state_bytes = shape.state_bytes(header, number).saturating_mul(u64::from(sequences(request)));
    }
    let contexts = u32::from(sequences(request) - SEQUENCES_KEPT);
    estimate.pool_tokens = pool_tokens(&estimate, request.context_tokens, shape.trained, contexts);
    let compute = |fused| shape.compute(estimate.pool_tokens, sequences(request), fused);
    // On the CPU the kernel is measured when the model loads, and this must have room for either.
    estimate.compute = compute(request.attention == Attention::Flash);
    estimate.fused_compute = compute(request.attention != Attention::Plain);
    let outputs = u64::from(sequences(request).max(OUTPUTS_MIN));
    estimate.result_bytes = shape.vocabulary.saturating_mul(outputs * GRAPH_NUMBER_BYTES);
    Ok(estimate)
}

/// Sequences of llama.cpp's context, those that the driver keeps included.
pub fn sequences(request: &LoadRequest) -> u16 {
    request.sequences_max.saturating_add(SEQUENCES_KEPT).clamp(1 + SEQUENCES_KEPT, SEQUENCES_MAX)
}

/// Cells of the pool: one context of the size that the mount asks for, or, where it does not say, as many tokens
/// as the default context while they are cheap. Where tokens take nothing, because all that a sequence has is a state, it
/// has room for so many contexts as there are states.
fn pool_tokens(estimate: &Estimate, context: Option<u32>, trained: u32, contexts: u32) -> u32 {
    let window = context.unwrap_or(trained.min(CONTEXT_TOKENS_DEFAULT));
    let token_bytes = estimate.layers.iter().fold(0, |sum: u64, l| sum.saturating_add(l.token_bytes));
    let wanted = match (token_bytes, context) {
        (0, _) => window.saturating_mul(contexts).min(POOL_TOKENS_COUNTED),
        (_, Some(context)) => context,
        (token_bytes, None) => (POOL_BYTES_CHEAP / token_bytes).min(CONTEXT_TOKENS_DEFAULT.into()) as u32,
    };
    wanted.max(window).max(1).next_multiple_of(POOL_TOKENS_MULTIPLE)
}

fn add_weights(estimate: &mut Estimate, tensors: &[TensorInfo], units: Units) {
    for tensor in tensors {
        let packing = units.packed_bytes(tensor).map_or(0, |packed| packed.saturating_sub(tensor.bytes));
        let layer = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
        let (weights, more) = match layer.and_then(|layer: usize| estimate.layers.get_mut(layer)) {
            Some(layer) => (&mut layer.weights_bytes, Some(&mut layer.packing_bytes)),
            None if is_input(&tensor.name) => (&mut estimate.input_bytes, None),
            None => (&mut estimate.output_bytes, Some(&mut estimate.output_packing_bytes)),
        };
        *weights = weights.saturating_add(tensor.bytes);
        if let Some(more) = more {
            *more = more.saturating_add(packing);
        }
    }
}

/// Whether llama.cpp puts a tensor before the first layer.
fn is_input(name: &str) -> bool {
    ["token_embd", "token_types", "position_embd"].iter().any(|table| name.starts_with(table))
}

/// The sizes that matter here.
struct Shape {
    layers: u64,
    width: u64,
    heads: u64,
    feed_forward: u64,
    vocabulary: u64,
    trained: u32,
    encodes: bool,
    /// Attention masks of a pass: one for each kind of layers.
    masks: u64,
    key_value_width: u64,
    /// Width of recurrent layers, and numbers that one of them keeps for a sequence.
    inner: u64,
    state: u64,
}

impl Shape {
    fn of(header: &Header) -> Shape {
        let own = |key: &str| header.own_count(key).unwrap_or(0);
        let tokens = header.texts("tokenizer.ggml.tokens").map(|tokens| tokens.len() as u64);
        let experts = own("expert_used_count");
        let dense = largest(header, "feed_forward_length");
        let of_each = own("expert_feed_forward_length").max(if experts > 0 { dense } else { 0 });
        let of_experts = experts.saturating_mul(of_each);
        let shape = Shape {
            layers: own("block_count"),
            width: own("embedding_length"),
            heads: largest(header, "attention.head_count").max(1),
            feed_forward: dense.max(of_experts.saturating_add(own("expert_shared_feed_forward_length"))),
            vocabulary: tokens.or(header.own_count("vocab_size")).unwrap_or(0),
            trained: own("context_length").clamp(1, u64::from(u32::MAX / 2)) as u32,
            encodes: header.flag(&header.own_key("attention.causal")) == Some(false),
            masks: masks(header),
            key_value_width: 0,
            inner: own("ssm.inner_size").max(own("embedding_length")),
            state: 0,
        };
        let layers = || 0..shape.layers as usize;
        Shape {
            key_value_width: layers().map(|n| shape.key_value_numbers(header, n)).max().unwrap_or(0),
            state: layers().map(|n| shape.state_numbers(header, n)).max().unwrap_or(0),
            ..shape
        }
    }

    /// Numbers of the keys and values of one token in a layer.
    fn key_value_numbers(&self, header: &Header, layer: usize) -> u64 {
        let heads = at_layer(header, "attention.head_count", layer).unwrap_or(0);
        let shared = at_layer(header, "attention.head_count_kv", layer).unwrap_or(heads);
        let even = self.width / heads.max(1);
        let length = |key: &str| header.own_count(key).unwrap_or(even);
        let values = if is_compressed(header) { 0 } else { length("attention.value_length") };
        shared.saturating_mul(length("attention.key_length").saturating_add(values))
    }

    fn token_bytes(&self, header: &Header, layer: usize) -> u64 {
        if attends(header, layer) {
            self.key_value_numbers(header, layer).saturating_mul(POOL_NUMBER_BYTES)
        } else {
            0
        }
    }

    /// Bytes that a layer keeps for one sequence.
    fn state_bytes(&self, header: &Header, layer: usize) -> u64 {
        self.state_numbers(header, layer).saturating_mul(GRAPH_NUMBER_BYTES)
    }

    /// Numbers that it keeps, for the kinds of recurrent layers that there are.
    fn state_numbers(&self, header: &Header, layer: usize) -> u64 {
        if !recurs(header, layer) {
            return 0;
        }
        let own = |key: &str| header.own_count(key).unwrap_or(0);
        let of_heads = |numbers: u64| numbers.saturating_mul(self.heads);
        let shifted = own("ssm.conv_kernel").saturating_sub(1);
        match (own("wkv.head_size"), own("shortconv.l_cache"), own("kda.head_dim")) {
            (0, 0, 0) if header.architecture == "minimax-01" => {
                let head = header.own_count("attention.key_length").unwrap_or(self.width / self.heads);
                of_heads(head.saturating_mul(head))
            }
            (0, 0, 0) => {
                let (inner, state) = (own("ssm.inner_size"), own("ssm.state_size"));
                let sides = own("ssm.group_count").saturating_mul(2).saturating_mul(state);
                shifted
                    .saturating_mul(inner.saturating_add(sides))
                    .saturating_add(state.saturating_mul(inner))
            }
            (0, 0, head) => of_heads(head.saturating_mul(head.saturating_add(shifted.saturating_mul(3)))),
            (0, positions, _) => self.width.saturating_mul(positions - 1),
            (head, ..) => self.width.saturating_mul(head.saturating_add(own("token_shift_count").max(2))),
        }
    }

    fn compute(&self, pool_tokens: u32, sequences: u16, fused: bool) -> Compute {
        let tokens = u64::from(pool_tokens.min(UBATCH_TOKENS));
        let numbers = GRAPH_NUMBER_BYTES;
        let outputs = u64::from(sequences.max(OUTPUTS_MIN)).min(tokens);
        let activation = tokens.saturating_mul(self.width);
        let wide = tokens.saturating_mul(self.feed_forward).saturating_mul(3);
        let logits = outputs.saturating_mul(self.vocabulary);
        let beside = activation.saturating_mul(ACTIVATIONS_ATTENTION);
        let attention = beside.saturating_add(tokens.saturating_mul(self.key_value_width));
        let scores = if fused || self.masks == 0 { 0 } else { self.heads };
        Compute {
            mask_token_bytes: self.masks * tokens * if fused { numbers / 2 } else { numbers },
            score_token_bytes: tokens * scores * numbers,
            attention_bytes: attention.saturating_mul(numbers),
            other_bytes: wide
                .max(logits)
                .saturating_add(activation.saturating_mul(ACTIVATIONS_OTHER))
                .max(self.recurrent_numbers(tokens, sequences))
                .saturating_mul(numbers),
        }
    }

    /// The widest moment of a recurrent layer; 0 where there are none.
    fn recurrent_numbers(&self, tokens: u64, sequences: u16) -> u64 {
        if self.state == 0 {
            return 0;
        }
        let activations = tokens.saturating_mul(self.inner).saturating_mul(ACTIVATIONS_RECURRENT);
        let states = self.state.saturating_mul(u64::from(sequences) * STATES_AT_ONCE);
        activations.saturating_add(states)
    }

    /// An encoder has no pool: its texts look at each other, all of a pass at once.
    fn encoder_compute(&self) -> Compute {
        let window = self.trained.clamp(UBATCH_TOKENS, WINDOW_MAX);
        let tokens = u64::from(window);
        let activation = tokens.saturating_mul(self.width);
        let scores = tokens * tokens * (self.heads + 1);
        let attention = activation.saturating_mul(ACTIVATIONS_ATTENTION).saturating_add(scores);
        let wide = tokens.saturating_mul(self.feed_forward).saturating_mul(2);
        let other = activation.saturating_mul(ACTIVATIONS_OTHER).saturating_add(wide);
        Compute { other_bytes: GRAPH_NUMBER_BYTES * attention.max(other), ..Compute::default() }
    }
}

/// Attention masks of a pass: two where some layers have windows, none where no layer has attention.
fn masks(header: &Header) -> u64 {
    let name = header.architecture.as_str();
    let windows = header.own_count("attention.sliding_window").unwrap_or(0) > 0 || WINDOWED.contains(&name);
    match RECURRENT.contains(&name) {
        true => 0,
        false => 1 + u64::from(windows),
    }
}

/// Whether a layer keeps entries for tokens.
fn attends(header: &Header, layer: usize) -> bool {
    has_both(header) || !recurs(header, layer)
}

/// Whether it keeps a state for each sequence.
fn recurs(header: &Header, layer: usize) -> bool {
    let name = header.architecture.as_str();
    if RECURRENT.contains(&name) || has_both(header) {
        return true;
    }
    let has_no = |key: &str| at_layer(header, key, layer) == Some(0);
    match INTERVALS.iter().find(|(family, _)| *family == name) {
        Some((_, usual)) => recurs_by_interval(header, layer as u64, *usual),
        // Some of their layers do nothing but feed forward.
        None if name.starts_with("nemotron_h") => {
            has_no("attention.head_count_kv") && has_no("feed_forward_length")
        }
        None => has_no("attention.head_count_kv"),
    }
}

/// Whether each layer keeps both.
fn has_both(header: &Header) -> bool {
    header.architecture == "falcon-h1"
}

/// What the header lists, or else all layers but the last of so many; those behind the model's own attend.
fn recurs_by_interval(header: &Header, layer: u64, usual: u64) -> bool {
    if let Some(listed) = at_layer(header, "attention.recurrent_layers", layer as usize) {
        return listed > 0;
    }
    let own = |key: &str| header.own_count(key).unwrap_or(0);
    let interval = header.own_count("full_attention_interval").filter(|layers| *layers > 0).unwrap_or(usual);
    let layers = own("block_count").saturating_sub(own("nextn_predict_layers"));
    layer < layers && !(layer + 1).is_multiple_of(interval)
}

/// Whether values are a part of the keys, by llama.cpp's `is_mla`.
fn is_compressed(header: &Header) -> bool {
    let says = |key: &str| header.own_count(key).unwrap_or(0) > 0;
    COMPRESSED.contains(&header.architecture.as_str())
        && says("attention.key_length_mla")
        && says("attention.value_length_mla")
}

/// A number that all layers have alike, or that a list has for each.
fn at_layer(header: &Header, key: &str, layer: usize) -> Option<u64> {
    match header.metadata.get(&header.own_key(key))? {
        Value::Array(array) => array.counts()?.get(layer).copied(),
        value => value.count(),
    }
}

/// The largest number of all layers; 0 where there is none.
fn largest(header: &Header, key: &str) -> u64 {
    match header.metadata.get(&header.own_key(key)) {
        Some(Value::Array(array)) => array.counts().unwrap_or_default().into_iter().max().unwrap_or(0),
        Some(value) => value.count().unwrap_or(0),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::super::header::Array;
    use super::super::random::{Family, Shape as RandomShape};
    use super::*;

    fn estimate_of(shape: &RandomShape, context_tokens: Option<u32>) -> Estimate {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        shape.write(&path).unwrap();
        let path = path.to_str().unwrap().into();
        let request = LoadRequest { path, context_tokens, sequences_max: 256, ..LoadRequest::default() };
        crate::estimate::estimate(&request).unwrap()
    }

    #[test]
    fn weights_are_those_of_the_file_and_entries_those_of_the_heads() {
        let tiny = RandomShape::preset("tiny").unwrap();
        let estimate = estimate_of(&tiny, Some(1000));
        assert!(estimate.generates);
        assert_eq!(estimate.pool_tokens, 1024, "a multiple of 256");
        // Keys and values of two heads of 32 numbers, two bytes each.
        assert!(estimate.layers.iter().all(|l| l.token_bytes == 2 * 2 * 32 * 2 && l.state_bytes == 0));
        // Rows of 128 weights are four blocks of 34 bytes.
        assert_eq!((estimate.layers.len(), estimate.input_bytes), (2, 1024 * 4 * 34));
        assert_eq!((estimate.output_bytes, estimate.output_copy_bytes), (128 * 4, 1024 * 4 * 34));
        let untied = estimate_of(&RandomShape { tied: false, ..tiny }, None);
        assert_eq!((untied.output_bytes, untied.output_copy_bytes), (128 * 4 + 1024 * 4 * 34, 0));
    }

    #[test]
    fn pool_that_nobody_fixes_is_as_large_as_is_cheap() {
        let tiny = RandomShape::preset("tiny").unwrap();
        assert_eq!(estimate_of(&tiny, None).pool_tokens, CONTEXT_TOKENS_DEFAULT);
        // At 128 KiB a token, 2,048 tokens are what is cheap.
        let layer = Layer { token_bytes: 8 << 10, ..Layer::default() };
        let large = Estimate { layers: vec![layer; 16], ..Estimate::default() };
        assert_eq!(pool_tokens(&large, None, 512, 256), 2048);
        assert_eq!(pool_tokens(&large, None, 4096, 256), 4096, "one context has room");
        assert_eq!(pool_tokens(&large, None, 1 << 20, 256), CONTEXT_TOKENS_DEFAULT);
        assert_eq!(pool_tokens(&large, Some(100_000), 512, 256), 100_096, "what the mount says counts");
    }

    #[test]
    fn pool_of_states_has_room_for_a_context_of_each() {
        let mamba = RandomShape::preset("tiny-mamba").unwrap();
        let estimate = estimate_of(&mamba, Some(1000));
        assert_eq!(
            estimate.pool_tokens, 255_232,
            "255 contexts of 1,000 tokens: one sequence is the driver's"
        );
        // Three positions of a convolution and 16 numbers of a state for each of twice 128, of four bytes.
        assert!(estimate.layers.iter().all(|l| l.token_bytes == 0 && l.state_bytes == 256 * 19 * 256 * 4));
        assert_eq!(estimate_of(&mamba, Some(100_000)).pool_tokens, POOL_TOKENS_COUNTED);
        assert_eq!(estimate_of(&mamba, Some(3_000_000)).pool_tokens, 3_000_064, "one context has room");
    }

    #[test]
    fn layers_with_windows_have_a_mask_of_their_own_and_states_have_none() {
        let estimate = |name| estimate_of(&RandomShape::preset(name).unwrap(), Some(1024));
        let mask = estimate("tiny").compute.mask_token_bytes;
        assert_eq!(estimate("tiny-gemma2").compute.mask_token_bytes, 2 * mask);
        assert_eq!(estimate("tiny-mamba").compute.mask_token_bytes, 0);
        let jamba = estimate("tiny-jamba");
        assert_eq!(jamba.compute.mask_token_bytes, mask);
        let has = |layer: &Layer| (layer.token_bytes > 0, layer.state_bytes > 0);
        assert_eq!(jamba.layers.iter().map(has).collect::<Vec<_>>(), [(false, true), (true, false)]);
    }

    /// What is estimated of the tiny shape under another architecture, with more that its header says.
    fn estimate_as(architecture: &str, more: &[(&str, Value)]) -> Estimate {
        let (_folder, file) = tiny_file();
        let mut header = crate::gguf::open(&file).unwrap();
        let mut sizes: Vec<(String, Value)> = Vec::new();
        for (key, value) in &header.metadata {
            sizes.extend(key.strip_prefix("llama.").map(|key| (key.to_owned(), value.clone())));
        }
        sizes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        header.architecture = architecture.into();
        for (key, value) in sizes {
            let key = header.own_key(&key);
            header.metadata.insert(key, value);
        }
        let request = LoadRequest { sequences_max: 255, ..LoadRequest::default() };
        super::estimate(&header, &[], &request).unwrap()
    }

    #[test]
    fn layers_that_attend_one_in_so_many_have_entries_and_the_others_have_states() {
        let attending = |architecture: &str, more: &[(&str, Value)]| {
            let count = |key, count| (key, Value::U32(count));
            let sizes = [
                count("block_count", 8),
                count("ssm.inner_size", 256),
                count("ssm.state_size", 16),
                count("ssm.conv_kernel", 4),
            ];
            let layers = estimate_as(architecture, &[&sizes[..], more].concat()).layers;
            for layer in &layers {
                // Three positions of a convolution and 16 numbers of a state for each of 256, of four bytes.
                let state = if layer.token_bytes > 0 { 0 } else { 256 * 19 * 256 * 4 };
                assert_eq!(layer.state_bytes, state, "{architecture}: {layer:?}");
            }
            (0..layers.len()).filter(|n| layers[*n].token_bytes > 0).collect::<Vec<_>>()
        };
        assert_eq!(attending("qwen3next", &[]), [3, 7], "where the header does not say, one in four does");
        let interval = ("full_attention_interval", Value::U32(2));
        assert_eq!(attending("qwen35", std::slice::from_ref(&interval)), [1, 3, 5, 7]);
        let more = ("nextn_predict_layers", Value::U32(2));
        assert_eq!(attending("qwen35", &[interval.clone(), more]), [1, 3, 5, 6, 7]);
        let listed = Value::Array(Array::U32(vec![1, 1, 0, 1, 1, 1, 1, 1]));
        assert_eq!(attending("qwen35", &[interval, ("attention.recurrent_layers", listed)]), [2]);
    }

    #[test]
    fn layers_of_other_kinds_keep_what_llama_cpp_keeps_of_them() {
        let count = |key, count| (key, Value::U32(count));
        let counts = |key, counts: [u32; 2]| (key, Value::Array(Array::U32(counts.into())));
        let kept = |architecture: &str, more: &[(&str, Value)]| {
            let layers = estimate_as(architecture, more).layers;
            [&layers[0], &layers[1]].map(|layer| (layer.token_bytes, layer.state_bytes / 256 / 4))
        };
        let heads = counts("attention.head_count_kv", [0, 2]);
        let entries = 2 * 2 * 32 * 2;
        let short = kept("lfm2", &[heads.clone(), count("shortconv.l_cache", 3)]);
        assert_eq!(short, [(0, 128 * 2), (entries, 0)], "two positions of the width");
        let sizes = [heads.clone(), count("kda.head_dim", 16), count("ssm.conv_kernel", 4)];
        assert_eq!(kept("kimi-linear", &sizes), [(0, 4 * (16 * 16 + 3 * 3 * 16)), (entries, 0)]);
        let mamba = [count("ssm.inner_size", 64), count("ssm.state_size", 8), count("ssm.conv_kernel", 4)];
        assert_eq!(kept("falcon-h1", &mamba), [(entries, 64 * 11); 2], "both in each layer");
        let forward = [heads, counts("feed_forward_length", [256, 0])];
        let none = kept("nemotron_h", &[&mamba[..], &forward[..]].concat());
        assert_eq!(none, [(0, 0), (entries, 0)], "a layer that only feeds forward keeps nothing");
    }

    #[test]
    fn compressed_keys_have_the_values_in_them() {
        let count = |key, count| (key, Value::U32(count));
        let sizes = [
            count("attention.head_count_kv", 1),
            count("attention.key_length", 96),
            count("attention.value_length", 64),
        ];
        let mla = [count("attention.key_length_mla", 48), count("attention.value_length_mla", 32)];
        let token_bytes = |more: &[(&str, Value)]| estimate_as("deepseek2", more).layers[0].token_bytes;
        assert_eq!(token_bytes(&sizes), (96 + 64) * 2);
        assert_eq!(token_bytes(&[&sizes[..], &mla[..]].concat()), 96 * 2);
    }

    #[test]
    fn encoder_has_no_pool() {
        let bert = RandomShape { family: Family::Bert, kv_heads: 4, ..RandomShape::preset("tiny").unwrap() };
        let estimate = estimate_of(&RandomShape { vocabulary: 4096, context: 512, ..bert }, None);
        assert!(!estimate.generates);
        let needs = estimate.split(estimate.pool_tokens, 0, false).host;
        assert_eq!(needs.pool, 0);
        assert!(needs.compute > 0 && needs.weights > 0);
    }

    #[test]
    fn header_with_more_layers_than_a_model_can_have_is_refused_before_there_is_an_entry_for_each() {
        let (_folder, file) = tiny_file();
        let mut header = crate::gguf::open(&file).unwrap();
        let estimate = |header: &Header| super::estimate(header, &[], &LoadRequest::default());
        assert_eq!(estimate(&header).unwrap().layers.len(), 2);
        header.metadata.insert("llama.block_count".into(), Value::U64(u64::MAX));
        let error = estimate(&header).unwrap_err().to_string();
        assert_eq!(
            error,
            "`llama.block_count` is 18446744073709551615; the limit is 512: the file is damaged or hostile"
        );
    }

    #[test]
    fn sizes_beyond_all_measure_are_added_up_without_an_overflow() {
        for name in ["tiny", "tiny-gemma2", "tiny-mamba", "tiny-jamba"] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("m.gguf");
            RandomShape::preset(name).unwrap().write(&file).unwrap();
            let header = crate::gguf::open(&file).unwrap();
            let more = ["attention.key_length", "wkv.head_size", "expert_feed_forward_length", "vocab_size"];
            let more = more.map(|key| header.own_key(key));
            for key in header.metadata.keys().chain(&more) {
                let mut hostile = header.clone();
                hostile.metadata.insert(key.clone(), Value::U64(u64::MAX));
                if crate::gguf::check_runnable(&hostile).is_ok() {
                    let request = LoadRequest { sequences_max: 256, ..LoadRequest::default() };
                    let estimate = super::estimate(&hostile, &[], &request).unwrap();
                    let needs = estimate.split(estimate.pool_tokens, 0, false).host;
                    assert!(needs.total() > 0, "{name}, {key}");
                }
            }
        }
    }

    fn tiny_file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        RandomShape::preset("tiny").unwrap().write(&path).unwrap();
        (folder, path)
    }
}
