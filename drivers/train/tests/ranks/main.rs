//! Training over many ranks computes what one process computes. In f64, so that bugs cannot hide in rounding; with
//! dropout, uneven counts of targets, and clipping over all ranks.

#![allow(clippy::unwrap_used)]

mod data;
mod groups;
#[cfg(feature = "nccl")]
mod nccl;
mod pipeline;
mod proof;
mod overlap;
mod tensor;
