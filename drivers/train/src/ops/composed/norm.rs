//! LayerNorm and RMSNorm of candle's operations.

use candle_core::{D, Tensor};

use super::as_matrix;
use crate::Result;
use crate::tape::{Input, Tape, Value};

pub(in crate::ops) fn norm<const MEAN: bool>(
    tape: &Tape<'_>,
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    epsilon: f64,
) -> Result<Value> {
    let [unit, _] = scaled::<MEAN>(&as_matrix(&x.tensor)?, epsilon)?;
    let mut y = unit.broadcast_mul(&weight.tensor)?;
    if let Some(bias) = bias {
        y = y.broadcast_add(&bias.tensor)?;
    }
    let (x_in, w_in, b_in) = (Input::from(x), Input::from(weight), bias.map(Input::from));
    let (x_kept, w_kept) = (x.tensor.clone(), weight.tensor.clone());
    let inputs: Vec<&Value> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
    Ok(tape.record(y.reshape(x.tensor.dims())?, &inputs, move |back, grad| {
        let g = as_matrix(&grad.tensor)?;
        let [unit, scale] = scaled::<MEAN>(&as_matrix(&x_kept)?, epsilon)?;
        if w_in.wanted() {
            back.give(&w_in, (&g * &unit)?.sum(0)?)?;
        }
        if let Some(bias) = b_in.filter(|bias| bias.wanted()) {
            back.give(&bias, g.sum(0)?)?;
        }
        if !x_in.wanted() {
            return Ok(());
        }
        let gw = g.broadcast_mul(&w_kept)?;
        let along = (&gw * &unit)?.mean_keepdim(D::Minus1)?;
        let mut dx = (&gw - unit.broadcast_mul(&along)?)?;
        if MEAN {
            dx = dx.broadcast_sub(&gw.mean_keepdim(D::Minus1)?)?;
        }
        back.give(&x_in, dx.broadcast_mul(&scale)?.reshape(x_kept.dims())?)
    }))
}

/// Rows scaled to deviation one, and what they were multiplied with.
fn scaled<const MEAN: bool>(x: &Tensor, epsilon: f64) -> Result<[Tensor; 2]> {
    let x = if MEAN { x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)? } else { x.clone() };
    let scale = x.sqr()?.mean_keepdim(D::Minus1)?.affine(1.0, epsilon)?.sqrt()?.recip()?;
    Ok([x.broadcast_mul(&scale)?, scale])
}
