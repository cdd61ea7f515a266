//! The output layer with its cross-entropy, of candle's operations: some rows at a time, as the kernel.

use candle_core::{D, DType, Device, Tensor};

use super::{as_matrix, beside, ids_beside, product};
use crate::model::Loss;
use crate::ops::cross_entropy::Weighing;
use crate::tape::{Input, Tape, Value};
use crate::{IGNORE, Result};

/// Logits that exist at a time. Devices are slow at small products, and have no cache that logits would stay in.
pub(crate) const LOGITS: usize = 1 << 26;

/// The loss of `x`·Wᵀ + b, and the gradient of `x`; adds those of W and b.
pub(in crate::ops) fn linear_cross_entropy(
    tape: &Tape<'_>,
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    targets: &[i32],
    weighing: (Weighing, usize),
) -> Result<(Loss, Option<Tensor>)> {
    within(LOGITS, tape, x, weight, bias, targets, weighing)
}

/// The same with no more than so many logits at a time, or those of 16 rows.
pub(super) fn within(
    logits_max: usize,
    tape: &Tape<'_>,
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    targets: &[i32],
    (weighing, counted): (Weighing, usize),
) -> Result<(Loss, Option<Tensor>)> {
    let (classes, precision) = (weight.tensor.dims()[0], tape.precision());
    let all = as_matrix(&x.tensor)?;
    let chosen: Vec<u32> = (0..targets.len() as u32).filter(|&row| targets[row as usize] != IGNORE).collect();
    let mut dx = if tape.records() { Some(all.zeros_like()?) } else { None };
    let mut losses = Vec::new();
    for chosen in chosen.chunks((logits_max / classes).max(16)) {
        let own = ids_beside(chosen, &all)?;
        let x = all.index_select(&own, 0)?;
        let mut logits = product(precision, &x, &weight.tensor.t()?)?;
        if let Some(bias) = bias {
            logits = logits.broadcast_add(&bias.tensor)?;
        }
        let here: Vec<u32> = chosen.iter().map(|&row| targets[row as usize] as u32).collect();
        let (loss, slopes) = rows(&logits, &here, weighing, weighing.factor(counted as f64))?;
        losses.push(loss);
        let Some(sum) = dx.take() else { continue };
        if let Some(id) = Input::from(weight).parameter() {
            tape.add(id, &product(precision, &slopes.t()?, &x)?)?;
        }
        if let Some(id) = bias.and_then(|bias| Input::from(bias).parameter()) {
            tape.add(id, &slopes.sum(0)?)?;
        }
        dx = Some(sum.index_add(&own, &product(precision, &slopes, &weight.tensor)?, 0)?);
    }
    let loss = Loss { sum: sum(&losses)?, count: counted as f64 };
    Ok((loss, dx.map(|dx| dx.reshape(x.tensor.dims())).transpose()?))
}

/// The loss of each row of logits, and their gradients.
fn rows(logits: &Tensor, targets: &[u32], weighing: Weighing, factor: f64) -> Result<(Tensor, Tensor)> {
    let (rows, classes) = logits.dims2()?;
    let smoothing = weighing.label_smoothing;
    let targets = ids_beside(targets, logits)?.reshape((rows, 1))?;
    let greatest = logits.max_keepdim(D::Minus1)?;
    let powers = logits.broadcast_sub(&greatest)?.exp()?;
    let total = powers.sum_keepdim(D::Minus1)?;
    let at = logits.gather(&targets, 1)?;
    let mut losses = ((greatest + total.log()?)? - at.affine(1.0 - smoothing, 0.0)?)?;
    if smoothing > 0.0 {
        losses = (losses - logits.sum_keepdim(D::Minus1)?.affine(smoothing / classes as f64, 0.0)?)?;
    }
    let even = factor * smoothing / classes as f64;
    let slopes = powers.broadcast_mul(&total.recip()?.affine(factor, 0.0)?)?.affine(1.0, -even)?;
    let wanted = beside(&vec![-factor * (1.0 - smoothing); rows], &[rows, 1], logits)?;
    Ok((losses, slopes.scatter_add(&targets, &wanted, 1)?))
}

/// The sum of all losses, added on the host in f64: one copy for all chunks, when all of them are under way.
fn sum(losses: &[Tensor]) -> Result<f64> {
    let mut sum = 0.0;
    for losses in losses {
        let host = losses.flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        sum += host.to_vec1::<f64>()?.iter().sum::<f64>();
    }
    Ok(sum)
}
