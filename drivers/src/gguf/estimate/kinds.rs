//! What kinds of layers a model has: such with attention, such with a window, and such that keep a state.

use super::super::architecture::RECURRENT;
use super::super::header::{Header, Value};

/// Architectures with sliding windows also where the header does not say how large they are.
const WINDOWED: [&str; 5] = ["exaone-moe", "exaone4", "gemma2", "llama4", "smallthinker"];

/// Architectures in which the last of so many layers attends and the others recur, where the header does not say which.
const INTERVALS: [(&str, u64); 5] =
    [("minimax-01", 8), ("qwen35", 4), ("qwen35moe", 4), ("qwen3next", 4), ("qwen4exp", 4)];

/// Architectures whose keys are compressed where the header says so, with the values in them, and which keep nothing else
/// for a token.
const COMPRESSED: [&str; 3] = ["bailingmoe3", "deepseek2", "kimi-linear"];

/// Attention masks of a pass: two where some layers have windows, none where no layer has attention.
pub(super) fn masks(header: &Header) -> u64 {
    let name = header.architecture.as_str();
    let windows = header.own_count("attention.sliding_window").unwrap_or(0) > 0 || WINDOWED.contains(&name);
    match RECURRENT.contains(&name) {
        true => 0,
        false => 1 + u64::from(windows),
    }
}

/// Whether a layer keeps entries for tokens.
pub(super) fn attends(header: &Header, layer: usize) -> bool {
    has_both(header) || !recurs(header, layer)
}

/// Whether it keeps a state for each sequence.
pub(super) fn recurs(header: &Header, layer: usize) -> bool {
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
pub(super) fn is_compressed(header: &Header) -> bool {
    let says = |key: &str| header.own_count(key).unwrap_or(0) > 0;
    COMPRESSED.contains(&header.architecture.as_str())
        && says("attention.key_length_mla")
        && says("attention.value_length_mla")
}

/// A number that all layers have alike, or that a list has for each.
pub(super) fn at_layer(header: &Header, key: &str, layer: usize) -> Option<u64> {
    match header.metadata.get(&header.own_key(key))? {
        Value::Array(array) => array.counts()?.get(layer).copied(),
        value => value.count(),
    }
}

/// The largest number of all layers; 0 where there is none.
pub(super) fn largest(header: &Header, key: &str) -> u64 {
    match header.metadata.get(&header.own_key(key)) {
        Some(Value::Array(array)) => array.counts().unwrap_or_default().into_iter().max().unwrap_or(0),
        Some(value) => value.count().unwrap_or(0),
        None => 0,
    }
}
