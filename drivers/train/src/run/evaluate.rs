//! Evaluation: the loss on data that are not trained on.

use candle_core::Tensor;

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
    let pass = Pass { criterion: criterion.clone(), ..Pass::evaluation() };
    let mut loss = Loss::default();
    let (mut right, mut answers) = (0, 0);
    for batch in evaluated(data, rows, batches) {
        let part = team.deal(&batch);
        if let Some(batch) = &part {
            loss += team.loss(model, batch, &pass)?;
        }
        let task = data.examples().task();
        let (Some(batch), Some(together)) = (&part, together(task)) else { continue };
        if let Some(logits) = team.logits(model, batch, &Pass::evaluation())? {
            let found = count_right(logits, batch, (task, together))?;
            (right, answers) = (right + found.0, answers + found.1);
        }
    }
    let loss = team.total(loss)?;
    let [right, answers] = team.total_right([right, answers])?;
    let accuracy = (answers > 0.0).then(|| right / answers);
    Ok(Evaluation { loss: loss.mean(), accuracy })
}

/// The batches of an evaluation, but for a pair that is left over: it would count as one that is told from all others.
fn evaluated(data: &Collator, rows: usize, batches: Option<u64>) -> impl Iterator<Item = Batch> {
    let count = data.examples().count(0);
    let all = count.div_ceil(rows as u64);
    let batches = batches.unwrap_or(all).clamp(1, all);
    let all_alone = rows == 1 || count == 1;
    let each = (0..batches).map(move |number| {
        // Of all batches where all are wanted, so that every example is met once.
        let place = if batches == all { number * rows as u64 } else { number * count / batches };
        let rows = rows.min((count - place) as usize);
        data.batch(Position { epoch: 0, place, seen: place }, rows).0
    });
    each.filter(move |batch| all_alone || !is_alone(batch))
}

/// Whether it is one pair, which is compared with no other one.
fn is_alone(batch: &Batch) -> bool {
    batch.compares() && batch.rows() == batch.together()
}

/// Refuses data of whose evaluation nothing would count: its loss would be 0, and the first one the best.
///
/// # Errors
///
/// [`RunError::Unfit`].
pub(super) fn check_targets(data: &Collator, rows: usize, batches: Option<u64>) -> Result<(), RunError> {
    if evaluated(data, rows, batches).any(|batch| batch.counted() > 0 && !is_alone(&batch)) {
        return Ok(());
    }
    let why = match data.examples().task() {
        Task::Masked { .. } => "by chance none of its tokens is hidden; give more text to `data.validation`",
        Task::Similar { .. } => "it is one pair, which has no others; give more pairs to `data.validation`",
        _ => "all of its labels are ignored; give other data to `data.validation`",
    };
    Err(RunError::Unfit(format!("an evaluation of the validation data would compare nothing: {why}")))
}

/// Answers of one row that must be right together; none where the task has no right ones.
fn together(task: &Task) -> Option<usize> {
    match task {
        Task::Classify { .. } | Task::Tag { .. } => Some(1),
        Task::Answer { .. } => Some(2),
        _ => None,
    }
}

/// How many answers of a batch are right, and how many there are.
fn count_right(
    logits: Tensor,
    batch: &Batch,
    (task, together): (&Task, usize),
) -> Result<(usize, usize), RunError> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::data::Source;
    use crate::data::tests::{collator, write};
    use crate::token::Family;

    #[test]
    fn pair_that_is_left_over_counts_in_no_evaluation() {
        let folder = tempfile::tempdir().unwrap();
        let pairs: String = (0..5).map(|n| format!("a{n}\tb{n}\n")).collect();
        let file = write(folder.path(), "a.tsv", pairs);
        let source = Source::Pairs { file, source: "0".into(), target: "1".into() };
        let data = collator(folder.path(), &source, Task::Similar { length: 6 }, Family::Encoder);
        let counted =
            |rows| evaluated(&data, rows, None).map(|batch| batch.counted()).collect::<Vec<usize>>();
        assert_eq!(counted(2), [2, 2]);
        assert_eq!(counted(3), [3, 2]);
        assert_eq!(counted(1), [1; 5], "all of them are alone, and show whether the loss is a number");
    }
}
