//! The output layer with its classes divided over tensor ranks, of candle's operations. For each row the ranks tell each
//! other three numbers, as with the kernel; these are in the CPU's memory on the way.

use candle_core::{D, DType, Device, Tensor};

use super::cross_entropy::Head;
use super::group::{Combine, piece};
use super::tensor::summed;
use crate::ops::composed::cross_entropy::LOGITS;
use crate::ops::composed::{as_matrix, beside, ids_beside, product};
use crate::ops::cross_entropy::Weighing;
use crate::ops::read::Read;
use crate::ops::{for_type, real::Real, tensor};
use crate::tape::{Input, Tape, Value};
use crate::{IGNORE, Result};

/// The sum of the losses, and this rank's part of the gradient of `x`; adds those of its W and b.
pub(super) fn divided(
    tape: &Tape<'_>,
    x: &Value,
    head: &Head<'_>,
    targets: &[i32],
    weighing: (Weighing, f64),
) -> Result<(f64, Option<Tensor>)> {
    let (all, weight) = (as_matrix(x.tensor())?, head.weight.tensor());
    let precision = tape.precision();
    let chosen: Vec<u32> = (0..targets.len() as u32).filter(|&row| targets[row as usize] != IGNORE).collect();
    // The same on all ranks, whose numbers of columns may differ by one.
    let count = (LOGITS / head.classes.div_ceil(head.ranks.size())).max(16);
    let mut dx = if tape.records() { Some(all.zeros_like()?) } else { None };
    let mut sum = 0.0;
    for chosen in chosen.chunks(count) {
        let own = ids_beside(chosen, &all)?;
        let x = all.index_select(&own, 0)?;
        let mut logits = product(precision, &x, &weight.t()?)?;
        if let Some(bias) = head.bias {
            logits = logits.broadcast_add(bias.tensor())?;
        }
        let here: Vec<usize> = chosen.iter().map(|&row| targets[row as usize] as usize).collect();
        let (loss, slopes) = rows(&logits, &here, head, weighing)?;
        sum += loss;
        let Some(former) = dx.take() else { continue };
        if let Some(id) = Input::from(head.weight).parameter() {
            tape.add(id, &product(precision, &slopes.t()?, &x)?)?;
        }
        if let Some(id) = head.bias.and_then(|bias| Input::from(bias).parameter()) {
            tape.add(id, &slopes.sum(0)?)?;
        }
        dx = Some(former.index_add(&own, &product(precision, &slopes, weight)?, 0)?);
    }
    Ok((sum, dx.map(|dx| dx.reshape(x.tensor().dims())).transpose()?))
}

/// The sum of the rows' losses, and the gradients of this rank's part of their logits.
fn rows(
    logits: &Tensor,
    targets: &[usize],
    head: &Head<'_>,
    (weighing, factor): (Weighing, f64),
) -> Result<(f64, Tensor)> {
    let (count, columns) = logits.dims2()?;
    let first = piece(head.classes, head.ranks.rank(), head.ranks.size()).start;
    let (smoothing, classes) = (weighing.label_smoothing, head.classes as f64);
    // 1 for rows whose target is among this rank's classes, and its column there.
    let here = |target: &usize| target.checked_sub(first).filter(|at| *at < columns);
    let own: Vec<f64> = targets.iter().map(|target| f64::from(u8::from(here(target).is_some()))).collect();
    let own = beside(&own, &[count, 1], logits)?;
    let places: Vec<u32> = targets.iter().map(|target| here(target).unwrap_or(0) as u32).collect();
    let places = ids_beside(&places, logits)?.reshape((count, 1))?;
    let greatest = greatest(&logits.max_keepdim(D::Minus1)?, head)?;
    let powers = logits.broadcast_sub(&greatest)?.exp()?;
    let at = (logits.gather(&places, 1)? * &own)?;
    let sums = [powers.sum_keepdim(D::Minus1)?, at, logits.sum_keepdim(D::Minus1)?];
    let sums = summed(&**head.ranks, &Tensor::cat(&sums, 1)?)?;
    let column = |number: usize| Ok::<_, crate::Error>(sums.narrow(1, number, 1)?.contiguous()?);
    let (total, at, all) = (column(0)?, column(1)?, column(2)?);
    let losses = ((greatest + total.log()?)? - at.affine(1.0 - smoothing, 0.0)?)?;
    let losses = (losses - all.affine(smoothing / classes, 0.0)?)?;
    let slopes = powers.broadcast_mul(&total.recip()?.affine(factor, 0.0)?)?;
    let slopes = slopes.affine(1.0, -factor * smoothing / classes)?;
    let wanted = own.affine(-factor * (1.0 - smoothing), 0.0)?;
    let losses = losses.flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    Ok((losses.to_vec1::<f64>()?.iter().sum(), slopes.scatter_add(&places, &wanted, 1)?))
}

/// The greatest numbers of all ranks.
fn greatest(own: &Tensor, head: &Head<'_>) -> Result<Tensor> {
    let host = own.to_device(&Device::Cpu)?;
    fn of_all<T: Real>(host: &Tensor, head: &Head<'_>) -> Result<Tensor> {
        let mut numbers = Read::of(host)?.slice::<T>().to_vec();
        head.ranks.all_reduce(T::numbers(&mut numbers), Combine::Max)?;
        tensor(numbers, host.dims())
    }
    let all = for_type!(host, T => of_all::<T>(&host, head))?;
    Ok(all.to_device(own.device())?)
}
