//! An attention kernel for CPUs that reads every cell once for all rows that see it.
//!
//! llama.cpp's fused kernel takes one row after another on the CPU, so many sequences that share a prefix read it as
//! often as there are sequences; its plain way computes every row with every cell of the pool. This kernel sorts
//! cells by who sees them ([`plan`]), cuts the work for threads ([`share`]), and computes all rows that see a tile of
//! cells together ([`unit`], [`micro`]). Queries, scores and sums are 32-bit floats throughout.
//!
//! It stands behind ggml's interface for [accelerators](super::accelerator). What it does not support (see [`supports`])
//! is left to ggml's fused kernel.
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
mod check;
mod job;
mod kernels;
mod lanes;
mod merge;
mod micro;
mod pass;
mod plan;
mod share;
mod supported;
#[cfg(test)]
mod tests;
mod unit;

pub use check::agrees;
pub use micro::Kernels;
pub use pass::Pass;
pub use supported::supports;

/// The fastest kernels that this CPU has.
pub fn kernels() -> Option<&'static Kernels> {
    kernels::known().first().copied()
}
