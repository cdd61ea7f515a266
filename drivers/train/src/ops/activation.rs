//! What feed-forward layers do between their products, alone and as a gate: `act(gate) · up`.

use rayon::prelude::*;

use super::read::Read;
use super::{Kernels, SERIAL, blank, composed, for_type, real::Real, tensor};
use crate::Result;
use crate::error::shape;
use crate::models::config::Activation;
use crate::tape::{Input, Tape, Value};

/// √(2/π), and the cubic's factor, of GELU by the hyperbolic tangent.
pub(super) const TANH: [f64; 2] = [0.797_884_560_802_865_4, 0.044_715];

/// Runs a block with `act` as the function and its slope: one copy of the block for each kind, so that each is a loop
/// of vector instructions without branches.
macro_rules! for_kind {
    ($kind:expr, $act:ident => $body:expr) => {
        match $kind {
            Activation::Gelu => for_kind!(@ gelu, $act, $body),
            Activation::GeluTanh => for_kind!(@ gelu_tanh, $act, $body),
            Activation::Relu => for_kind!(@ relu, $act, $body),
            Activation::Silu => for_kind!(@ silu, $act, $body),
            Activation::Tanh => for_kind!(@ tanh, $act, $body),
        }
    };
    (@ $function:ident, $act:ident, $body:expr) => {{
        let $act = $function;
        $body
    }};
}

/// Applies a function to each number.
///
/// # Errors
/// If the tensor is not one that layers make.
pub fn activation(tape: &Tape<'_>, x: &Value, kind: Activation) -> Result<Value> {
    if tape.kernels() == Kernels::Composed {
        return composed::activation::activation(tape, x, kind);
    }
    let y = for_type!(x.tensor, T => map(Read::of(&x.tensor)?.slice::<T>(), kind), x.tensor.dims())?;
    let (input, kept) = (Input::from(x), x.tensor.clone());
    Ok(tape.record(y, &[x], move |back, grad| {
        let dx = for_type!(grad.tensor, T => {
            let (g, x) = (Read::of(&grad.tensor)?, Read::of(&kept)?);
            let (g, x) = (g.slice::<T>(), x.slice::<T>());
            let mut dx = blank::<T>(x.len());
            dx.par_chunks_mut(SERIAL).zip(x.par_chunks(SERIAL).zip(g.par_chunks(SERIAL))).for_each(|(dx, (x, g))| {
                for_kind!(kind, act => dx.iter_mut().zip(x.iter().zip(g)).for_each(|(dx, (x, g))| *dx = *g * act(*x)[1]));
            });
            dx
        }, kept.dims())?;
        back.give(&input, dx)
    }))
}

/// `act(gate) · up`, number by number.
///
/// # Errors
/// If the two have different shapes.
pub fn gated(tape: &Tape<'_>, gate: &Value, up: &Value, kind: Activation) -> Result<Value> {
    if gate.tensor.dims() != up.tensor.dims() {
        return shape("gated", format!("a gate of {:?} for {:?}", gate.tensor.dims(), up.tensor.dims()));
    }
    if tape.kernels() == Kernels::Composed {
        return composed::activation::gated(tape, gate, up, kind);
    }
    let y = for_type!(gate.tensor, T => {
        let (gate, up) = (Read::of(&gate.tensor)?, Read::of(&up.tensor)?);
        let (gate, up) = (gate.slice::<T>(), up.slice::<T>());
        let mut y = blank::<T>(up.len());
        y.par_chunks_mut(SERIAL).zip(gate.par_chunks(SERIAL).zip(up.par_chunks(SERIAL))).for_each(|(y, (gate, up))| {
            let numbers = y.iter_mut().zip(gate.iter().zip(up));
            for_kind!(kind, act => numbers.for_each(|(y, (gate, up))| *y = act(*gate)[0] * *up));
        });
        y
    }, gate.tensor.dims())?;
    let inputs = [Input::from(gate), Input::from(up)];
    let kept = [gate.tensor.clone(), up.tensor.clone()];
    Ok(tape.record(y, &[gate, up], move |back, grad| {
        for_type!(grad.tensor, T => {
            let (g, gate, up) = (Read::of(&grad.tensor)?, Read::of(&kept[0])?, Read::of(&kept[1])?);
            let (g, gate, up) = (g.slice::<T>(), gate.slice::<T>(), up.slice::<T>());
            let (mut d_gate, mut d_up) = (blank::<T>(g.len()), blank::<T>(g.len()));
            let outputs = d_gate.par_chunks_mut(SERIAL).zip(d_up.par_chunks_mut(SERIAL));
            let read = gate.par_chunks(SERIAL).zip(up.par_chunks(SERIAL)).zip(g.par_chunks(SERIAL));
            outputs.zip(read).for_each(|((d_gate, d_up), ((gate, up), g))| {
                let numbers = d_gate.iter_mut().zip(d_up).zip(gate.iter().zip(up).zip(g));
                for_kind!(kind, act => numbers.for_each(|((d_gate, d_up), ((gate, up), g))| {
                    let [value, slope] = act(*gate);
                    *d_gate = *g * *up * slope;
                    *d_up = *g * value;
                }));
            });
            back.give(&inputs[0], tensor(d_gate, kept[0].dims())?)?;
            back.give(&inputs[1], tensor(d_up, kept[1].dims())?)
        })
    }))
}

fn map<T: Real>(x: &[T], kind: Activation) -> Vec<T> {
    let mut y = blank::<T>(x.len());
    y.par_chunks_mut(SERIAL).zip(x.par_chunks(SERIAL)).for_each(|(y, x)| {
        for_kind!(kind, act => y.iter_mut().zip(x).for_each(|(y, x)| *y = act(*x)[0]));
    });
    y
}

#[inline(always)]
fn gelu<T: Real>(x: T) -> [T; 2] {
    let half = T::of(0.5);
    let phi = half * (T::one() + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf());
    let density = T::of(0.398_942_280_401_432_7) * (-half * x * x).fast_exp();
    [x * phi, phi + x * density]
}

#[inline(always)]
fn gelu_tanh<T: Real>(x: T) -> [T; 2] {
    let (a, b, half) = (T::of(TANH[0]), T::of(TANH[1]), T::of(0.5));
    let t = (a * (x + b * x * x * x)).fast_tanh();
    let slope = (T::one() - t * t) * a * (T::one() + T::of(3.0) * b * x * x);
    [half * x * (T::one() + t), half * (T::one() + t) + half * x * slope]
}

#[inline(always)]
fn relu<T: Real>(x: T) -> [T; 2] {
    if x > T::zero() { [x, T::one()] } else { [T::zero(), T::zero()] }
}

#[inline(always)]
fn silu<T: Real>(x: T) -> [T; 2] {
    let s = (T::one() + (-x).fast_exp()).recip();
    [x * s, s * (T::one() + x * (T::one() - s))]
}

#[inline(always)]
fn tanh<T: Real>(x: T) -> [T; 2] {
    let t = x.fast_tanh();
    [t, T::one() - t * t]
}
