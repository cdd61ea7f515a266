//! An attention kernel for CPUs that reads every cell once for all rows that see it.
//!
//! llama.cpp's fused kernel takes one row after another on the CPU, so many sequences that share a prefix read it as
//! often as there are sequences; its plain way computes every row with every cell of the pool. This kernel sorts
//! cells by who sees them ([`plan`]), cuts the work for threads ([`share`]), and computes all rows that see a tile of
//! cells together ([`unit`], [`micro`]). Queries, scores and sums are 32-bit floats throughout.
//!
//! It stands behind ggml's interface for accelerators ([`interface`], [`device`]), so llama.cpp's graphs find it by
//! themselves; ggml's own threads do the work ([`crew`]). What it does not support (see [`device::supports`]) is left
//! to ggml's fused kernel.
//!
//! # What a result depends on
//!
//! Scaling is exact (see [`micro`]). The order in which a row's cells are added depends on where they lie and on who
//! else sees them, and with several threads on where the work was cut; a score is added up in another order where the
//! cell has only one or two rows.
//! So a row computed alone and among others differs by rounding. The same pass gives the same bits every time.

#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod backend;
mod check;
mod crew;
mod device;
mod instance;
mod interface;
mod job;
mod kernels;
mod lanes;
mod merge;
mod micro;
mod plan;
mod share;
#[cfg(test)]
mod tests;
mod turn;
mod unit;

use std::sync::atomic::{AtomicBool, Ordering};

pub use check::agrees;
pub use turn::during;

/// The kernel has failed its comparison with ggml's and is not used.
static DISTRUSTED: AtomicBool = AtomicBool::new(false);

/// Makes the kernel known to ggml, where this CPU and this ggml are such that it can run. Once in a process, after the
/// CPU backend is there and before any context is.
pub fn register() {
    let Some(kernels) = kernels::known().first().copied() else { return };
    if interface::fits() {
        tracing::debug!("attention in blocks with {}", kernels.name);
        device::register(kernels);
    }
}

/// Leaves the kernel out from now on.
pub fn distrust() {
    DISTRUSTED.store(true, Ordering::Relaxed);
}

/// Whether contexts may use the kernel here.
pub fn usable() -> bool {
    device::registered() && !DISTRUSTED.load(Ordering::Relaxed)
}
