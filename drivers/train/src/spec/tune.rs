//! Which parts of a model are trained.

use serde::{Deserialize, Serialize};

use super::error::SpecError;
use crate::Model;
use crate::nn::Lora;
use crate::ranks::Mesh;

/// Which parts of a model are trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum TuneSpec {
    /// All of it.
    #[default]
    All,
    /// All but the parameters that have one of these in their names, such as `h.0.` or `embeddings`.
    Frozen(Vec<String>),
    /// Low-rank adapters beside linear layers, and an encoder's head; everything else stays as it is.
    Lora {
        #[serde(default = "rank_default")]
        rank: usize,
        /// The change of a weight is multiplied by this over the rank.
        #[serde(default = "alpha_default")]
        alpha: f64,
        /// Parts of the names of layers that get one, such as `q_proj`; all layers of the blocks where it is empty.
        #[serde(default)]
        layers: Vec<String>,
    },
}

fn rank_default() -> usize {
    8
}

fn alpha_default() -> f64 {
    16.0
}

impl TuneSpec {
    /// Whether all values are in their ranges.
    ///
    /// # Errors
    ///
    /// The first that is not, with its range.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        const RANK_MAX: usize = 4096;
        let range = |field, value: String, range: String| Err(SpecError::Range { field, value, range });
        match self {
            TuneSpec::Lora { rank, .. } if !(1..=RANK_MAX).contains(rank) => {
                range("tune.rank", rank.to_string(), format!("within 1 and {RANK_MAX}"))
            }
            TuneSpec::Lora { alpha, .. } if !(*alpha > 0.0 && alpha.is_finite()) => {
                range("tune.alpha", alpha.to_string(), "above 0".into())
            }
            _ => Ok(()),
        }
    }

    /// Freezes and adapts a model.
    ///
    /// # Errors
    ///
    /// A name that no part has, or nothing that is left to train.
    pub fn apply(&self, model: &mut dyn Model) -> Result<(), SpecError> {
        match self {
            TuneSpec::All => {}
            TuneSpec::Frozen(parts) => {
                let names: Vec<String> = model.parameters().iter().map(|p| p.name().to_owned()).collect();
                known("tune", parts, &names, model.parameters().mesh())?;
                // What never is trained stays so.
                let still: Vec<String> =
                    model.parameters().iter().filter(|p| !p.trainable).map(|p| p.name().to_owned()).collect();
                model.parameters_mut().set_trainable(|name| {
                    !parts.iter().any(|part| name.contains(part.as_str()))
                        && !still.iter().any(|other| other == name)
                });
            }
            TuneSpec::Lora { rank, alpha, layers } => {
                let names: Vec<String> = model.linears().iter().map(|l| l.name().to_owned()).collect();
                known("tune", layers, &names, model.parameters().mesh())?;
                let lora = Lora { rank: *rank, alpha: *alpha };
                let which =
                    |name: &str| layers.is_empty() || layers.iter().any(|part| name.contains(part.as_str()));
                model.adapt(lora, &which).map_err(|error| SpecError::Unfit(error.to_string()))?;
            }
        }
        match model.parameters().iter().any(|parameter| parameter.trainable) {
            true => Ok(()),
            false => Err(SpecError::Unfit("`tune` leaves nothing to train; freeze less".into())),
        }
    }
}

/// Refuses a part of a name that none of `names` has. A stage of a pipeline has some of the names only, and refuses none.
///
/// # Errors
///
/// The part, and some of the names that there are.
pub(super) fn known(field: &str, parts: &[String], names: &[String], mesh: &Mesh) -> Result<(), SpecError> {
    let unknown = parts.iter().find(|part| !names.iter().any(|name| name.contains(part.as_str())));
    match unknown.filter(|_| mesh.layout().pipeline == 1) {
        Some(part) => Err(SpecError::Unfit(format!(
            "`{field}` names `{part}`, and no part of the model has that in its name; there are such as {}",
            names.iter().take(3).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ))),
        None => Ok(()),
    }
}
