//! One step: forward and backward, and then the change of the parameters.

use super::blame::blame;
use super::error::RunError;
use super::setup::Setup;
use super::turn::{MicroStep, Turn};
use crate::{Batch, Gradients, Loss, Pass};

/// Computes the gradients of a step; says the loss and the gradients' norm, to which they are cut.
///
/// # Errors
///
/// [`RunError::NotFinite`].
pub(super) fn learn(
    setup: &mut Setup,
    batches: Vec<Batch>,
    step: u64,
    gradients: &mut Gradients,
    turn: &mut dyn Turn,
) -> Result<(Loss, f64), RunError> {
    let batches = setup.team.share(batches)?;
    let weights = setup.criterion.class_weights.as_deref();
    let counted = setup.team.sum(batches.iter().map(|batch| batch.weight(weights)).sum())?;
    let pass = Pass {
        checkpoint: setup.spec.recompute,
        denominator: Some(if counted > 0.0 { counted } else { 1.0 }),
        criterion: setup.criterion.clone(),
        label_smoothing: setup.spec.label_smoothing,
        precision: setup.spec.precision.products(),
        ..Pass::training(setup.spec.seed, step)
    };
    let before = |number: usize| {
        turn.take(MicroStep { step, number, tokens: batches[number].input.tokens.len() });
    };
    let loss = setup.team.gradients(setup.model.as_ref(), &batches, &pass, gradients, before)?;
    let parameters = setup.model.parameters();
    let bad = |what, value, gradients: &Gradients| RunError::NotFinite {
        what,
        value,
        step: step + 1,
        place: blame(parameters, Some(gradients)),
        kept: String::new(),
    };
    if !loss.mean().is_finite() {
        return Err(bad("loss", loss.mean(), gradients));
    }
    let norm = match setup.spec.clip > 0.0 {
        true => setup.team.clip(parameters, gradients, setup.spec.clip)?,
        false => setup.team.norm(parameters, gradients)?,
    };
    if !norm.is_finite() {
        return Err(bad("gradients' norm", norm, gradients));
    }
    Ok((loss, norm))
}

/// Changes the parameters by the gradients of a step; says the rate.
///
/// # Errors
///
/// A rank is gone.
pub(super) fn change(setup: &mut Setup, step: u64, gradients: &Gradients) -> Result<f64, RunError> {
    let rate = setup.schedule.rate(step);
    setup.team.step(setup.optimiser.as_mut(), setup.model.parameters(), gradients, rate)?;
    Ok(rate)
}
