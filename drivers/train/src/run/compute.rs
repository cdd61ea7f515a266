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
    batches: Vec<Batch>,
    step: u64,
    gradients: &mut Gradients,
    turn: &mut dyn Turn,
) -> Result<(Loss, f64, f64), RunError> {
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
        place: blame(parameters, gradients),
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
    let rate = setup.schedule.rate(step);
    setup.team.step(setup.optimiser.as_mut(), parameters, gradients, rate)?;
    Ok((loss, norm, rate))
}
