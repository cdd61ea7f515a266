//! Evaluation: the loss on data that are not trained on.

use super::error::RunError;
use crate::data::{Collator, Position, Task};
use crate::ranks::Team;
use crate::{Batch, Loss, Model, Pass};

/// What an evaluation found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// The mean loss of a target.
    pub loss: f64,
    /// The share of texts that were classified right.
    pub accuracy: Option<f64>,
}

/// Evaluates on at most so many batches, spread evenly over the data, or on all. The same ones are taken each time.
///
/// # Errors
///
/// The model refuses a batch.
pub fn evaluate(
    model: &dyn Model,
    team: &Team,
    data: &Collator,
    rows: usize,
    batches: Option<u64>,
) -> Result<Evaluation, RunError> {
    let count = data.examples().count(0);
    let all = count.div_ceil(rows as u64);
    let batches = batches.unwrap_or(all).clamp(1, all);
    let mut loss = Loss::default();
    let (mut right, mut texts) = (0, 0);
    for number in 0..batches {
        // Of all batches where all are wanted, so that every example is met once.
        let place = if batches == all { number * rows as u64 } else { number * count / batches };
        let rows = rows.min((count - place) as usize);
        let (batch, _) = data.batch(Position { epoch: 0, place, seen: place }, rows);
        let part = team.deal(&batch);
        if let Some(batch) = &part {
            loss += team.loss(model, batch, &Pass::evaluation())?;
        }
        // A stage of a pipeline has no answers to compare.
        let whole = team.mesh().layout().pipeline == 1;
        let classified = whole && matches!(data.examples().task(), Task::Classify { .. });
        if let Some(batch) = part.as_ref().filter(|_| classified) {
            right += classified_right(model, batch)?;
            texts += batch.rows();
        }
    }
    let loss = team.total(loss)?;
    let (right, texts) = (team.sum(right as f64)?, team.sum(texts as f64)?);
    let accuracy = (texts > 0.0).then(|| right / texts);
    Ok(Evaluation { loss: loss.mean(), accuracy })
}

fn classified_right(model: &dyn Model, batch: &Batch) -> Result<usize, RunError> {
    let logits = model.logits(batch, &Pass::evaluation())?;
    let best = logits.argmax(candle_core::D::Minus1).and_then(|best| best.to_vec1::<u32>());
    let best = best.map_err(crate::Error::from)?;
    Ok(best.iter().zip(&batch.targets).filter(|(best, target)| **best as i32 == **target).count())
}
