//! What a deterministic mount takes: its context holds one sequence at a time, in a pass of few tokens, and the pool that
//! the kernel counts is pages that the worker keeps in main memory, as states of llama.cpp (`llama/alone.rs`).

use crate::estimate::{Compute, Estimate};

/// What is kept of a token beside its entries: the token itself, its position and sequences, and a part of what stands
/// before each page.
const KEPT_TOKEN_BYTES: u64 = 28;

/// And of each layer: what stands before its entries in a page.
const KEPT_LAYER_BYTES: u64 = 1;

/// Puts the pool outside of a context that has so many cells.
pub(super) fn keep(estimate: &mut Estimate, cells: u32) {
    let mut kept_bytes = KEPT_TOKEN_BYTES;
    for layer in &mut estimate.layers {
        let token_bytes = std::mem::take(&mut layer.token_bytes);
        layer.state_bytes = layer.state_bytes.saturating_add(token_bytes.saturating_mul(cells.into()));
        kept_bytes = kept_bytes.saturating_add(token_bytes).saturating_add(KEPT_LAYER_BYTES);
    }
    estimate.kept_token_bytes = kept_bytes;
    for compute in [&mut estimate.compute, &mut estimate.fused_compute] {
        *compute = Compute { other_bytes: compute.bytes(cells), ..Compute::default() };
    }
}
