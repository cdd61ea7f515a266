//! Losses whose targets do not all weigh the same, or are no classes. All are means, over the weight of what counts.
//! What lies on another device is copied to the CPU, as for [`cross_entropy`](super::cross_entropy::cross_entropy).

use candle_core::{Device, Tensor};

use super::cross_entropy::{Weighing, check};
use super::read::Read;
use super::{for_type, lanes, real::Real};
use crate::error::shape;
use crate::model::Loss;
use crate::{IGNORE, Result};

/// Cross-entropy of logits, rows × classes, where each class has a weight, and the gradient of the logits. What label
/// smoothing gives to a class weighs as the class does, as in PyTorch.
///
/// # Errors
/// If there is not one target for each row, or one is no class, or not one weight for each class.
pub fn weighted_cross_entropy(
    logits: &Tensor,
    targets: &[i32],
    weights: &[f64],
    weighing: Weighing,
) -> Result<(Loss, Tensor)> {
    let classes = logits.dims().last().copied().unwrap_or_default();
    check(targets, logits.elem_count() / classes.max(1), classes)?;
    if weights.len() != classes {
        return shape("weighted_cross_entropy", format!("{} weights for {classes} classes", weights.len()));
    }
    let chosen = targets.iter().filter(|target| **target != IGNORE);
    let mut loss = Loss { sum: 0.0, count: chosen.map(|target| weights[*target as usize]).sum() };
    let factor = weighing.factor(loss.count);
    let even = weighing.label_smoothing / classes as f64;
    let host = logits.to_device(&Device::Cpu)?;
    let gradient = for_type!(logits, T => {
        let mut slopes = Read::of(&host)?.slice::<T>().to_vec();
        for (row, &target) in slopes.chunks_exact_mut(classes).zip(targets) {
            if target == IGNORE {
                row.fill(T::of(0.0));
                continue;
            }
            // How much of the target's probability is wanted of each class, times its weight.
            let wanted = |class: usize| {
                let own = if class == target as usize { 1.0 - weighing.label_smoothing } else { 0.0 };
                (own + even) * weights[class]
            };
            let all: f64 = (0..classes).map(wanted).sum();
            let at: f64 = row.iter().enumerate().map(|(class, x)| wanted(class) * x.wide()).sum();
            let greatest = lanes::max(row);
            let total = lanes::exp_sum(row, greatest).wide();
            loss.sum += all * (greatest.wide() + total.ln()) - at;
            for (class, x) in row.iter_mut().enumerate() {
                *x = T::of(factor * (all * x.wide() / total - wanted(class)));
            }
        }
        slopes
    }, logits.dims())?;
    Ok((loss, gradient.to_device(logits.device())?))
}

/// The squares of how far numbers are from what they should be.
///
/// # Errors
/// If there is not one value for each number.
pub fn squared_error(x: &Tensor, values: &[f32], weighing: Weighing) -> Result<(Loss, Tensor)> {
    each(x, values, weighing, |x, value| ((x - value).powi(2), 2.0 * (x - value)))
}

/// Cross-entropy of logits that stand each for yes or no.
///
/// # Errors
/// If there is not one value for each logit.
pub fn binary_cross_entropy(logits: &Tensor, values: &[f32], weighing: Weighing) -> Result<(Loss, Tensor)> {
    each(logits, values, weighing, |x, value| {
        // log(1 + exp(x)) without an overflow.
        let loss = x.max(0.0) - x * value + (-x.abs()).exp().ln_1p();
        (loss, (1.0 + (-x).exp()).recip() - value)
    })
}

/// The squares of how far the cosines of two vectors, which are of length 1 and each two rows, are from what they should
/// be. The value of a pair stands at its first row.
///
/// # Errors
/// If there is an odd number of rows, or not one value for each.
pub fn cosine_error(x: &Tensor, values: &[f32], weighing: Weighing) -> Result<(Loss, Tensor)> {
    let (rows, width) = x.dims2()?;
    if rows % 2 == 1 {
        return shape("cosine_error", format!("{rows} vectors are no pairs"));
    }
    let both = x.reshape((rows / 2, 2, width))?;
    let [a, b] = [both.narrow(1, 0, 1)?.contiguous()?, both.narrow(1, 1, 1)?.contiguous()?];
    let cosines = (&a * &b)?.sum_keepdim(2)?;
    let values: Vec<f32> = values.iter().step_by(2).copied().collect();
    let (loss, slopes) = squared_error(&cosines, &values, weighing)?;
    let gradients = [b.broadcast_mul(&slopes)?, a.broadcast_mul(&slopes)?];
    Ok((loss, Tensor::cat(&gradients, 1)?.reshape((rows, width))?))
}

/// A loss and a slope of each number by itself.
fn each(
    x: &Tensor,
    values: &[f32],
    weighing: Weighing,
    of: impl Fn(f64, f64) -> (f64, f64),
) -> Result<(Loss, Tensor)> {
    if values.len() != x.elem_count() {
        return shape("loss", format!("{} values for {} numbers", values.len(), x.elem_count()));
    }
    let counted = values.iter().filter(|value| !value.is_nan()).count() as f64;
    let mut loss = Loss { sum: 0.0, count: counted };
    let factor = weighing.factor(counted);
    let host = x.to_device(&Device::Cpu)?;
    let gradient = for_type!(x, T => {
        let x = Read::of(&host)?;
        let mut slopes = vec![T::of(0.0); values.len()];
        let pairs = x.slice::<T>().iter().zip(values).zip(&mut slopes);
        for ((x, value), slope) in pairs.filter(|((_, value), _)| !value.is_nan()) {
            let (own, to) = of(x.wide(), f64::from(*value));
            loss.sum += own;
            *slope = T::of(factor * to);
        }
        slopes
    }, x.dims())?;
    Ok((loss, gradient.to_device(x.device())?))
}
