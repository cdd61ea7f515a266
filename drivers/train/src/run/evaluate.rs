//! Evaluation: the loss on data that are not trained on.

use super::error::RunError;
use crate::data::{Collator, Position, Task};
use crate::ranks::Team;
use crate::{Batch, Criterion, IGNORE, Loss, Model, Pass};

/// What an evaluation found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// The mean loss of a target.
    pub loss: f64,
    /// The share that is right: of classes of texts or of words, or of answers that begin and end where they should.
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
    (rows, criterion): (usize, &Criterion),
    batches: Option<u64>,
) -> Result<Evaluation, RunError> {
    let count = data.examples().count(0);
    let all = count.div_ceil(rows as u64);
    let batches = batches.unwrap_or(all).clamp(1, all);
    let pass = Pass { criterion: criterion.clone(), ..Pass::evaluation() };
    let mut loss = Loss::default();
    let (mut right, mut answers) = (0, 0);
    for number in 0..batches {
        // Of all batches where all are wanted, so that every example is met once.
        let place = if batches == all { number * rows as u64 } else { number * count / batches };
        let rows = rows.min((count - place) as usize);
        let (batch, _) = data.batch(Position { epoch: 0, place, seen: place }, rows);
        let part = team.deal(&batch);
        if let Some(batch) = &part {
            loss += team.loss(model, batch, &pass)?;
        }
        // A stage of a pipeline has no answers to compare.
        let whole = team.mesh().layout().pipeline == 1;
        if let Some(batch) = part.as_ref().filter(|_| whole) {
            let found = count_right(model, batch, data.examples().task())?;
            (right, answers) = (right + found.0, answers + found.1);
        }
    }
    let loss = team.total(loss)?;
    let (right, answers) = (team.sum(right as f64)?, team.sum(answers as f64)?);
    let accuracy = (answers > 0.0).then(|| right / answers);
    Ok(Evaluation { loss: loss.mean(), accuracy })
}

/// How many answers of a batch are right, and how many there are; none where the task has no right ones.
fn count_right(model: &dyn Model, batch: &Batch, task: &Task) -> Result<(usize, usize), RunError> {
    // Answers of one row that must be right together.
    let together = match task {
        Task::Classify { .. } | Task::Tag { .. } => 1,
        Task::Answer { .. } => 2,
        _ => return Ok((0, 0)),
    };
    let logits = model.logits(batch, &Pass::evaluation())?;
    let best = match task {
        // The classes of first and last token are the places of the row.
        Task::Answer { .. } => logits.transpose(1, 2).and_then(|places| places.contiguous()),
        _ => Ok(logits),
    };
    let best = best.and_then(|logits| logits.argmax(candle_core::D::Minus1)?.flatten_all()?.to_vec1::<u32>());
    let best = best.map_err(crate::Error::from)?;
    let pairs = best.chunks(together).zip(batch.targets.chunks(together));
    let counted = pairs.filter(|(_, targets)| targets.iter().all(|target| *target != IGNORE));
    let right = |(best, targets): &(&[u32], &[i32])| best.iter().zip(*targets).all(|(b, t)| *b as i32 == *t);
    Ok(counted.fold((0, 0), |(sum, all), pair| (sum + usize::from(right(&pair)), all + 1)))
}
