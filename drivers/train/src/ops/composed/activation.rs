//! Activations and gates of candle's operations.

use std::f64::consts::FRAC_1_SQRT_2;

use candle_core::Tensor;

use crate::Result;
use crate::models::config::Activation;
use crate::ops::activation::TANH;
use crate::tape::{Input, Tape, Value};

/// One over the root of 2π: the density of the normal distribution at 0.
const DENSITY: f64 = 0.398_942_280_401_432_7;

pub(in crate::ops) fn activation(tape: &Tape<'_>, x: &Value, kind: Activation) -> Result<Value> {
    let y = value(&x.tensor, kind)?;
    let (input, kept) = (Input::from(x), x.tensor.clone());
    Ok(tape.record(y, &[x], move |back, grad| back.give(&input, (grad.tensor * slope(&kept, kind)?)?)))
}

pub(in crate::ops) fn gated(tape: &Tape<'_>, gate: &Value, up: &Value, kind: Activation) -> Result<Value> {
    let y = (value(&gate.tensor, kind)? * &up.tensor)?;
    let inputs = [Input::from(gate), Input::from(up)];
    let kept = [gate.tensor.clone(), up.tensor.clone()];
    Ok(tape.record(y, &[gate, up], move |back, grad| {
        let [gate, up] = &kept;
        back.give(&inputs[0], ((&grad.tensor * up)? * slope(gate, kind)?)?)?;
        back.give(&inputs[1], (grad.tensor * value(gate, kind)?)?)
    }))
}

/// What comes out for each number.
fn value(x: &Tensor, kind: Activation) -> Result<Tensor> {
    Ok(match kind {
        Activation::Gelu => (x * phi(x)?)?,
        Activation::GeluTanh => (x * bent(x)?.affine(0.5, 0.5)?)?,
        Activation::Relu => x.relu()?,
        Activation::Silu => (x * sigmoid(x)?)?,
        Activation::Tanh => x.tanh()?,
    })
}

/// How fast it changes with each number.
fn slope(x: &Tensor, kind: Activation) -> Result<Tensor> {
    Ok(match kind {
        Activation::Gelu => {
            let density = (x.sqr()? * -0.5)?.exp()?;
            (phi(x)? + (x * density)?.affine(DENSITY, 0.0)?)?
        }
        Activation::GeluTanh => {
            let [a, b] = TANH;
            let t = bent(x)?;
            let inner = x.sqr()?.affine(3.0 * a * b, a)?;
            let steep = (t.sqr()?.affine(-1.0, 1.0)? * inner)?;
            (t.affine(0.5, 0.5)? + (x * steep)?.affine(0.5, 0.0)?)?
        }
        Activation::Relu => x.gt(0f64)?.to_dtype(x.dtype())?,
        Activation::Silu => {
            let s = sigmoid(x)?;
            let rest = (x * s.affine(-1.0, 1.0)?)?.affine(1.0, 1.0)?;
            (s * rest)?
        }
        Activation::Tanh => x.tanh()?.sqr()?.affine(-1.0, 1.0)?,
    })
}

/// The normal distribution up to each number.
fn phi(x: &Tensor) -> Result<Tensor> {
    Ok(x.affine(FRAC_1_SQRT_2, 0.0)?.erf()?.affine(0.5, 0.5)?)
}

/// The hyperbolic tangent within GELU.
fn bent(x: &Tensor) -> Result<Tensor> {
    let [a, b] = TANH;
    Ok((x * x.sqr()?.affine(a * b, a)?)?.tanh()?)
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok(x.neg()?.exp()?.affine(1.0, 1.0)?.recip()?)
}
