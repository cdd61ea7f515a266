//! Rotary positions of candle's operations.

use candle_core::Tensor;

use crate::Result;
use crate::ops::rope::Angles;
use crate::tape::{Input, Tape, Value};

pub(in crate::ops) fn rope(tape: &Tape<'_>, x: &Value, angles: &Angles) -> Result<Value> {
    let table = angles.tensors(&x.tensor)?;
    let y = turn(&x.tensor, &table, 1.0)?;
    let input = Input::from(x);
    // Back is the same turn the other way.
    Ok(tape.record(y, &[x], move |back, grad| back.give(&input, turn(&grad.tensor, &table, -1.0)?)))
}

/// Turns the heads of `x` by angles whose cosines and sines are places × 1 × half.
fn turn(x: &Tensor, [cos, sin]: &[Tensor; 2], direction: f64) -> Result<Tensor> {
    let (places, _, half) = cos.dims3()?;
    let heads = x.elem_count() / (places * 2 * half);
    let x_heads = x.reshape((places, heads, 2 * half))?;
    let (x0, x1) = (x_heads.narrow(2, 0, half)?, x_heads.narrow(2, half, half)?);
    let sin = sin.affine(direction, 0.0)?;
    let y0 = (x0.broadcast_mul(cos)? - x1.broadcast_mul(&sin)?)?;
    let y1 = (x1.broadcast_mul(cos)? + x0.broadcast_mul(&sin)?)?;
    Ok(Tensor::cat(&[y0, y1], 2)?.reshape(x.dims())?)
}
