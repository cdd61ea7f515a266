//! Sets up a driver that follows a script.

use std::sync::Arc;
use std::time::Duration;

use syscalls::Errno;
use syscalls::call::Attention;
use syscalls::limits::CONTEXT_TOKENS_MAX;

use super::clock::{Clock, RealClock};
use super::sample::mix;
use super::script::Script;
use super::step::SimDriver;
use super::swap::SimSwap;
use crate::Driver;
use crate::estimate::{Compute, Estimate, Layer};
use crate::wire::{DriverFault, LoadRequest, ModelDescription, PAGE_TOKENS, SavedPages};

impl Script {
    /// Tokens of the largest context, and of the pool that the script or the mount asks for.
    fn sizes(&self, request: &LoadRequest) -> (u32, u32) {
        let context = request.context_tokens.unwrap_or(self.context).clamp(1, CONTEXT_TOKENS_MAX);
        let pool = if self.pool == 0 { context } else { self.pool };
        (context, pool.next_multiple_of(PAGE_TOKENS))
    }

    fn estimate(&self, request: &LoadRequest) -> Estimate {
        let count = u64::from(self.layers);
        // What cannot be spread evenly is the first layer's.
        let part = |bytes: u64, layer: u64| bytes / count + if layer == 0 { bytes % count } else { 0 };
        let layer = |n| Layer {
            weights_bytes: part(self.weights, n),
            token_bytes: part(self.kv, n),
            ..Layer::default()
        };
        let compute = Compute { other_bytes: self.compute, ..Compute::default() };
        Estimate {
            generates: self.generates,
            layers: (0..count).map(layer).collect(),
            pool_tokens: self.sizes(request).1,
            pool_multiple: PAGE_TOKENS,
            compute,
            fused_compute: compute,
            ..Estimate::default()
        }
    }

    fn describe(&self, request: &LoadRequest) -> ModelDescription {
        let (context, pool) = self.sizes(request);
        let pool = request.pool_tokens.unwrap_or(pool).clamp(1, 1 << 26);
        ModelDescription {
            driver: "sim".into(),
            architecture: "sim".into(),
            description: format!("scripted text without a model, seed {}", self.seed),
            parameters: 0,
            bytes: 0,
            vocabulary: self.vocabulary,
            context_tokens: context,
            context_trained: self.context,
            pool_tokens: pool.next_multiple_of(PAGE_TOKENS),
            weights_bytes: self.weights,
            pool_bytes: self.kv.saturating_mul(pool.into()),
            compute_bytes: self.compute,
            batch_tokens: self.batch,
            row_tile: self.tile.max(1),
            sequences: self.sequences.min(request.sequences_max).max(1),
            embedding: self.embedding,
            generates: self.generates,
            embeds: self.embeds,
            chat_template: self.template,
            any_text: !self.ascii,
            ranges: self.ranges,
            page_bytes: if self.ranges { self.page_bytes } else { 0 },
            drafts: self.drafts,
            attention: match request.attention {
                Attention::Auto => Attention::Plain,
                chosen => chosen,
            },
            device: request.device.clone().unwrap_or_else(|| "cpu".into()),
            threads: request.threads.unwrap_or(1),
            fingerprint: mix(self.seed, self.vocabulary.into()),
            saved: SavedPages::default(),
        }
    }
}

/// What the script says that its model takes.
///
/// # Errors
///
/// EINVAL for a script that it cannot follow.
pub fn estimate(request: &LoadRequest) -> Result<Estimate, DriverFault> {
    Ok(Script::parse(&request.path)?.estimate(request))
}

/// Sets up the driver for a worker process.
///
/// # Errors
///
/// EINVAL for a script that it cannot follow, ENOEXEC where the script says to refuse.
pub fn load(request: &LoadRequest) -> Result<Box<dyn Driver>, DriverFault> {
    Ok(Box::new(load_with(request, Arc::new(RealClock))?))
}

/// Sets up the driver on a clock of the caller's choice.
///
/// # Errors
///
/// As [`load`].
pub fn load_with(request: &LoadRequest, clock: Arc<dyn Clock>) -> Result<SimDriver, DriverFault> {
    load_with_swap(request, clock, SimSwap::default())
}

/// Sets up the driver with a swap area that others may have used.
///
/// # Errors
///
/// As [`load`].
pub fn load_with_swap(
    request: &LoadRequest,
    clock: Arc<dyn Clock>,
    swap: SimSwap,
) -> Result<SimDriver, DriverFault> {
    let script = Script::parse(&request.path)?;
    clock.sleep(Duration::from_millis(script.slow_load_ms));
    if let Some(message) = &script.refuse {
        return Err(DriverFault::new(Errno::ENOEXEC, message.clone()));
    }
    if script.die_on_load {
        clock.abort("die_on_load");
    }
    let mut description = script.describe(request);
    description.saved = swap.take_over(description.fingerprint);
    Ok(SimDriver::new(script, description, clock, swap))
}
