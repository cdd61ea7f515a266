//! The optimiser of a specification, and how its rate changes.

use serde::{Deserialize, Serialize};

use super::error::SpecError;
use crate::optim::{Adam, Decay, Optimiser, Schedule, Sgd};

/// A rule that changes parameters. The defaults are PyTorch's, apart from AdamW's second beta, which is what language
/// models are trained with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum OptimiserSpec {
    /// Gradient descent, with momentum where it is not 0.
    Sgd {
        lr: f64,
        #[serde(default)]
        momentum: f64,
        #[serde(default)]
        nesterov: bool,
        #[serde(default)]
        weight_decay: f64,
    },
    /// Adam; its decay adds to the gradients.
    Adam {
        lr: f64,
        #[serde(default = "betas_default")]
        betas: (f64, f64),
        #[serde(default = "epsilon_default")]
        epsilon: f64,
        #[serde(default)]
        weight_decay: f64,
    },
    /// AdamW; matrices and embeddings decay, biases and norms do not.
    AdamW {
        lr: f64,
        #[serde(default = "betas_default")]
        betas: (f64, f64),
        #[serde(default = "epsilon_default")]
        epsilon: f64,
        #[serde(default = "decay_default")]
        weight_decay: f64,
    },
}

fn betas_default() -> (f64, f64) {
    (0.9, 0.99)
}

fn epsilon_default() -> f64 {
    1e-8
}

fn decay_default() -> f64 {
    0.1
}

impl Default for OptimiserSpec {
    fn default() -> OptimiserSpec {
        OptimiserSpec::AdamW {
            lr: 1e-3,
            betas: betas_default(),
            epsilon: epsilon_default(),
            weight_decay: decay_default(),
        }
    }
}

impl OptimiserSpec {
    /// The rate that the schedule changes.
    pub fn rate(&self) -> f64 {
        match self {
            OptimiserSpec::Sgd { lr, .. }
            | OptimiserSpec::Adam { lr, .. }
            | OptimiserSpec::AdamW { lr, .. } => *lr,
        }
    }

    /// Its name, which a checkpoint is compared by.
    pub fn name(&self) -> &'static str {
        match self {
            OptimiserSpec::Sgd { .. } => "Sgd",
            OptimiserSpec::Adam { .. } => "Adam",
            OptimiserSpec::AdamW { .. } => "AdamW",
        }
    }

    /// Numbers that it remembers for each parameter.
    pub fn numbers_each(&self) -> u64 {
        match self {
            OptimiserSpec::Sgd { momentum, .. } if *momentum == 0.0 => 0,
            OptimiserSpec::Sgd { .. } => 1,
            OptimiserSpec::Adam { .. } | OptimiserSpec::AdamW { .. } => 2,
        }
    }

    /// The optimiser itself.
    pub fn build(&self) -> Box<dyn Optimiser> {
        match *self {
            OptimiserSpec::Sgd { momentum, nesterov, weight_decay, .. } => {
                Box::new(Sgd::new(momentum, nesterov, weight_decay))
            }
            OptimiserSpec::Adam { betas: (first, second), epsilon, weight_decay, .. } => {
                Box::new(Adam::new([first, second], epsilon, weight_decay))
            }
            OptimiserSpec::AdamW { betas: (first, second), epsilon, weight_decay, .. } => {
                Box::new(Adam::decoupled([first, second], epsilon, weight_decay))
            }
        }
    }

    /// Whether the rate is a number that can be trained with.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        let rate = self.rate();
        match rate.is_finite() && rate >= 0.0 {
            true => Ok(()),
            false => Err(SpecError::Range {
                field: "optimiser.lr",
                value: rate.to_string(),
                range: "a number from 0 on".into(),
            }),
        }
    }
}

/// How the rate changes from step to step. All begin with a warm-up from 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ScheduleSpec {
    /// It stays.
    Constant {
        #[serde(default)]
        warmup: u64,
    },
    /// It goes down to `floor` times itself, evenly.
    Linear {
        #[serde(default)]
        warmup: u64,
        #[serde(default)]
        floor: f64,
    },
    /// It goes down to `floor` times itself along half a wave.
    Cosine {
        #[serde(default)]
        warmup: u64,
        #[serde(default = "floor_default")]
        floor: f64,
    },
}

fn floor_default() -> f64 {
    0.1
}

impl Default for ScheduleSpec {
    fn default() -> ScheduleSpec {
        ScheduleSpec::Cosine { warmup: 100, floor: floor_default() }
    }
}

impl ScheduleSpec {
    /// The schedule of a run of so many steps.
    pub fn build(&self, peak: f64, steps: u64) -> Schedule {
        let (decay, warmup, floor) = match *self {
            ScheduleSpec::Constant { warmup } => (Decay::Constant, warmup, 1.0),
            ScheduleSpec::Linear { warmup, floor } => (Decay::Linear, warmup, floor),
            ScheduleSpec::Cosine { warmup, floor } => (Decay::Cosine, warmup, floor),
        };
        Schedule { peak, floor: floor * peak, warmup, steps, decay }
    }
}
