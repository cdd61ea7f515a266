//! One checkpoint: writing all of its files, and reading them when they are what the manifest says.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::error::CheckpointError;
use super::files::{read_tensors, write_tensors};
use super::state::{Fits, RunState, check_model};
use crate::ModelConfig;
use crate::data::sha256_of;

const MODEL: &str = "model.safetensors";
const OPTIMISER: &str = "optimiser.safetensors";
const STATE: &str = "state.json";
const MANIFEST: &str = "manifest.json";

/// All of a checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub state: RunState,
    pub config: ModelConfig,
    pub weights: BTreeMap<String, Tensor>,
    /// What the optimiser remembers, and its own count of steps.
    pub optimiser: BTreeMap<String, Tensor>,
    pub optimiser_step: u64,
    /// The text of `tokenizer.json`.
    pub tokeniser: String,
    /// The text of `spec.ron`.
    pub spec: String,
}

/// Length and digest of each file.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    version: u32,
    optimiser_step: u64,
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    sha256: String,
}

/// Writes all files into a folder that is made anew, and synchronises them.
pub(super) fn write_all(folder: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir(folder)?;
    write_tensors(&folder.join(MODEL), &checkpoint.weights)?;
    write_tensors(&folder.join(OPTIMISER), &checkpoint.optimiser)?;
    let config = checkpoint.config.to_json().map_err(io::Error::other)?;
    for (name, text) in [
        ("config.json", &config),
        ("tokenizer.json", &checkpoint.tokeniser),
        ("spec.ron", &checkpoint.spec),
        (STATE, &serde_json::to_string_pretty(&checkpoint.state)?),
    ] {
        File::create(folder.join(name))?.write_all(text.as_bytes())?;
    }
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let file = File::open(&path)?;
        file.sync_all()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.insert(name, Entry { bytes: file.metadata()?.len(), sha256: sha256_of(&path)? });
    }
    let manifest = Manifest { version: 1, optimiser_step: checkpoint.optimiser_step, files };
    let mut file = File::create(folder.join(MANIFEST))?;
    file.write_all(serde_json::to_string_pretty(&manifest)?.as_bytes())?;
    file.sync_all()?;
    File::open(folder)?.sync_all()
}

/// Reads a checkpoint, if it is whole.
pub(super) fn read_all(folder: &Path) -> Result<Checkpoint, CheckpointError> {
    let manifest = read_manifest(folder)?;
    let text = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(CheckpointError::read(&path))
    };
    let tensors = |name: &str| {
        let path = folder.join(name);
        read_tensors(&path).map_err(CheckpointError::read(&path))
    };
    let state = serde_json::from_str(&text(STATE)?)
        .map_err(|error| CheckpointError::damaged(&folder.join(STATE), error.to_string()))?;
    let config = ModelConfig::from_json(&text("config.json")?)
        .map_err(|error| CheckpointError::damaged(&folder.join("config.json"), error.to_string()))?;
    Ok(Checkpoint {
        state,
        config,
        weights: tensors(MODEL)?,
        optimiser: tensors(OPTIMISER)?,
        optimiser_step: manifest.optimiser_step,
        tokeniser: text("tokenizer.json")?,
        spec: text("spec.ron")?,
    })
}

/// Reads the manifest and compares every file with it.
fn read_manifest(folder: &Path) -> Result<Manifest, CheckpointError> {
    let path = folder.join(MANIFEST);
    let json = fs::read(&path).map_err(CheckpointError::read(&path))?;
    let manifest: Manifest =
        serde_json::from_slice(&json).map_err(|error| CheckpointError::damaged(&path, error.to_string()))?;
    for name in [MODEL, OPTIMISER, STATE, "config.json", "tokenizer.json", "spec.ron"] {
        let path = folder.join(name);
        let Some(wanted) = manifest.files.get(name) else {
            return Err(CheckpointError::damaged(&path, "it is not in the manifest"));
        };
        let bytes = fs::metadata(&path).map_err(CheckpointError::read(&path))?.len();
        if bytes != wanted.bytes {
            let why = format!("it has {bytes} bytes and the manifest says {}", wanted.bytes);
            return Err(CheckpointError::damaged(&path, why));
        }
        if sha256_of(&path).map_err(CheckpointError::read(&path))? != wanted.sha256 {
            return Err(CheckpointError::damaged(&path, "its SHA-256 is not the manifest's"));
        }
    }
    Ok(manifest)
}

impl Checkpoint {
    /// Whether a run can go on from it.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Other`] with the first difference.
    pub fn check(&self, config: &ModelConfig, fits: &Fits, folder: &Path) -> Result<(), CheckpointError> {
        let path = folder.to_owned();
        check_model(&self.config, config, &path)?;
        self.state.fits.check(fits, &path)
    }
}
