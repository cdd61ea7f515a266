//! Training over many ranks computes what one process computes. In f64, so that bugs cannot hide in rounding; with
//! dropout, uneven counts of targets, and clipping over all ranks.

#![allow(clippy::unwrap_used)]

mod composed;
mod data;
mod groups;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
mod overlap;
mod pipeline;
mod proof;
mod tensor;
