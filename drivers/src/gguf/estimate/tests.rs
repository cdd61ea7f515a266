#![allow(clippy::unwrap_used)]
use std::path::PathBuf;

use super::super::header::{Array, Value};
use super::super::random::{Family, Shape as RandomShape};
use super::super::tensor::TensorType;
use super::experts::FeedForward;
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
    assert_eq!(estimate.pool_tokens, 255_232, "255 contexts of 1,000 tokens: one sequence is the driver's");
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

#[test]
fn deterministic_mount_keeps_its_pool_beside_a_context_of_one_sequence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    RandomShape::preset("tiny").unwrap().write(&path).unwrap();
    let path: String = path.to_str().unwrap().into();
    let request =
        LoadRequest { path, context_tokens: Some(1000), sequences_max: 16, ..LoadRequest::default() };
    let plain = crate::estimate::estimate(&request).unwrap();
    let alone = crate::estimate::estimate(&LoadRequest { deterministic: true, ..request }).unwrap();
    assert_eq!(alone.pool_tokens, 1024);
    // A context of 1,000 tokens and two passes has 1,280 cells of 256 bytes in each of two layers.
    let (context, kept) = (2 * 256 * 1280, (2 * 257 + 28) * 1024);
    assert_eq!(alone.split(1024, 0, false).host.pool, context + kept);
    assert_eq!(alone.split(2048, 0, false).host.pool, context + 2 * kept, "a larger pool is more pages");
    let on_device = alone.split(1024, 99, true);
    assert_eq!((on_device.device.pool, on_device.host.pool), (context, kept));
    assert_eq!(alone.result_bytes, 1024 * 16 * 4);
    let compute = |estimate: &Estimate| estimate.split(1024, 0, false).host.compute;
    assert!(compute(&alone) * 8 < compute(&plain), "passes have few tokens");
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
fn experts_that_a_token_takes_count_by_their_own_width() {
    let tiny = RandomShape { vocabulary: 512, ..RandomShape::preset("tiny-qwen3moe").unwrap() };
    let other = |feed_forward| {
        let shape = RandomShape { feed_forward, ..tiny.clone() };
        estimate_of(&shape, None).fused_compute.other_bytes
    };
    // Gate, up and product of two experts, how likely each of the eight is, their order, and seven activations.
    assert_eq!(other(256), 4 * 512 * (2 * 3 * 256 + 2 * 8 + 7 * 128));
    assert_eq!(
        other(32),
        4 * 512 * (2 * (3 * 32 + 128) + 2 * 8 + 7 * 128),
        "outputs do not fit in gate and up"
    );
}

#[test]
fn layers_of_experts_are_as_wide_as_their_tensors() {
    let (_folder, file) = tiny_file();
    let mut header = crate::gguf::open(&file).unwrap();
    let dense = FeedForward { dense: 256, ..FeedForward::default() };
    assert_eq!(FeedForward::of(&header, &[]), dense);
    let tensor = |name: &str, dimensions: &[u64]| TensorInfo {
        name: name.into(),
        dimensions: dimensions.into(),
        kind: TensorType::F32,
        offset: 0,
        bytes: 0,
    };
    header.metadata.insert("llama.expert_count".into(), Value::U32(8));
    header.metadata.insert("llama.expert_used_count".into(), Value::U32(2));
    let gate_and_up = tensor("blk.1.ffn_gate_up_exps.weight", &[128, 192, 8]);
    let mixed = FeedForward { expert: 96, experts: 8, used: 2, ..dense };
    assert_eq!(FeedForward::of(&header, &[gate_and_up]), mixed, "some layers have none");
    header.tensors.retain(|tensor| !tensor.name.contains("ffn_"));
    header.tensors.push(tensor("blk.0.ffn_up_exps.weight", &[128, 64, 8]));
    header.tensors.push(tensor("blk.0.ffn_up_shexp.weight", &[128, 160]));
    let found = FeedForward::of(&header, &[]);
    assert_eq!(found, FeedForward { dense: 0, expert: 64, shared: 160, experts: 8, used: 2 });
    assert_eq!(found.numbers(128), 3 * 160 + 128, "the shared part comes after the experts");
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
    for name in ["tiny", "tiny-gemma2", "tiny-mamba", "tiny-jamba", "tiny-qwen3moe", "tiny-bert"] {
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
