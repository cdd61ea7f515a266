//! The sizes of a model that its memory follows from, and what its layers keep of tokens and sequences.

use super::super::header::Header;
use super::super::tensor::TensorInfo;
use super::experts::FeedForward;
use super::kinds::{at_layer, attends, is_compressed, largest, masks, recurs};
use super::{GRAPH_NUMBER_BYTES, POOL_NUMBER_BYTES};

/// The sizes that matter here.
pub(super) struct Shape {
    pub(super) layers: u64,
    pub(super) width: u64,
    pub(super) heads: u64,
    pub(super) feed_forward: FeedForward,
    pub(super) vocabulary: u64,
    pub(super) trained: u32,
    pub(super) encodes: bool,
    /// Attention masks of a pass: one for each kind of layers.
    pub(super) masks: u64,
    pub(super) key_value_width: u64,
    /// Width of recurrent layers, and numbers that one of them keeps for a sequence.
    pub(super) inner: u64,
    pub(super) state: u64,
}

impl Shape {
    pub(super) fn of(header: &Header, others: &[TensorInfo]) -> Shape {
        let own = |key: &str| header.own_count(key).unwrap_or(0);
        let tokens = header.texts("tokenizer.ggml.tokens").map(|tokens| tokens.len() as u64);
        let shape = Shape {
            layers: own("block_count"),
            width: own("embedding_length"),
            heads: largest(header, "attention.head_count").max(1),
            feed_forward: FeedForward::of(header, others),
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

    pub(super) fn token_bytes(&self, header: &Header, layer: usize) -> u64 {
        if attends(header, layer) {
            self.key_value_numbers(header, layer).saturating_mul(POOL_NUMBER_BYTES)
        } else {
            0
        }
    }

    /// Bytes that a layer keeps for one sequence.
    pub(super) fn state_bytes(&self, header: &Header, layer: usize) -> u64 {
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
}
