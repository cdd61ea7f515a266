//! LayerNorm and RMSNorm over the last dimension.

use rayon::prelude::*;

use super::linear::add_rows;
use super::read::Read;
use super::{Kernels, add_to_buffer, blank, composed, for_type, lanes, piece_rows, real::Real, tensor};
use crate::Result;
use crate::error::shape;
use crate::tape::{Backward, Input, Tape, Value};

/// (x − mean) / √(variance + ε) · weight + bias.
///
/// # Errors
/// If the shapes do not go together.
pub fn layer_norm(
    tape: &Tape<'_>,
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    epsilon: f64,
) -> Result<Value> {
    norm::<true>(tape, x, weight, bias, epsilon)
}

/// x / √(mean of squares + ε) · weight.
///
/// # Errors
/// If the shapes do not go together.
pub fn rms_norm(tape: &Tape<'_>, x: &Value, weight: &Value, epsilon: f64) -> Result<Value> {
    norm::<false>(tape, x, weight, None, epsilon)
}

fn norm<const MEAN: bool>(
    tape: &Tape<'_>,
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    epsilon: f64,
) -> Result<Value> {
    let width = x.tensor.dims().last().copied().unwrap_or_default();
    let fits = |v: &Value| v.tensor.dims() == [width];
    if width == 0 || !fits(weight) || !bias.is_none_or(fits) {
        return shape("norm", format!("{:?} with a weight of {:?}", x.tensor.dims(), weight.tensor.dims()));
    }
    if tape.kernels() == Kernels::Composed {
        return composed::norm::norm::<MEAN>(tape, x, weight, bias, epsilon);
    }
    let y = for_type!(x.tensor, T => {
        let (x, w) = (Read::of(&x.tensor)?, Read::of(&weight.tensor)?);
        let b = bias.map(|b| Read::of(&b.tensor)).transpose()?;
        forward::<T, MEAN>(x.slice(), w.slice(), b.as_ref().map(Read::slice), T::of(epsilon))
    }, x.tensor.dims())?;
    let (x_in, w_in, b_in) = (Input::from(x), Input::from(weight), bias.map(Input::from));
    let (x_kept, w_kept) = (x.tensor.clone(), weight.tensor.clone());
    let inputs: Vec<&Value> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
    Ok(tape.record(y, &inputs, move |back, grad| {
        for_type!(grad.tensor, T => {
            let (g, x, w) = (Read::of(&grad.tensor)?, Read::of(&x_kept)?, Read::of(&w_kept)?);
            let (dx, mut sums) = backward::<T, MEAN>(g.slice(), x.slice(), w.slice(), T::of(epsilon));
            let bias = sums.split_off(width);
            give_row(back, &w_in, sums)?;
            if let Some(b_in) = b_in {
                give_row(back, &b_in, bias)?;
            }
            if x_in.wanted() {
                back.give(&x_in, tensor(dx, x_kept.dims())?)?;
            }
            Ok(())
        })
    }))
}

fn give_row<T: Real>(back: &mut Backward, input: &Input, row: Vec<T>) -> Result<()> {
    if input.wanted() && !back.accumulate::<T>(input, |buffer, written| add_to_buffer(buffer, written, &row))
    {
        let width = row.len();
        back.give(input, tensor(row, &[width])?)?;
    }
    Ok(())
}

/// Mean (0 for RMSNorm) and one over the deviation of a row.
#[inline]
fn moments<T: Real, const MEAN: bool>(x: &[T], epsilon: T) -> (T, T) {
    let count = T::of(x.len() as f64);
    let mean = if MEAN { lanes::sum(x) / count } else { T::zero() };
    let variance = lanes::squares_around(x, mean) / count;
    (mean, (variance + epsilon).sqrt().recip())
}

fn forward<T: Real, const MEAN: bool>(x: &[T], w: &[T], b: Option<&[T]>, epsilon: T) -> Vec<T> {
    let width = w.len();
    let mut y = blank::<T>(x.len());
    let piece = piece_rows(width) * width;
    y.par_chunks_mut(piece).zip(x.par_chunks(piece)).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let (mean, scale) = moments::<T, MEAN>(x, epsilon);
            y.iter_mut().zip(x).zip(w).for_each(|((y, x), w)| *y = (*x - mean) * scale * *w);
            if let Some(b) = b {
                y.iter_mut().zip(b).for_each(|(y, b)| *y += *b);
            }
        }
    });
    y
}

/// The gradient of x, and those of weight and bias one after the other.
fn backward<T: Real, const MEAN: bool>(g: &[T], x: &[T], w: &[T], epsilon: T) -> (Vec<T>, Vec<T>) {
    let width = w.len();
    let count = T::of(width as f64);
    let mut dx = blank::<T>(x.len());
    let piece = 4 * piece_rows(width) * width;
    let parts: Vec<Vec<T>> = dx
        .par_chunks_mut(piece)
        .zip(x.par_chunks(piece).zip(g.par_chunks(piece)))
        .map(|(dx, (x, g))| {
            let mut sums = vec![T::zero(); 2 * width];
            let (dw, db) = sums.split_at_mut(width);
            // The row scaled to deviation one, and its gradient.
            let (mut unit, mut gw) = (vec![T::zero(); width], vec![T::zero(); width]);
            let rows = dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(g.chunks_exact(width));
            for ((dx, x), g) in rows {
                let (mean, scale) = moments::<T, MEAN>(x, epsilon);
                for i in 0..width {
                    unit[i] = (x[i] - mean) * scale;
                    gw[i] = g[i] * w[i];
                    dw[i] += g[i] * unit[i];
                    db[i] += g[i];
                }
                let along = lanes::dot(&gw, &unit) / count;
                let shift = if MEAN { lanes::sum(&gw) / count } else { T::zero() };
                for i in 0..width {
                    dx[i] = (gw[i] - shift - unit[i] * along) * scale;
                }
            }
            sums
        })
        .collect();
    (dx, add_rows(parts, 2 * width))
}
