//! Drivers run models for the kernel, each in a worker process of its own.
//!
//! The library holds what the kernel and the worker share: the trait ([`driver`]), the private wire between the
//! two ([`wire`]), what a step may ask ([`contract`]), the checked reader and the writer of GGUF files ([`gguf`]), the
//! open files of a model ([`files`]), files that take the place of older ones ([`whole`]), what a model takes of memory
//! ([`mod@estimate`]), matrix units (`tiles`), and the driver without a model ([`sim`]). It links no C++: llama.cpp lives in the worker binary,
//! `llmasos-driver`, alone.

pub mod contract;
pub mod driver;
pub mod estimate;
pub mod files;
pub mod gguf;
pub mod sim;
#[cfg(target_arch = "x86_64")]
pub mod tiles;
pub mod whole;
pub mod wire;

pub use driver::{Driver, TextCodec, Withdrawal};
