//! What a run knows besides its tensors.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::CheckpointError;
use crate::ModelConfig;
use crate::data::Position;

/// The lowest loss of an evaluation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub step: u64,
    pub loss: f64,
}

/// What a run knows besides its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Steps that are done.
    pub step: u64,
    /// Where the data go on.
    pub position: Position,
    /// Tokens that were trained on.
    pub tokens: u64,
    /// Seconds that steps have taken.
    pub seconds: f64,
    /// The best evaluation, and how many there were since.
    pub best: Option<Best>,
    pub evaluations_since: u32,
    /// What must be the same to go on: the optimiser, the type of number, the vocabulary's digest, the seed; and the data,
    /// unless others are meant.
    pub fits: Fits,
}

/// What must be the same to go on from a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fits {
    pub optimiser: String,
    pub precision: String,
    pub tokeniser: String,
    pub seed: u64,
    /// A digest of the training data and of how examples are cut out of them. Who goes on looks at it: others may be meant.
    #[serde(default)]
    pub data: String,
    /// The same of what is evaluated on; nothing where there is none.
    #[serde(default)]
    pub validation: String,
}

impl Fits {
    /// Whether losses of evaluations are of the same data as ours, as far as it is known: those of others do not compare.
    pub fn compares(&self, ours: &Fits) -> bool {
        let known = !self.validation.is_empty() && !ours.validation.is_empty();
        !known || self.validation == ours.validation
    }

    /// Whether a checkpoint with `self` can be gone on from by a run with `ours`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Other`] with the first difference.
    pub fn check(&self, ours: &Fits, path: &Path) -> Result<(), CheckpointError> {
        let names = |fits: &Fits| {
            [
                ("optimiser", fits.optimiser.clone()),
                ("precision", fits.precision.clone()),
                ("tokeniser", fits.tokeniser.clone()),
                ("seed", fits.seed.to_string()),
            ]
        };
        for ((name, theirs), (_, ours)) in names(self).into_iter().zip(names(ours)) {
            if theirs != ours {
                let (path, name) = (path.to_owned(), name.to_owned());
                return Err(CheckpointError::Other { path, what: "run", name, theirs, ours });
            }
        }
        Ok(())
    }
}

/// Whether a checkpoint's model is the run's.
///
/// # Errors
///
/// [`CheckpointError::Other`] with the first field of the configurations that differs.
pub fn check_model(theirs: &ModelConfig, ours: &ModelConfig, path: &Path) -> Result<(), CheckpointError> {
    let tree =
        |config: &ModelConfig| serde_json::to_value(config).expect("a configuration has a form in JSON");
    let (Value::Object(their), Value::Object(our)) = (tree(theirs), tree(ours)) else { return Ok(()) };
    // The kind of model says more than any of its sizes.
    let names = ["model_type"].into_iter().chain(their.keys().chain(our.keys()).map(String::as_str));
    for name in names {
        if their.get(name) != our.get(name) {
            let show = |value: Option<&Value>| value.map_or_else(|| "not there".into(), Value::to_string);
            return Err(CheckpointError::Other {
                path: path.to_owned(),
                what: "model",
                name: name.to_owned(),
                theirs: show(their.get(name)),
                ours: show(our.get(name)),
            });
        }
    }
    Ok(())
}
