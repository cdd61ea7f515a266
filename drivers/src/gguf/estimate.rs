//! What a model of this header takes of memory under llama.cpp.
//!
//! **Weights** are the sum of the tensors' bytes: `blk.N.` of layer N, `token_embd` and its like at the input, the
//! rest at the output. llama.cpp maps the file, so on the CPU this is what the page cache must hold. A table that
//! input and output share counts twice where the CPU multiplies by a copy of it (see `packing.rs`).
//!
//! **Pool**: for each token and layer with attention, a key and a value of two bytes (F16) a number for each
//! key-value head, or a key alone where values are a part of it; a layer that keeps sequences as a state has that instead
//! (`n_embd_r` and `n_embd_s` in `llama-hparams.cpp`). Which layer is what stands in `estimate/kinds.rs`. A deterministic
//! mount has a context for one sequence, and the pool beside it (`estimate/outside.rs`).
//!
//! **Compute**: the buffer of a forward pass, in `estimate/compute.rs`. The worker's tests hold all of it against what
//! llama.cpp reports.

mod compute;
mod experts;
mod kinds;
mod outside;
mod shape;
#[cfg(test)]
mod tests;

use syscalls::call::Attention;

use super::error::GgufError;
use super::header::Header;
use super::limits::LAYERS_MAX;
use super::packing::Units;
use super::tensor::TensorInfo;
use crate::estimate::{Estimate, Layer};
use crate::wire::LoadRequest;
use compute::Pass;
use shape::Shape;

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

/// Tokens of each pass of a deterministic mount.
pub const BLOCK_TOKENS: u32 = 16;

/// Sequences of its context: the one that is computed, and the one that fills passes up.
pub const BLOCK_SEQUENCES: u16 = 2;

/// The longest text of an encoder. It is one graph, whose memory grows with the square of this.
pub const WINDOW_MAX: u32 = 2048;

/// Bytes of a number in the pool (F16), and of one in a graph (F32).
const POOL_NUMBER_BYTES: u64 = 2;
const GRAPH_NUMBER_BYTES: u64 = 4;

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
    let shape = Shape::of(header, others);
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
    let pass = Pass::of(request);
    let cells = match request.deterministic {
        true => cells_alone(window(request.context_tokens, shape.trained)),
        false => estimate.pool_tokens,
    };
    let compute = |fused| shape.compute(cells, pass, fused);
    // On the CPU the kernel is measured when the model loads, and this must have room for either.
    estimate.compute = compute(request.attention == Attention::Flash);
    estimate.fused_compute = compute(request.attention != Attention::Plain);
    estimate.result_bytes = shape.vocabulary.saturating_mul(u64::from(pass.outputs) * GRAPH_NUMBER_BYTES);
    if request.deterministic {
        outside::keep(&mut estimate, cells);
    }
    Ok(estimate)
}

/// Cells of the context in which a deterministic mount computes: one context, and what fills its last pass up.
pub fn cells_alone(context_tokens: u32) -> u32 {
    context_tokens.saturating_add(2 * BLOCK_TOKENS).next_multiple_of(POOL_TOKENS_MULTIPLE)
}

/// Tokens of the largest context.
fn window(context: Option<u32>, trained: u32) -> u32 {
    context.unwrap_or(trained.min(CONTEXT_TOKENS_DEFAULT))
}

/// Sequences of llama.cpp's context, those that the driver keeps included.
pub fn sequences(request: &LoadRequest) -> u16 {
    request.sequences_max.saturating_add(SEQUENCES_KEPT).clamp(1 + SEQUENCES_KEPT, SEQUENCES_MAX)
}

/// Cells of the pool: one context of the size that the mount asks for, or, where it does not say, as many tokens
/// as the default context while they are cheap. Where tokens take nothing, because all that a sequence has is a state, it
/// has room for so many contexts as there are states.
fn pool_tokens(estimate: &Estimate, context: Option<u32>, trained: u32, contexts: u32) -> u32 {
    let window = window(context, trained);
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
