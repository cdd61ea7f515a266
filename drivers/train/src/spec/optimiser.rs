//! The optimiser of a specification, and how its rate changes.

use serde::{Deserialize, Serialize};

use super::error::SpecError;
use super::groups::{self, GroupSpec};
use crate::optim::{Adam, Decay, Optimiser, Schedule, Sgd};
use crate::parameters::Parameters;

/// A rule that changes parameters. The defaults are PyTorch's, apart from AdamW's second beta and decay, which are what
/// small language models are trained with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
        #[serde(default)]
        groups: Vec<GroupSpec>,
    },
    /// Adam; its decay adds to the gradients.
    Adam {
        lr: f64,
        #[serde(default = "betas_of_adam")]
        betas: (f64, f64),
        #[serde(default = "epsilon_default")]
        epsilon: f64,
        #[serde(default)]
        weight_decay: f64,
        #[serde(default)]
        groups: Vec<GroupSpec>,
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
        #[serde(default)]
        groups: Vec<GroupSpec>,
    },
}

/// PyTorch's.
fn betas_of_adam() -> (f64, f64) {
    (0.9, 0.999)
}

/// nanoGPT's for small models.
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
            groups: Vec::new(),
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

    /// The groups of parameters that have a rate or a decay of their own.
    pub fn groups(&self) -> &[GroupSpec] {
        match self {
            OptimiserSpec::Sgd { groups, .. }
            | OptimiserSpec::Adam { groups, .. }
            | OptimiserSpec::AdamW { groups, .. } => groups,
        }
    }

    /// Puts a model's parameters into their groups.
    ///
    /// # Errors
    ///
    /// A name that no parameter has.
    pub fn group(&self, parameters: &mut Parameters) -> Result<(), SpecError> {
        groups::apply(self.groups(), self.rate(), parameters)
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

    /// Whether its numbers can be trained with.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        let from_zero = |field, value: f64| range(field, value, value >= 0.0, "a number from 0 on");
        from_zero("optimiser.lr", self.rate())?;
        match self {
            OptimiserSpec::Sgd { momentum, weight_decay, .. } => {
                below_one("optimiser.momentum", *momentum)?;
                from_zero("optimiser.weight_decay", *weight_decay)?;
            }
            OptimiserSpec::Adam { betas, epsilon, weight_decay, .. }
            | OptimiserSpec::AdamW { betas, epsilon, weight_decay, .. } => {
                below_one("optimiser.betas", betas.0)?;
                below_one("optimiser.betas", betas.1)?;
                from_zero("optimiser.epsilon", *epsilon)?;
                from_zero("optimiser.weight_decay", *weight_decay)?;
            }
        }
        let adam = !matches!(self, OptimiserSpec::Sgd { .. });
        self.groups().iter().try_for_each(|group| group.check(self.rate(), adam))
    }
}

/// Refuses what is not from 0 on and below 1.
pub(super) fn below_one(field: &'static str, value: f64) -> Result<(), SpecError> {
    range(field, value, (0.0..1.0).contains(&value), "from 0 on, below 1")
}

/// Refuses a number that is none, or for which `fits` does not hold.
pub(super) fn range(
    field: &'static str,
    value: f64,
    fits: bool,
    range: &'static str,
) -> Result<(), SpecError> {
    match value.is_finite() && fits {
        true => Ok(()),
        false => Err(SpecError::Range { field, value: value.to_string(), range: range.into() }),
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
    /// Whether the rate stays one that trains: a floor is a share of it.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        match self {
            ScheduleSpec::Constant { .. } => Ok(()),
            ScheduleSpec::Linear { floor, .. } | ScheduleSpec::Cosine { floor, .. } => {
                range("schedule.floor", *floor, (0.0..=1.0).contains(floor), "within 0 and 1")
            }
        }
    }

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
