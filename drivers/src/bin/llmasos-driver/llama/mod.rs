//! The driver for GGUF models: llama.cpp, by way of `llama-cpp-2` and `llama-cpp-sys-2`.
//!
//! [`load`] turns a file into a driver, [`step`] runs batches, [`sample`] chooses tokens, [`text`] knows the
//! vocabulary. Of a step, [`rows`] does the rows and [`paging`] the pages, which [`swap`] keeps; [`alone`] keeps the
//! sequences of deterministic mounts. The other modules each own one foreign thing: [`source`] files, [`model`] the
//! weights, [`context`] the KV pool, [`threadpool`] the threads, [`batch`] the tokens of a pass, [`grammar`] a grammar.
//!
//! What llama.cpp would answer with an abort is checked before it is asked: [`drivers::contract`] checks steps,
//! [`pool`] counts cells, [`alphabet`] checks texts.

mod accelerator;
mod alone;
mod alphabet;
pub mod arithmetic;
mod attention;
mod backends;
mod batch;
mod blocked;
mod clear;
pub mod contest;
mod context;
mod devices;
mod embed;
mod filter;
mod grammar;
mod load;
mod log;
mod made;
mod measured;
mod model;
mod paging;
mod pool;
mod product;
mod rows;
mod sample;
mod source;
mod stderr;
mod step;
mod swap;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod threadpool;

pub use accelerator::Kernel;
pub use devices::found as devices;
pub use load::load;
