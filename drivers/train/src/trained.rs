//! A trained model as a whole: out of the folder of a run, or out of one in the Hugging Face layout.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor};

use crate::checkpoint::{Folder, read_tensors};
use crate::models::build;
use crate::run::RunError;
use crate::token::Tokeniser;
use crate::{Model, ModelConfig};

/// A trained model.
#[derive(Clone, Debug)]
pub struct Trained {
    pub config: ModelConfig,
    pub weights: BTreeMap<String, Tensor>,
    pub tokeniser: Tokeniser,
    /// What its folder is called.
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
    /// Reads a model from a folder; `which` is for folders of runs.
    ///
    /// # Errors
    ///
    /// The folder is neither, or what is wrong with it.
    pub fn load(folder: &Path, which: Which) -> Result<Trained, RunError> {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_else(|| "model".into());
        if folder.join("checkpoints").is_dir() {
            let checkpoints = Folder::of(folder);
            let checkpoint = match which {
                Which::Newest => checkpoints.newest()?.0,
                Which::Best => checkpoints.best()?,
            };
            let tokeniser = Tokeniser::from_json(&checkpoint.tokeniser)?;
            return Ok(Trained { config: checkpoint.config, weights: checkpoint.weights, tokeniser, name });
        }
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(RunError::io(&path))?;
        let config = ModelConfig::from_json(&text)?;
        let tokeniser = Tokeniser::load(folder)?;
        let weights = whole(&config, &weights(folder)?, folder)?.parameters().tensors();
        Ok(Trained { config, weights, tokeniser, name })
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

/// The weights of a folder in the Hugging Face layout, in one file or several.
pub(crate) fn weights(folder: &Path) -> Result<BTreeMap<String, Tensor>, RunError> {
    let entries = std::fs::read_dir(folder).map_err(RunError::io(folder))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
    files.sort_unstable();
    if files.is_empty() {
        return Err(RunError::Unfit(format!("{}: has no model.safetensors", folder.display())));
    }
    let mut tensors = BTreeMap::new();
    for path in files {
        tensors.extend(read_tensors(&path).map_err(RunError::io(&path))?);
    }
    Ok(tensors)
}
