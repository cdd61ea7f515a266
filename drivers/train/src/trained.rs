//! A trained model as a whole: out of the folder of a run, of one in the Hugging Face layout, or out of a GGUF.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor};

use crate::checkpoint::{Checkpoint, Folder};
use crate::import::Pretrained;
use crate::models::build;
use crate::run::RunError;
use crate::spec::{TrainSpec, TuneSpec};
use crate::token::Tokeniser;
use crate::{Batch, IGNORE, Loss, Model, ModelConfig, Pass};

/// A trained model.
#[derive(Clone, Debug)]
pub struct Trained {
    pub config: ModelConfig,
    pub weights: BTreeMap<String, Tensor>,
    pub tokeniser: Tokeniser,
    /// What it, or its folder, is called.
    pub name: String,
}

/// Which of a run's checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// That with the least loss, where there were evaluations, and otherwise the newest.
    Best,
    Newest,
}

impl Trained {
    /// Reads a model; `which` is for folders of runs.
    ///
    /// # Errors
    ///
    /// It is none of the three, or what is wrong with it.
    pub fn load(folder: &Path, which: Which) -> Result<Trained, RunError> {
        if folder.join("checkpoints").is_dir() {
            let checkpoints = Folder::of(folder);
            let checkpoint = match which {
                Which::Newest => checkpoints.newest()?.0,
                Which::Best => checkpoints.best()?,
            };
            let tokeniser = Tokeniser::from_json(&checkpoint.tokeniser)?;
            let weights = merged(&checkpoint)?;
            let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_else(|| "model".into());
            return Ok(Trained { config: checkpoint.config, weights, tokeniser, name });
        }
        let model = Pretrained::open(folder)?;
        let (config, tokeniser) = (model.config()?, model.tokeniser()?);
        let weights = whole(&config, &model.weights()?, folder)?.parameters().tensors();
        Ok(Trained { config, weights, tokeniser, name: model.name() })
    }

    /// The model itself, in 32 bits.
    ///
    /// # Errors
    ///
    /// Weights that are not those of the configuration.
    pub fn model(&self) -> Result<Box<dyn Model>, RunError> {
        whole(&self.config, &self.weights, Path::new(&self.name))
    }
}

/// The loss of a text as `llama-perplexity` reckons it: windows of so many tokens one after another, of which the second
/// half of each is counted. Tokens behind the last whole window are left out.
///
/// # Errors
///
/// Tokens that are not the model's, or windows that are longer than it reads.
pub fn loss_of_windows(model: &dyn Model, tokens: &[u32], length: usize) -> Result<Loss, RunError> {
    let mut loss = Loss::default();
    for window in tokens.chunks_exact(length) {
        let counted = |i: usize| match i + 1 < length && i >= length / 2 {
            true => window[i + 1] as i32,
            false => IGNORE,
        };
        let batch = Batch::next_token(window.to_vec(), (0..length).map(counted).collect(), length);
        loss += model.loss(&batch, &Pass::evaluation())?;
    }
    Ok(loss)
}

/// A model with all of its weights.
fn whole(
    config: &ModelConfig,
    weights: &BTreeMap<String, Tensor>,
    from: &Path,
) -> Result<Box<dyn Model>, RunError> {
    let model = build(config, DType::F32, 0)?;
    match model.parameters().load(weights)?.missing.first() {
        None => Ok(model),
        Some(name) => {
            let (folder, head) =
                (from.display(), "name in config.json's `architectures` what it was trained for");
            Err(RunError::Unfit(format!(
                "{folder}: has no weights for `{name}`; {head}, or train that first"
            )))
        }
    }
}

/// The weights of a checkpoint, with adapters in those that they stand beside.
fn merged(checkpoint: &Checkpoint) -> Result<BTreeMap<String, Tensor>, RunError> {
    let tune = TrainSpec::parse(&checkpoint.spec, "spec.ron").map(|spec| spec.tune)?;
    if !matches!(tune, TuneSpec::Lora { .. }) {
        return Ok(checkpoint.weights.clone());
    }
    let dtype = checkpoint.weights.values().next().map_or(DType::F32, Tensor::dtype);
    let mut model = build(&checkpoint.config, dtype, 0)?;
    tune.apply(model.as_mut())?;
    model.parameters().load(&checkpoint.weights)?;
    Ok(model.merged()?)
}
