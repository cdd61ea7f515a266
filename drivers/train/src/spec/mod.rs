//! The specification of a training run: one RON file says all of it.
//!
//! Names that there are not are refused with the one that is nearest. `--set optimiser.lr=1e-3` changes a part from the
//! command line. A run keeps the specification that it began with, complete, in its folder.

mod check;
mod device;
mod error;
mod groups;
mod loss;
mod model;
mod optimiser;
mod ranks;
mod read;
mod resolve;
#[cfg(test)]
mod tests;
mod tune;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use device::DeviceSpec;
pub use error::SpecError;
pub use groups::GroupSpec;
pub use loss::LossSpec;
pub use model::{ModelSpec, Sizes, classes_of};
pub use optimiser::{OptimiserSpec, ScheduleSpec};
pub use ranks::RanksSpec;
pub use tune::TuneSpec;

use crate::data::{Order, Packing, Source};
use crate::ops::product::Precision;
use crate::token::Kind;

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSpec {
    pub model: ModelSpec,
    /// Tokens of a row, where they are to be fewer than the model has places for. Of a model that was trained before
    /// rows have 1,024 at most where it is not said.
    #[serde(default)]
    pub context: Option<usize>,
    /// Which parts of it are trained.
    #[serde(default)]
    pub tune: TuneSpec,
    pub data: DataSpec,
    #[serde(default)]
    pub tokeniser: TokeniserSpec,
    #[serde(default)]
    pub optimiser: OptimiserSpec,
    #[serde(default)]
    pub schedule: ScheduleSpec,
    /// Examples that are computed together.
    #[serde(default = "batch_default")]
    pub batch: usize,
    /// Batches that make a step.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Steps in all. One of `steps` and `epochs` must be given.
    #[serde(default)]
    pub steps: Option<u64>,
    /// Times that the data are gone through.
    #[serde(default)]
    pub epochs: Option<f64>,
    /// What the gradients' norm is cut to; 0 for never.
    #[serde(default = "clip_default")]
    pub clip: f64,
    #[serde(default)]
    pub loss: LossSpec,
    #[serde(default)]
    pub label_smoothing: f64,
    /// Share of tokens that an encoder has to guess.
    #[serde(default = "masked_default")]
    pub masked: f64,
    #[serde(default)]
    pub evaluation: EvaluationSpec,
    #[serde(default)]
    pub samples: SampleSpec,
    #[serde(default)]
    pub checkpoint: CheckpointSpec,
    /// What it computes on. A run may go on on another device.
    #[serde(default)]
    pub device: DeviceSpec,
    #[serde(default)]
    pub precision: PrecisionSpec,
    /// Whether blocks are computed a second time while going backwards, which saves memory.
    #[serde(default)]
    pub recompute: bool,
    #[serde(default = "seed_default")]
    pub seed: u64,
    /// How it is divided over ranks, where there are several.
    #[serde(default)]
    pub ranks: RanksSpec,
    /// Of all ranks on one machine together; as many as the process may use where it is not said.
    #[serde(default)]
    pub threads: Option<usize>,
    /// Mebibytes that the run may take on its device; what is free there where it is not said.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// What links in the folders that it names lead to, as `resolve` finds it: a jail goes by where files are, and hubs keep
    /// those of a model elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<PathBuf>,
    /// The folder of the run.
    pub out: PathBuf,
}

fn batch_default() -> usize {
    12
}

fn one() -> usize {
    1
}

fn clip_default() -> f64 {
    1.0
}

fn masked_default() -> f64 {
    0.15
}

fn seed_default() -> u64 {
    1337
}

/// What is trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    pub train: Source,
    #[serde(default)]
    pub validation: ValidationSpec,
    #[serde(default)]
    pub order: Order,
    /// Whether documents that share a row see each other.
    #[serde(default)]
    pub packing: Packing,
    /// Whether a run may go on with training data that are not those it began with. It begins them anew.
    #[serde(default)]
    pub changed: bool,
}

/// What is evaluated on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ValidationSpec {
    /// Nothing.
    None,
    /// The end of the training data, as a share of it.
    Share(f64),
    /// Data of their own.
    From(Source),
}

impl Default for ValidationSpec {
    fn default() -> ValidationSpec {
        ValidationSpec::Share(0.1)
    }
}

/// How text becomes tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokeniserSpec {
    #[serde(default)]
    pub kind: TokeniserKind,
    /// Special tokens; those that are usual for the model where it is not said.
    #[serde(default)]
    pub special: Option<Vec<String>>,
}

/// Where the vocabulary comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum TokeniserKind {
    /// The trained model's own, or else learned as is usual for the model.
    #[default]
    Usual,
    /// Learned from the training data.
    Train(Kind),
    /// Read from a `tokenizer.json`, or that of a folder, or out of a GGUF.
    Load(PathBuf),
}

/// When and on how much a run is evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationSpec {
    /// Steps between evaluations.
    pub every: u64,
    /// Batches of each, spread over the data; all of the data where it is not said.
    pub batches: Option<u64>,
    /// Evaluations without a better loss after which the run ends; never where it is not said.
    pub patience: Option<u32>,
}

impl Default for EvaluationSpec {
    fn default() -> EvaluationSpec {
        EvaluationSpec { every: 250, batches: Some(20), patience: None }
    }
}

/// Texts that the model writes while it learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleSpec {
    /// Steps between samples; 0 for none.
    pub every: u64,
    pub prompt: String,
    /// Tokens of each.
    pub tokens: usize,
    pub temperature: f64,
    /// The likeliest tokens that are chosen among; all where it is 0.
    pub top_k: usize,
}

impl Default for SampleSpec {
    fn default() -> SampleSpec {
        SampleSpec { every: 0, prompt: "\n".into(), tokens: 100, temperature: 0.8, top_k: 200 }
    }
}

/// When a run is saved, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSpec {
    /// Steps between checkpoints.
    pub every: u64,
    /// The last so many are kept, and the best one.
    pub keep: usize,
}

impl Default for CheckpointSpec {
    fn default() -> CheckpointSpec {
        CheckpointSpec { every: 250, keep: 2 }
    }
}

/// What matrix products are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrecisionSpec {
    /// 32 bits.
    #[default]
    F32,
    /// 64 bits, for comparisons.
    F64,
    /// Mixed: weights and sums in 32 bits, and matrices rounded to bf16 where training multiplies them. Evaluations are
    /// in 32 bits.
    Bf16,
}

impl PrecisionSpec {
    /// How training multiplies matrices.
    pub fn products(self) -> Precision {
        match self {
            PrecisionSpec::F32 | PrecisionSpec::F64 => Precision::Full,
            PrecisionSpec::Bf16 => Precision::Mixed,
        }
    }
}
