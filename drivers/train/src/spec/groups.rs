//! Groups of parameters that are trained with a rate, betas or a weight decay of their own, as PyTorch's optimisers have them.
//!
//! A parameter belongs to the first group that names it, and to none otherwise. The schedule goes for all groups: a rate
//! of its own is the group's peak, of which each step has the same share as everywhere.

use serde::{Deserialize, Serialize};

use super::error::SpecError;
use super::optimiser::{below_one, range};
use super::tune::known;
use crate::parameters::Parameters;

/// A group of parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// Parts of the names of its parameters, such as `wte` or `h.0.`.
    pub names: Vec<String>,
    /// Its own rate; the optimiser's where it is not said.
    #[serde(default)]
    pub lr: Option<f64>,
    /// Its own weight decay; the optimiser's where it is not said.
    #[serde(default)]
    pub weight_decay: Option<f64>,
    /// Its own betas, of Adam and AdamW; the optimiser's where it is not said.
    #[serde(default)]
    pub betas: Option<(f64, f64)>,
    /// Whether its biases and norms decay, too.
    #[serde(default)]
    pub decay_biases: bool,
}

impl GroupSpec {
    fn names(&self, parameter: &str) -> bool {
        self.names.iter().any(|part| parameter.contains(part.as_str()))
    }

    /// Whether its values are in their ranges, beside the optimiser's rate; `adam` says whether that has betas.
    pub(super) fn check(&self, rate: f64, adam: bool) -> Result<(), SpecError> {
        if self.names.is_empty() || self.names.iter().any(String::is_empty) {
            return Err(SpecError::Unfit(
                "a group of `optimiser.groups` names no parameters; give parts of their names in `names`"
                    .into(),
            ));
        }
        for (field, value) in
            [("optimiser.groups.lr", self.lr), ("optimiser.groups.weight_decay", self.weight_decay)]
        {
            let value = value.unwrap_or(0.0);
            range(field, value, value >= 0.0, "a number from 0 on")?;
        }
        if let Some((first, second)) = self.betas {
            if !adam {
                return Err(SpecError::Unfit(
                    "a group of `optimiser.groups` has `betas`, which are for Adam and AdamW; leave them out"
                        .into(),
                ));
            }
            below_one("optimiser.groups.betas", first)?;
            below_one("optimiser.groups.betas", second)?;
        }
        // The group's rate is kept as a multiple of the optimiser's.
        let lr = "above 0, where a group has a rate of its own; freeze what is not trained with `tune`";
        range("optimiser.lr", rate, rate > 0.0 || self.lr.is_none(), lr)
    }
}

/// Puts parameters into their groups; `rate` is the optimiser's.
///
/// # Errors
///
/// A name that no parameter has.
pub(super) fn apply(groups: &[GroupSpec], rate: f64, parameters: &mut Parameters) -> Result<(), SpecError> {
    let names: Vec<String> = parameters.iter().map(|parameter| parameter.name().to_owned()).collect();
    for group in groups {
        known("optimiser.groups", &group.names, &names, parameters.mesh())?;
    }
    for parameter in parameters.iter_mut() {
        let Some(group) = groups.iter().find(|group| group.names(parameter.name())) else { continue };
        parameter.rate = group.lr.map_or(1.0, |own| own / rate);
        parameter.weight_decay = group.weight_decay;
        parameter.betas = group.betas.map(|(first, second)| [first, second]);
        parameter.decay |= group.decay_biases;
    }
    Ok(())
}
