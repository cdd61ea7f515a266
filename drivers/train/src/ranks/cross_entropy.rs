//! Cross-entropy of an output layer whose classes are divided over tensor ranks (Megatron-LM, section 3): for each row the
//! ranks agree on the greatest logit, the sum of exponentials and the logit of the target, and nobody ever has all
//! logits of a row.

use std::sync::Arc;

use candle_core::Tensor;

use super::group::{Combine, Group, piece};
use super::tensor::summed;
use crate::ops::cross_entropy::{LOGITS, Weighing, check};
use crate::ops::linear::column_sums;
use crate::ops::product::{Matrix, Output, product};
use crate::ops::read::Read;
use crate::ops::{Kernels, add_to_buffer, blank, for_type, lanes, real::Real, tensor};
use crate::tape::{Input, Tape, Value};
use crate::{Error, IGNORE, Loss, Result};

/// This rank's part of an output layer.
pub struct Head<'h> {
    /// The tensor ranks.
    pub ranks: &'h Arc<dyn Group>,
    /// Its classes × width.
    pub weight: &'h Value,
    /// One number for each of its classes.
    pub bias: Option<&'h Value>,
    /// The classes of all ranks.
    pub classes: usize,
}

/// The loss of `x`·Wᵀ + b. On a recording tape it adds the gradients of this rank's W and b, which must be parameters,
/// and returns that of `x`, summed over the ranks.
///
/// # Errors
/// If there is not one target for each row, or one is no class, or a rank is gone.
pub fn divided_cross_entropy(
    tape: &Tape<'_>,
    x: &Value,
    head: &Head<'_>,
    targets: &[i32],
    weighing: Weighing,
) -> Result<(Loss, Option<Tensor>)> {
    let dims = x.tensor().dims();
    let width = dims.last().copied().unwrap_or_default();
    let count = check(targets, x.tensor().elem_count() / width.max(1), head.classes)?;
    let weighing = (weighing, weighing.factor(count as f64));
    let (sum, gradient) = match tape.kernels() {
        Kernels::Composed => super::composed::divided(tape, x, head, targets, weighing)?,
        Kernels::Fused => for_type!(x.tensor(), T => {
            let (sum, dx) = chunks::<T>(tape, x, head, targets, weighing)?;
            Ok::<_, Error>((sum, if tape.records() { Some(tensor(dx, dims)?) } else { None }))
        })?,
    };
    let gradient = gradient.map(|dx| summed(&**head.ranks, &dx)).transpose()?;
    Ok((Loss { sum, count: count as f64 }, gradient))
}

fn chunks<T: Real>(
    tape: &Tape<'_>,
    x: &Value,
    head: &Head<'_>,
    targets: &[i32],
    weighing: (Weighing, f64),
) -> Result<(f64, Vec<T>)> {
    let (x, w) = (Read::of(x.tensor())?, Read::of(head.weight.tensor())?);
    let bias = head.bias.map(|bias| Read::of(bias.tensor())).transpose()?;
    let (x, w) = (x.slice::<T>(), w.slice::<T>());
    let own = piece(head.classes, head.ranks.rank(), head.ranks.size());
    let (columns, width) = (own.len(), w.len() / own.len());
    let chosen: Vec<usize> = (0..targets.len()).filter(|&row| targets[row] != IGNORE).collect();
    // The same on all ranks, whose numbers of columns may differ by one.
    let count = (LOGITS / head.classes.div_ceil(head.ranks.size())).max(16);
    let mut dx = vec![T::zero(); if tape.records() { x.len() } else { 0 }];
    let mut sum = 0.0;
    for chosen in chosen.chunks(count) {
        let rows = chosen.len();
        let x: Vec<T> = chosen.iter().flat_map(|&row| x[row * width..][..width].iter().copied()).collect();
        let mut logits = blank::<T>(rows * columns);
        let out = Output::biased(&mut logits, columns, bias.as_ref().map(Read::slice::<T>));
        product(
            tape.precision(),
            [rows, columns, width],
            out,
            Matrix::new(&x, width),
            Matrix::new(w, width).turned(),
        );
        let targets: Vec<usize> = chosen.iter().map(|&row| targets[row] as usize).collect();
        sum += slopes(&mut logits, &targets, head, own.start, weighing)?;
        if !tape.records() {
            continue;
        }
        let slopes = Matrix::new(&logits, columns);
        if let Some(id) = Input::from(head.weight).parameter() {
            tape.accumulate::<T>(id, |buffer, written| {
                let out = Output::add(buffer, width, written);
                product(
                    tape.precision(),
                    [columns, width, rows],
                    out,
                    slopes.turned(),
                    Matrix::new(&x, width),
                );
            });
        }
        if let Some(id) = head.bias.and_then(|bias| Input::from(bias).parameter()) {
            let sums = column_sums(&logits, columns);
            tape.accumulate::<T>(id, |buffer, written| add_to_buffer(buffer, written, &sums));
        }
        let mut part = blank::<T>(rows * width);
        product(
            tape.precision(),
            [rows, width, columns],
            Output::set(&mut part, width),
            slopes,
            Matrix::new(w, width),
        );
        for (&row, part) in chosen.iter().zip(part.chunks_exact(width)) {
            dx[row * width..][..width].copy_from_slice(part);
        }
    }
    Ok((sum, dx))
}

/// Puts the gradient in the place of this rank's part of each row of logits, and returns the sum of the losses.
fn slopes<T: Real>(
    logits: &mut [T],
    targets: &[usize],
    head: &Head<'_>,
    first: usize,
    (weighing, factor): (Weighing, f64),
) -> Result<f64> {
    let (columns, classes) = (logits.len() / targets.len(), head.classes as f64);
    let smoothing = weighing.label_smoothing;
    let mut greatest: Vec<T> = logits.chunks_exact(columns).map(lanes::max).collect();
    head.ranks.all_reduce(T::numbers(&mut greatest), Combine::Max)?;
    // For each row the sum of exponentials, the target's logit, and the sum of logits.
    let mut sums = vec![T::zero(); 3 * targets.len()];
    let here = |target: usize| target.checked_sub(first).filter(|&at| at < columns);
    let rows = logits.chunks_exact_mut(columns).zip(targets).zip(&greatest);
    for (((row, &target), &greatest), sums) in rows.zip(sums.chunks_exact_mut(3)) {
        sums[1] = here(target).map_or(T::zero(), |at| row[at]);
        sums[2] = lanes::sum(row);
        sums[0] = lanes::exp_sum(row, greatest);
    }
    head.ranks.all_reduce(T::numbers(&mut sums), Combine::Sum)?;
    let mut loss = 0.0;
    let rows = logits.chunks_exact_mut(columns).zip(targets).zip(&greatest);
    for (((row, &target), greatest), sums) in rows.zip(sums.chunks_exact(3)) {
        let [total, at, all] = [sums[0].wide(), sums[1].wide(), sums[2].wide()];
        loss += greatest.wide() + total.ln() - (1.0 - smoothing) * at - smoothing * all / classes;
        let (scale, even) = (T::of(factor / total), T::of(factor * smoothing / classes));
        row.iter_mut().for_each(|x| *x = *x * scale - even);
        if let Some(at) = here(target) {
            row[at] += T::of(-factor * (1.0 - smoothing));
        }
    }
    Ok(loss)
}
