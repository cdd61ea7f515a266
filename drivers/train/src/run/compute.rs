//! One step: forward, backward, and the change of the parameters.

use super::blame::blame;
use super::error::RunError;
use super::setup::Setup;
use super::turn::{MicroStep, Turn};
use crate::{Batch, Gradients, Loss, Pass};

/// Computes a step and changes the parameters; says the loss, the gradients' norm and the rate.
///
/// # Errors
///
/// [`RunError::NotFinite`] before anything is changed.
pub(super) fn compute(
    setup: &mut Setup,
    batches: &[Batch],
    step: u64,
    gradients: &mut Gradients,
    turn: &mut dyn Turn,
) -> Result<(Loss, f64, f64), RunError> {
    let counted: usize = batches.iter().map(Batch::counted).sum();
    let pass = Pass {
        checkpoint: setup.spec.recompute,
        denominator: Some(counted.max(1) as f64),
        label_smoothing: setup.spec.label_smoothing,
        precision: setup.spec.precision.products(),
        ..Pass::training(setup.spec.seed, step)
    };
    let mut loss = Loss::default();
    for (number, batch) in batches.iter().enumerate() {
        turn.take(MicroStep { step, number, tokens: batch.input.tokens.len() });
        loss += setup.model.gradients(batch, &pass, gradients)?;
    }
    let parameters = setup.model.parameters();
    let bad = |what, value, gradients: &Gradients| RunError::NotFinite {
        what,
        value,
        step: step + 1,
        place: blame(parameters, gradients),
        kept: String::new(),
    };
    if !loss.mean().is_finite() {
        return Err(bad("loss", loss.mean(), gradients));
    }
    let norm = if setup.spec.clip > 0.0 { gradients.clip(setup.spec.clip) } else { gradients.norm() };
    if !norm.is_finite() {
        return Err(bad("gradients' norm", norm, gradients));
    }
    let rate = setup.schedule.rate(step);
    setup.optimiser.step(parameters, gradients, rate)?;
    Ok((loss, norm, rate))
}
