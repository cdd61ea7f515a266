//! The models: GPT in the forms of GPT-2, Llama and Qwen2, BERT, and the encoder-decoder Transformer in its original form
//! (Marian's, by Hugging Face's names) and in T5's. All are stacks of one layer, [`crate::nn::Layer`].

mod bert;
pub mod config;
mod decoder;
mod generate;
mod gpt2;
mod head;
mod llama;
mod marian;
pub mod rope;
mod side;
mod t5;
mod transformer;

use std::sync::Arc;

use candle_core::{DType, Device};

pub use bert::Bert;
pub use config::ModelConfig;
pub use decoder::Decoder;
pub(crate) use generate::go_on;
pub use generate::{Sampling, generate};
pub use transformer::Transformer;

use crate::model::Model;
use crate::parameters::{Parameters, Place};
use crate::ranks::Mesh;
use crate::{Error, Result};

/// A new model; `seed` says how its parameters begin.
///
/// # Errors
/// If the configuration describes no model of this library.
pub fn build(config: &ModelConfig, dtype: DType, seed: u64) -> Result<Box<dyn Model>> {
    build_on(&Mesh::alone(), config, dtype, seed)
}

/// A rank's part of a new model; all ranks of the mesh together have the model that [`build`] makes.
///
/// # Errors
/// If the configuration describes no model of this library, or the mesh cannot divide it.
pub fn build_on(mesh: &Arc<Mesh>, config: &ModelConfig, dtype: DType, seed: u64) -> Result<Box<dyn Model>> {
    build_at(&Place::of(mesh, Device::Cpu), config, dtype, seed)
}

/// The same in any place.
///
/// # Errors
/// Those of [`build_on`], or the device has no numbers of this type.
pub fn build_at(place: &Place, config: &ModelConfig, dtype: DType, seed: u64) -> Result<Box<dyn Model>> {
    config.check()?;
    if !matches!(dtype, DType::F32 | DType::F64) {
        return Err(Error::Config(format!("parameters of {dtype:?}; choose f32 or f64")));
    }
    if dtype == DType::F64 && place.device.is_metal() {
        return Err(Error::Config(
            "parameters of f64 on Metal, which has no such numbers; choose f32".into(),
        ));
    }
    let parameters = Parameters::on(place, dtype, seed);
    Ok(match config {
        ModelConfig::Gpt2(config) => Box::new(gpt2::build(config, parameters)?),
        ModelConfig::Llama(own) | ModelConfig::Qwen2(own) => Box::new(llama::build(config, own, parameters)?),
        ModelConfig::Bert(config) => Box::new(Bert::new(config, parameters)?),
        ModelConfig::Marian(config) => Box::new(marian::build(config, parameters)?),
        ModelConfig::T5(config) => Box::new(t5::build(config, parameters)?),
    })
}
