//! Cross-entropy with the softmax, alone and with the output layer before it.
//!
//! With the output layer, rows are taken in chunks whose logits fit in a cache or two: loss and gradients of a chunk
//! are computed while its logits exist, so a large vocabulary needs little memory. Rows whose target is ignored are
//! left out of the product.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::linear::column_sums;
use super::product::{Matrix, Output, product};
use super::read::Read;
use super::{Kernels, add_to_buffer, blank, composed, for_type, lanes, piece_rows, real::Real, tensor};
use crate::error::shape;
use crate::model::Loss;
use crate::tape::{Input, Tape, Value};
use crate::{Error, IGNORE, Result};

/// Logits that exist at a time.
pub const LOGITS: usize = 1 << 22;

/// What is done with the loss of each target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weighing {
    /// How much of each target's probability goes to all classes evenly.
    pub label_smoothing: f64,
    /// What gradients are divided by; `None` for the number of targets that count.
    pub denominator: Option<f64>,
}

impl Weighing {
    pub(crate) fn factor(&self, counted: f64) -> f64 {
        self.denominator.unwrap_or(counted).max(f64::MIN_POSITIVE).recip()
    }
}

/// The loss of logits, rows × classes, and the gradient of the logits. Where they lie elsewhere they are copied to the
/// CPU: these are a few numbers for each text, for whose loss the host waits in any case.
///
/// # Errors
/// If there is not one target for each row, or one is no class.
pub fn cross_entropy(logits: &Tensor, targets: &[i32], weighing: Weighing) -> Result<(Loss, Tensor)> {
    let classes = logits.dims().last().copied().unwrap_or_default();
    let counted = check(targets, logits.elem_count() / classes.max(1), classes)?;
    let mut loss = Loss { sum: 0.0, count: counted as f64 };
    let host = logits.to_device(&Device::Cpu)?;
    let gradient = for_type!(logits, T => {
        let mut slopes = Read::of(&host)?.slice::<T>().to_vec();
        loss.sum = rows(&mut slopes, targets, classes, weighing, weighing.factor(counted as f64));
        slopes
    }, logits.dims())?;
    Ok((loss, gradient.to_device(logits.device())?))
}

/// The loss of the output layer `x`·Wᵀ + b, with W of classes × width. On a recording tape it adds the gradients of W
/// and b, which must be parameters, and returns that of `x`.
///
/// # Errors
/// If there is not one target for each row, or one is no class, or W is no parameter.
pub fn linear_cross_entropy(
    tape: &Tape<'_>,
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    targets: &[i32],
    weighing: Weighing,
) -> Result<(Loss, Option<Tensor>)> {
    let (&[classes, width], dims) = (weight.tensor.dims(), x.tensor.dims()) else {
        return shape("linear_cross_entropy", format!("a weight of {:?}", weight.tensor.dims()));
    };
    if dims.last() != Some(&width) {
        return shape(
            "linear_cross_entropy",
            format!("{dims:?} times a weight of {:?}", weight.tensor.dims()),
        );
    }
    let inputs = [Some(weight), bias].into_iter().flatten();
    if let Some(input) = inputs.map(Input::from).find(|i| i.wanted() && i.parameter().is_none()) {
        return shape(
            "linear_cross_entropy",
            format!("{input:?} is no parameter; use linear and cross_entropy"),
        );
    }
    let counted = check(targets, x.tensor.elem_count() / width.max(1), classes)?;
    if tape.kernels() == Kernels::Composed {
        return composed::cross_entropy::linear_cross_entropy(
            tape,
            x,
            weight,
            bias,
            targets,
            (weighing, counted),
        );
    }
    let mut loss = Loss { sum: 0.0, count: counted as f64 };
    let wanted = tape.records();
    let gradient = for_type!(x.tensor, T => {
        let (x, w) = (Read::of(&x.tensor)?, Read::of(&weight.tensor)?);
        let b = bias.map(|b| Read::of(&b.tensor)).transpose()?;
        let head = Head { weight, w: w.slice::<T>(), bias, b: b.as_ref().map(Read::slice), width, classes };
        let (sum, dx) = chunks(tape, &head, x.slice(), targets, weighing, counted);
        loss.sum = sum;
        Ok::<_, Error>(if wanted { Some(tensor(dx, dims)?) } else { None })
    })?;
    Ok((loss, gradient))
}

/// The output layer.
struct Head<'h, T> {
    weight: &'h Value,
    w: &'h [T],
    bias: Option<&'h Value>,
    b: Option<&'h [T]>,
    width: usize,
    classes: usize,
}

fn chunks<T: Real>(
    tape: &Tape<'_>,
    head: &Head<'_, T>,
    x: &[T],
    targets: &[i32],
    weighing: Weighing,
    counted: usize,
) -> (f64, Vec<T>) {
    let (width, classes) = (head.width, head.classes);
    let whole = counted == targets.len();
    let chosen: Vec<usize> = (0..targets.len()).filter(|&row| targets[row] != IGNORE).collect();
    let count = (LOGITS / classes).max(16);
    let mut logits = blank::<T>(count.min(counted) * classes);
    let mut dx = if tape.records() { vec![T::zero(); x.len()] } else { Vec::new() };
    let mut sum = 0.0;
    for chosen in chosen.chunks(count) {
        let (rows_here, first) = (chosen.len(), chosen[0]);
        let x: Cow<'_, [T]> = match whole {
            true => Cow::Borrowed(&x[first * width..][..rows_here * width]),
            false => chosen.iter().flat_map(|&row| x[row * width..][..width].iter().copied()).collect(),
        };
        let logits = &mut logits[..rows_here * classes];
        let w = Matrix::new(head.w, width);
        let out = Output::biased(logits, classes, head.b);
        product(tape.precision(), [rows_here, classes, width], out, Matrix::new(&x, width), w.turned());
        let here: Vec<i32> = chosen.iter().map(|&row| targets[row]).collect();
        sum += rows(logits, &here, classes, weighing, weighing.factor(counted as f64));
        if !tape.records() {
            continue;
        }
        let slopes = Matrix::new(logits, classes);
        if let Some(id) = Input::from(head.weight).parameter() {
            tape.accumulate::<T>(id, |buffer, written| {
                let out = Output::add(buffer, width, written);
                product(
                    tape.precision(),
                    [classes, width, rows_here],
                    out,
                    slopes.turned(),
                    Matrix::new(&x, width),
                );
            });
        }
        if let Some(id) = head.bias.and_then(|b| Input::from(b).parameter()) {
            tape.accumulate::<T>(id, |buffer, written| {
                add_to_buffer(buffer, written, &column_sums(logits, classes))
            });
        }
        if whole {
            let out = Output::set(&mut dx[first * width..][..rows_here * width], width);
            product(tape.precision(), [rows_here, width, classes], out, slopes, w);
        } else {
            let mut part = blank::<T>(rows_here * width);
            product(tape.precision(), [rows_here, width, classes], Output::set(&mut part, width), slopes, w);
            for (&row, part) in chosen.iter().zip(part.chunks_exact(width)) {
                dx[row * width..][..width].copy_from_slice(part);
            }
        }
    }
    (sum, dx)
}

/// Puts the gradient in the place of each row of logits, and returns the sum of the losses.
fn rows<T: Real>(logits: &mut [T], targets: &[i32], classes: usize, weighing: Weighing, factor: f64) -> f64 {
    let piece = piece_rows(classes);
    let smoothing = weighing.label_smoothing;
    let sums: Vec<f64> = logits
        .par_chunks_mut(piece * classes)
        .zip(targets.par_chunks(piece))
        .map(|(logits, targets)| {
            let mut sum = 0.0;
            for (row, &target) in logits.chunks_exact_mut(classes).zip(targets) {
                if target == IGNORE {
                    row.fill(T::zero());
                    continue;
                }
                let target = target as usize;
                let greatest = lanes::max(row);
                let (at, all) =
                    (row[target].wide(), if smoothing > 0.0 { lanes::sum(row).wide() } else { 0.0 });
                let total = lanes::exp_sum(row, greatest);
                let log = greatest.wide() + total.wide().ln();
                sum += log - (1.0 - smoothing) * at - smoothing * all / classes as f64;
                let scale = T::of(factor / total.wide());
                let even = T::of(factor * smoothing / classes as f64);
                row.iter_mut().for_each(|x| *x = *x * scale - even);
                row[target] += T::of(-factor * (1.0 - smoothing));
            }
            sum
        })
        .collect();
    sums.iter().sum()
}

/// How many targets count.
pub(crate) fn check(targets: &[i32], rows: usize, classes: usize) -> Result<usize> {
    if targets.len() != rows {
        return Err(Error::Batch(format!("{} targets for {rows} places", targets.len())));
    }
    let wrong = |&&target: &&i32| target != IGNORE && !usize::try_from(target).is_ok_and(|t| t < classes);
    match targets.iter().find(wrong) {
        Some(target) => Err(Error::Batch(format!(
            "target {target} is none of {classes} classes; {IGNORE} is for places that do not count"
        ))),
        None => Ok(targets.iter().filter(|&&t| t != IGNORE).count()),
    }
}
