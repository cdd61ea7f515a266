//! Folders in the Hugging Face layout.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;

use super::ImportError;
use crate::ModelConfig;
use crate::checkpoint::read_tensors;

/// What `config.json` says.
pub(super) fn config(folder: &Path) -> Result<ModelConfig, ImportError> {
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(ImportError::io(&path))?;
    ModelConfig::from_json(&text).map_err(|error| ImportError::file(&path, error))
}

/// The weights, in one file or several.
pub(super) fn weights(folder: &Path) -> Result<BTreeMap<String, Tensor>, ImportError> {
    let entries = std::fs::read_dir(folder).map_err(ImportError::io(folder))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
    files.sort_unstable();
    if files.is_empty() {
        return Err(ImportError::file(folder, "has no model.safetensors"));
    }
    let mut tensors = BTreeMap::new();
    for path in files {
        tensors.extend(read_tensors(&path).map_err(ImportError::io(&path))?);
    }
    Ok(tensors)
}
