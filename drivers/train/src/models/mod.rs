//! The models: GPT in the forms of GPT-2 and Llama, BERT, and the encoder-decoder Transformer in its original form
//! (Marian's, by Hugging Face's names) and in T5's. All are stacks of one layer, [`crate::nn::Layer`].

mod bert;
pub mod config;
mod decoder;
mod generate;
mod gpt2;
mod llama;
mod marian;
mod side;
mod t5;
mod transformer;

use candle_core::DType;

pub use bert::Bert;
pub use config::ModelConfig;
pub use decoder::Decoder;
pub use generate::{Sampling, generate};
pub use transformer::Transformer;

use crate::model::Model;
use crate::{Error, Result};

/// A new model; `seed` says how its parameters begin.
///
/// # Errors
/// If the configuration describes no model of this library.
pub fn build(config: &ModelConfig, dtype: DType, seed: u64) -> Result<Box<dyn Model>> {
    config.check()?;
    if !matches!(dtype, DType::F32 | DType::F64) {
        return Err(Error::Config(format!("parameters of {dtype:?}; choose f32 or f64")));
    }
    Ok(match config {
        ModelConfig::Gpt2(config) => Box::new(gpt2::build(config, dtype, seed)?),
        ModelConfig::Llama(config) => Box::new(llama::build(config, dtype, seed)?),
        ModelConfig::Bert(config) => Box::new(Bert::new(config, dtype, seed)?),
        ModelConfig::Marian(config) => Box::new(marian::build(config, dtype, seed)?),
        ModelConfig::T5(config) => Box::new(t5::build(config, dtype, seed)?),
    })
}
