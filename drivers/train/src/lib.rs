//! Training of language models: GPT, BERT and the encoder-decoder Transformer, from tensors to the loop.
//!
//! Values are candle's tensors and parameters are its `Var`s, in f32 or f64. What computes on them is here: candle's
//! own layers have no backward pass, and its `backward` adds every gradient to a tensor of zeros on one thread and
//! gives nothing back before the end. So a [`tape::Tape`] records what a model computes, and [`ops`] are written once
//! with both directions, fused and threaded.
//!
//! What a loop needs is [`Model`], [`Batch`], [`Pass`], [`Gradients`] and [`optim::Optimiser`]:
//!
//! ```text
//! let loss = model.gradients(&batch, &pass, &mut gradients)?;   // adds; call it again to accumulate
//! gradients.clip(1.0)?;
//! optimiser.step(model.parameters(), &gradients, schedule.rate(step))?;
//! gradients.clear();
//! ```

pub mod batch;
pub mod checkpoint;
pub mod command;
pub mod data;
pub mod error;
pub mod export;
pub mod gradients;
pub mod import;
pub mod memory;
pub mod model;
pub mod models;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod parameters;
pub mod predict;
pub mod random;
pub mod ranks;
pub mod run;
pub mod spec;
pub mod tape;
pub mod token;
pub mod trained;

pub use batch::{Batch, IGNORE, Side};
pub use error::{Error, Result};
pub use gradients::Gradients;
pub use model::{Criterion, Loss, Model, Pass};
pub use models::ModelConfig;
pub use parameters::{Parameter, Parameters};
