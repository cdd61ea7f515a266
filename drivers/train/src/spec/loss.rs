//! What a run makes small.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::SpecError;
use super::optimiser::range;
use crate::Criterion;
use crate::data::{Shape, Task};
use crate::token::Family;

/// What a run makes small. `label_smoothing` and `masked` stand beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum LossSpec {
    /// What the data ask for: cross-entropy, or of pairs of texts for an encoder `MultipleNegativesRanking`.
    #[default]
    Usual,
    /// Of tokens or classes. Classes of texts and of words may have weights, 1 where it is not said, and one label may
    /// count for nothing: `-100` where it is not said.
    CrossEntropy {
        #[serde(default)]
        weights: BTreeMap<String, f64>,
        #[serde(default)]
        ignore: Option<String>,
    },
    /// The square of how far a number that a text is labelled with is missed.
    MeanSquaredError,
    /// Cross-entropy of each class by itself, of which a text has any number.
    BinaryCrossEntropy,
    /// Of pairs of texts: each one's second is to be nearer to it than the seconds of all others of the batch.
    MultipleNegativesRanking {
        /// What similarities are multiplied with.
        #[serde(default = "scale_default")]
        scale: f64,
    },
    /// The square of how far the cosine of two texts' vectors is from the number that they are labelled with.
    CosineSimilarity,
}

fn scale_default() -> f64 {
    Criterion::default().scale
}

impl LossSpec {
    /// The label that counts for nothing.
    pub fn ignore(&self) -> Option<&String> {
        if let LossSpec::CrossEntropy { ignore, .. } = self { ignore.as_ref() } else { None }
    }

    /// Whether its numbers are in their ranges.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        match self {
            LossSpec::CrossEntropy { weights, .. } => weights
                .values()
                .try_for_each(|weight| range("loss.weights", *weight, *weight >= 0.0, "a number from 0 on")),
            LossSpec::MultipleNegativesRanking { scale } => {
                range("loss.scale", *scale, *scale > 0.0, "a number above 0")
            }
            _ => Ok(()),
        }
    }

    /// Whether it is learned from such data by such a model.
    pub(super) fn check_for(&self, family: Family, shape: Shape) -> Result<(), SpecError> {
        let (fits, wanted) = match self {
            LossSpec::Usual => (true, ""),
            LossSpec::CrossEntropy { weights, ignore } if weights.is_empty() && ignore.is_none() => {
                let pairs = family == Family::Encoder && shape == Shape::Pairs;
                (!pairs, "tokens and classes; pairs of texts take MultipleNegativesRanking")
            }
            LossSpec::CrossEntropy { .. } => (
                matches!(shape, Shape::Labelled | Shape::Tagged),
                "classes of texts or of words, where it has `weights` or `ignore`: `data.train: Labelled` or `Tagged`",
            ),
            LossSpec::MeanSquaredError => {
                (shape == Shape::Labelled, "numbers of texts: `data.train: Labelled`")
            }
            LossSpec::BinaryCrossEntropy => {
                (shape == Shape::Labelled, "classes of texts: `data.train: Labelled`")
            }
            LossSpec::MultipleNegativesRanking { .. } => (
                family == Family::Encoder && shape == Shape::Pairs,
                "an encoder's pairs of texts: `data.train: Pairs`",
            ),
            LossSpec::CosineSimilarity => {
                (shape == Shape::Labelled, "two texts and a number: `data.train: Labelled` with `second`")
            }
        };
        match fits {
            true => Ok(()),
            false => Err(SpecError::Unfit(format!("`loss` is {}, which is for {wanted}", self.name()))),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            LossSpec::Usual => "Usual",
            LossSpec::CrossEntropy { .. } => "CrossEntropy",
            LossSpec::MeanSquaredError => "MeanSquaredError",
            LossSpec::BinaryCrossEntropy => "BinaryCrossEntropy",
            LossSpec::MultipleNegativesRanking { .. } => "MultipleNegativesRanking",
            LossSpec::CosineSimilarity => "CosineSimilarity",
        }
    }

    /// What is learned from labelled texts.
    pub(super) fn of_labels(&self, length: usize) -> Task {
        match self {
            LossSpec::MeanSquaredError => Task::Rate { length },
            LossSpec::BinaryCrossEntropy => Task::Label { length },
            LossSpec::CosineSimilarity => Task::Compare { length },
            _ => Task::Classify { length },
        }
    }

    /// Its numbers, where the classes have these names.
    ///
    /// # Errors
    ///
    /// A weight of a class that there is not, or none that is above 0.
    pub fn criterion(&self, labels: &[String]) -> Result<Criterion, SpecError> {
        match self {
            LossSpec::CrossEntropy { weights, .. } if !weights.is_empty() => {
                if let Some(name) = weights.keys().find(|name| !labels.contains(name)) {
                    let labels = labels.join(", ");
                    return Err(SpecError::Unfit(format!(
                        "`loss.weights` has one for `{name}`, and the classes are {labels}"
                    )));
                }
                let all: Arc<[f64]> =
                    labels.iter().map(|label| weights.get(label).copied().unwrap_or(1.0)).collect();
                match all.iter().any(|weight| *weight > 0.0) {
                    true => Ok(Criterion { class_weights: Some(all), ..Criterion::default() }),
                    false => Err(SpecError::Unfit("all of `loss.weights` are 0; give one more".into())),
                }
            }
            LossSpec::MultipleNegativesRanking { scale } => {
                Ok(Criterion { scale: *scale, ..Criterion::default() })
            }
            _ => Ok(Criterion::default()),
        }
    }
}
