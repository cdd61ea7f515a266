//! What a model takes of device memory, told before it is loaded: by this the kernel admits mounts, sizes pools and
//! splits models between a graphics device and main memory.
//!
//! An estimate comes from a checked header, or from a script of the sim driver, in a moment and without C++. It
//! knows three kinds of bytes: *weights*, the *pool* of KV entries, and what a forward pass *computes* with. How a
//! header leads to them stands in [`crate::gguf::estimate`].

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

use crate::files::{Headers, ModelFiles};
use crate::wire::{DriverFault, LoadRequest};
use crate::{gguf, sim};

/// Bytes of device memory, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Weights.
    pub weights: u64,
    /// KV entries.
    pub pool: u64,
    /// Buffers of a forward pass.
    pub compute: u64,
}

impl Needs {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.pool).saturating_add(self.compute)
    }
}

impl Add for Needs {
    type Output = Needs;

    fn add(self, other: Needs) -> Needs {
        Needs {
            weights: self.weights.saturating_add(other.weights),
            pool: self.pool.saturating_add(other.pool),
            compute: self.compute.saturating_add(other.compute),
        }
    }
}

impl AddAssign for Needs {
    fn add_assign(&mut self, other: Needs) {
        *self = *self + other;
    }
}

/// One of the layers that a model repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Bytes of its weights.
    pub weights_bytes: u64,
    /// More of them where the CPU multiplies by them in a layout of its own.
    pub packing_bytes: u64,
    /// Bytes of its KV entries for one token.
    pub token_bytes: u64,
    /// Bytes that it keeps for its sequences, however long they are; recurrent layers do.
    pub state_bytes: u64,
}

/// Buffers of a forward pass. The allocator gives the same bytes to one operation after another, so what counts is
/// the widest moment: the attention, or any other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compute {
    /// The attention mask, for each token of the pool; there all the time.
    pub mask_token_bytes: u64,
    /// Attention scores, for each token of the pool.
    pub score_token_bytes: u64,
    /// What stands beside the scores.
    pub attention_bytes: u64,
    /// The widest other moment: a feed-forward layer or the logits.
    pub other_bytes: u64,
}

impl Compute {
    /// Bytes over a pool of so many tokens.
    pub(crate) fn bytes(&self, pool_tokens: u32) -> u64 {
        let tokens = u64::from(pool_tokens);
        let attention = self.score_token_bytes.saturating_mul(tokens).saturating_add(self.attention_bytes);
        self.mask_token_bytes.saturating_mul(tokens).saturating_add(attention.max(self.other_bytes))
    }
}

/// What a model takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// It can generate text, as far as the header tells.
    pub generates: bool,
    /// The repeated layers, first to last.
    pub layers: Vec<Layer>,
    /// Weights before the first layer; they are in main memory wherever the layers are.
    pub input_bytes: u64,
    /// Weights behind the last layer.
    pub output_bytes: u64,
    /// More of them where the output is not on the device of the input, and both share a table.
    pub output_copy_bytes: u64,
    /// More of them where the CPU multiplies by the output in a layout of its own.
    pub output_packing_bytes: u64,
    /// Tokens of the pool that the mount asks for, or that it gets where it does not say.
    pub pool_tokens: u32,
    /// A pool of another size has a multiple of so many tokens.
    pub pool_multiple: u32,
    /// Buffers of a pass in main memory, whichever attention kernel runs.
    pub compute: Compute,
    /// Buffers of a pass with the fused attention kernel, which graphics devices have; on each side that has layers.
    pub fused_compute: Compute,
    /// The buffer in main memory that results are read from.
    pub result_bytes: u64,
    /// Bytes in main memory for each token of the pool, wherever the layers are: what is kept outside of the context.
    pub kept_token_bytes: u64,
}

/// What a model takes of the two places that it can be in at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Of the graphics device.
    pub device: Needs,
    /// Of main memory.
    pub host: Needs,
}

impl Estimate {
    /// Layers that can be on a graphics device, the output counted as one as llama.cpp does.
    pub fn layers_max(&self) -> u32 {
        self.layers.len() as u32 + 1
    }

    /// What a pool of `pool_tokens` and the rest take when the last `gpu_layers` layers are on a graphics device.
    /// `fused` says that the fused attention kernel runs in main memory, too.
    pub fn split(&self, pool_tokens: u32, gpu_layers: u32, fused: bool) -> Split {
        let on_device = gpu_layers.min(self.layers_max());
        let first = self.layers.len().saturating_sub((on_device as usize).saturating_sub(1));
        // The output is the first that goes to the device, and the layers follow from the last one on.
        let (host, device) = self.layers.split_at(first);
        let sum =
            |layers: &[Layer]| layers.iter().map(|l| l.needs(pool_tokens)).fold(Needs::default(), Needs::add);
        let mut split = Split { device: sum(device), host: sum(host) };
        let compute =
            if on_device > 0 || fused { self.fused_compute } else { self.compute }.bytes(pool_tokens);
        let more_bytes = if on_device > 0 { self.output_copy_bytes } else { self.output_packing_bytes };
        let output_bytes = self.output_bytes.saturating_add(more_bytes);
        let input_and_packing =
            host.iter().fold(self.input_bytes, |sum, layer| sum.saturating_add(layer.packing_bytes));
        split.host.weights = split.host.weights.saturating_add(input_and_packing);
        let kept_bytes = self.kept_token_bytes.saturating_mul(pool_tokens.into());
        split.host.pool = split.host.pool.saturating_add(kept_bytes);
        split.host.compute = self.result_bytes;
        if on_device > 0 {
            split.device.weights = split.device.weights.saturating_add(output_bytes);
            split.device.compute = compute;
        } else {
            split.host.weights = split.host.weights.saturating_add(output_bytes);
        }
        if !host.is_empty() || on_device == 0 {
            split.host.compute = split.host.compute.saturating_add(compute);
        }
        split
    }
}

impl Layer {
    fn needs(&self, pool_tokens: u32) -> Needs {
        let pool = self.token_bytes.saturating_mul(pool_tokens.into()).saturating_add(self.state_bytes);
        Needs { weights: self.weights_bytes, pool, compute: 0 }
    }
}

/// Estimates what a request would load.
///
/// # Errors
///
/// What loading it would be refused for, as far as the header or the script tells.
pub fn estimate(request: &LoadRequest) -> Result<Estimate, DriverFault> {
    if request.path.starts_with(sim::SCHEME) {
        return sim::estimate(request);
    }
    estimate_open(&ModelFiles::of(request)?, request)
}

/// Estimates what a request would load from these files.
///
/// # Errors
///
/// As [`estimate`].
pub fn estimate_open(files: &ModelFiles, request: &LoadRequest) -> Result<Estimate, DriverFault> {
    let Headers { first, others } = files.headers()?;
    let estimated = gguf::estimate(&first, &others, request);
    estimated.map_err(|error| error.into_fault(files.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Estimate {
        let layer = Layer { weights_bytes: 100, packing_bytes: 8, token_bytes: 2, state_bytes: 0 };
        let compute =
            Compute { mask_token_bytes: 1, score_token_bytes: 3, attention_bytes: 7, other_bytes: 50 };
        Estimate {
            generates: true,
            layers: vec![layer; 4],
            input_bytes: 30,
            output_bytes: 5,
            output_copy_bytes: 30,
            output_packing_bytes: 3,
            pool_tokens: 64,
            pool_multiple: 64,
            compute,
            fused_compute: Compute { score_token_bytes: 0, ..compute },
            result_bytes: 9,
            kept_token_bytes: 0,
        }
    }

    #[test]
    fn model_in_main_memory_takes_everything_there() {
        let Split { device, host } = model().split(10, 0, false);
        assert_eq!(device, Needs::default());
        assert_eq!(host, Needs { weights: 435 + 4 * 8 + 3, pool: 80, compute: 9 + 10 + 50 });
    }

    #[test]
    fn widest_moment_of_a_large_pool_is_the_attention() {
        assert_eq!(model().split(100, 0, false).host.compute, 9 + 100 + 307);
        assert_eq!(model().split(100, 0, true).host.compute, 9 + 100 + 50);
    }

    #[test]
    fn layers_on_a_device_are_the_last_ones_behind_the_output() {
        let Split { device, host } = model().split(10, 3, false);
        assert_eq!(device, Needs { weights: 235, pool: 40, compute: 60 });
        assert_eq!(host, Needs { weights: 230 + 2 * 8, pool: 40, compute: 69 });
        let Split { device, host } = model().split(10, 99, false);
        assert_eq!(device, Needs { weights: 435, pool: 80, compute: 60 });
        assert_eq!(host, Needs { weights: 30, pool: 0, compute: 9 }, "the input and the results stay");
        let Split { device, host } = Estimate { kept_token_bytes: 4, ..model() }.split(10, 99, false);
        assert_eq!((device.pool, host.pool), (80, 40), "what is kept outside of the context stays, too");
    }
}
