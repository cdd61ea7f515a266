//! A training run, from its specification to its last checkpoint.
//!
//! ```text
//! OUT/
//!     spec.ron, config.json, tokenizer.json   what it is
//!     log.jsonl                               what happened
//!     curve.svg, curve.png                    the loss, drawn at each evaluation
//!     tensorboard/                            the same for TensorBoard
//!     checkpoints/                            last and best, see [`crate::checkpoint`]
//! ```
//!
//! [`Setup`] prepares everything and refuses what cannot work; [`run`] does the steps. A signal ends it behind the step
//! that it is at, with a checkpoint. Everything that a step computes depends on the specification, the step's number and
//! the position in the data, so a run that was stopped goes on bit for bit. One program at a time trains in a folder.
//!
//! A checkpoint is written when the step behind it has been computed, up to the change of the weights: from weights that
//! have diverged no loss and no gradients come that are numbers, so they never take the place of good ones.

mod bitmap;
mod blame;
mod compute;
mod counts;
mod curve;
mod error;
mod evaluate;
mod expect;
mod feed;
mod free;
mod lock;
mod log;
mod memory;
mod patient;
mod progress;
mod sample;
mod setup;
mod steps;
mod tell;
mod tensorboard;
mod turn;

pub use error::RunError;
pub use evaluate::{Evaluation, evaluate};
pub use expect::{Expectation, expect};
pub use feed::Feed;
pub use lock::Lock;
pub use log::Entry;
pub use memory::Memory;
pub use progress::{Progress, duration};
pub use sample::sample;
pub use setup::Setup;
pub use steps::{End, Hooks, run};
pub use turn::{Always, MicroStep, Stop, Turn};
