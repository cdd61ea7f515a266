//! Pooling of candle's operations.

use candle_core::{D, Tensor};

use super::beside;
use crate::Result;
use crate::ops::pool::LENGTH_MIN;
use crate::tape::{Input, Tape, Value};

pub(in crate::ops) fn weighted(
    tape: &Tape<'_>,
    x: &Value,
    weights: &[f64],
    [rows, length]: [usize; 2],
) -> Result<Value> {
    let weights = beside(weights, &[rows, length, 1], &x.tensor)?;
    let y = x.tensor.broadcast_mul(&weights)?.sum(1)?;
    let input = Input::from(x);
    Ok(tape.record(y, &[x], move |back, grad| {
        back.give(&input, grad.tensor.unsqueeze(1)?.broadcast_mul(&weights)?)
    }))
}

pub(in crate::ops) fn unit(tape: &Tape<'_>, x: &Value) -> Result<Value> {
    let y = x.tensor.broadcast_div(&lengths(&x.tensor)?)?;
    let (input, kept) = (Input::from(x), x.tensor.clone());
    Ok(tape.record(y, &[x], move |back, grad| {
        let (g, lengths) = (grad.tensor, lengths(&kept)?);
        let along = (&g * &kept)?.sum_keepdim(D::Minus1)?.div(&lengths.sqr()?)?;
        back.give(&input, (g - kept.broadcast_mul(&along)?)?.broadcast_div(&lengths)?)
    }))
}

fn lengths(x: &Tensor) -> Result<Tensor> {
    Ok(x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(LENGTH_MIN)?)
}
