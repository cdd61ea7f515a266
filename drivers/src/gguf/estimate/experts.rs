//! Feed-forward layers: how wide they are, and what they compute with where experts share them.
//!
//! Widths of experts come from their tensors: what headers say of them means other things from one architecture to the
//! next, and `feed_forward_length` may be that of layers that a model has none of.

use super::super::header::Header;
use super::super::tensor::TensorInfo;
use super::kinds::largest;

/// Widths of feed-forward layers; 0 of what a model has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FeedForward {
    /// Of a layer without experts.
    pub(super) dense: u64,
    /// Of one expert.
    pub(super) expert: u64,
    /// Of what all tokens go through beside their experts.
    pub(super) shared: u64,
    /// Experts of a layer.
    pub(super) experts: u64,
    /// Experts that a token takes.
    pub(super) used: u64,
}

impl FeedForward {
    pub(super) fn of(header: &Header, others: &[TensorInfo]) -> FeedForward {
        let mut found = FeedForward::default();
        let mut has_dense = false;
        for tensor in header.tensors.iter().chain(others) {
            let name = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
            let rows = tensor.dimensions.get(1).copied().unwrap_or(0);
            match name.map(|(_, name)| name) {
                Some("ffn_up_exps.weight" | "ffn_gate_exps.weight") => found.expert = found.expert.max(rows),
                // The gate is above what it lets through.
                Some("ffn_gate_up_exps.weight") => found.expert = found.expert.max(rows / 2),
                Some("ffn_up_shexp.weight" | "ffn_gate_shexp.weight") => {
                    found.shared = found.shared.max(rows)
                }
                Some("ffn_down.weight") => has_dense = true,
                _ => {}
            }
        }
        if has_dense || found.expert == 0 {
            found.dense = largest(header, "feed_forward_length");
        }
        if found.expert > 0 {
            found.experts = header.own_count("expert_count").unwrap_or(0);
            found.used = largest(header, "expert_used_count");
        }
        found
    }

    /// Numbers for a token at the widest moment of a layer of a decoder: gate, up and their product; those of all
    /// experts that a token takes at once.
    pub(super) fn numbers(&self, width: u64) -> u64 {
        self.dense.saturating_mul(3).max(self.expert_numbers(width)).max(self.shared_numbers(width))
    }

    /// Those of an encoder, which has no gate.
    pub(super) fn ungated_numbers(&self) -> u64 {
        self.dense.max(self.used.saturating_mul(self.expert)).saturating_mul(2)
    }

    /// llama.cpp keeps the outputs of all experts of a token until they are summed (`build_moe_ffn`). They go where gate
    /// and up were if they fit there, and else behind all else. How likely each expert is, and their order, stand beside.
    fn expert_numbers(&self, width: u64) -> u64 {
        if self.expert == 0 {
            return 0;
        }
        let outputs = if width > self.expert.saturating_mul(2) { width } else { 0 };
        let multiplying = self.used.saturating_mul(self.expert.saturating_mul(3).saturating_add(outputs));
        let summing = self.used.saturating_add(1).saturating_mul(width);
        multiplying.max(summing).saturating_add(self.experts.saturating_mul(2))
    }

    /// The sum of the experts waits for the shared part.
    fn shared_numbers(&self, width: u64) -> u64 {
        if self.shared == 0 { 0 } else { self.shared.saturating_mul(3).saturating_add(width) }
    }
}
