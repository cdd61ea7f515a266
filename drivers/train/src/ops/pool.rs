//! From the tokens of a row to one vector: the first token's, or the mean of all; and vectors of length one.

use rayon::prelude::*;

use super::read::Read;
use super::{Kernels, blank, composed, for_type, lanes, real::Real};
use crate::Result;
use crate::error::shape;
use crate::tape::{Input, Tape, Value};

/// The smallest length that a vector is divided by, as in PyTorch's `normalize`.
pub(super) const LENGTH_MIN: f64 = 1e-12;

/// The weighted sum of each row's tokens: rows × length × width becomes rows × width.
///
/// # Errors
/// If there is not one weight for each token.
pub fn weighted(tape: &Tape<'_>, x: &Value, weights: Vec<f64>) -> Result<Value> {
    let &[rows, length, width] = x.tensor.dims() else {
        return shape("weighted", format!("{:?} is not rows × length × width", x.tensor.dims()));
    };
    if weights.len() != rows * length {
        return shape("weighted", format!("{} weights for {rows} × {length} tokens", weights.len()));
    }
    if tape.kernels() == Kernels::Composed {
        return composed::pool::weighted(tape, x, &weights, [rows, length]);
    }
    let y = for_type!(x.tensor, T => {
        let x = Read::of(&x.tensor)?;
        let mut y = vec![T::of(0.0); rows * width];
        let tokens = x.slice::<T>().chunks_exact(width).zip(&weights).enumerate();
        for (i, (x, weight)) in tokens.filter(|(_, (_, weight))| **weight != 0.0) {
            let y = &mut y[i / length * width..][..width];
            y.iter_mut().zip(x).for_each(|(y, x)| *y += *x * T::of(*weight));
        }
        y
    }, [rows, width])?;
    let input = Input::from(x);
    Ok(tape.record(y, &[x], move |back, grad| {
        let dx = for_type!(grad.tensor, T => {
            let g = Read::of(&grad.tensor)?;
            let mut dx = blank::<T>(rows * length * width);
            for (i, (dx, weight)) in dx.chunks_exact_mut(width).zip(&weights).enumerate() {
                let g = &g.slice::<T>()[i / length * width..][..width];
                dx.iter_mut().zip(g).for_each(|(dx, g)| *dx = *g * T::of(*weight));
            }
            dx
        }, [rows, length, width])?;
        back.give(&input, dx)
    }))
}

/// The weights that make [`weighted`] a mean over the tokens that are no padding.
pub fn mean_weights(mask: Option<&[u8]>, rows: usize, length: usize) -> Vec<f64> {
    let Some(mask) = mask else { return vec![(length as f64).recip(); rows * length] };
    let row = |mask: &[u8]| {
        let count = mask.iter().filter(|&&m| m != 0).count().max(1) as f64;
        mask.iter().map(|&m| if m != 0 { count.recip() } else { 0.0 }).collect::<Vec<_>>()
    };
    mask.chunks_exact(length).flat_map(row).collect()
}

/// The weights that make [`weighted`] take the first token.
pub fn first_weights(rows: usize, length: usize) -> Vec<f64> {
    (0..rows * length).map(|i| if i % length == 0 { 1.0 } else { 0.0 }).collect()
}

/// Each row divided by its length.
///
/// # Errors
/// If the tensor is not one that layers make.
pub fn unit(tape: &Tape<'_>, x: &Value) -> Result<Value> {
    if tape.kernels() == Kernels::Composed {
        return composed::pool::unit(tape, x);
    }
    let width = x.tensor.dims().last().copied().unwrap_or_default().max(1);
    let y = for_type!(x.tensor, T => {
        let mut y = Read::of(&x.tensor)?.slice::<T>().to_vec();
        y.par_chunks_mut(width).for_each(|y| {
            let scale = length(y).recip();
            y.iter_mut().for_each(|y| *y *= scale);
        });
        y
    }, x.tensor.dims())?;
    let (input, kept) = (Input::from(x), x.tensor.clone());
    Ok(tape.record(y, &[x], move |back, grad| {
        let dx = for_type!(grad.tensor, T => {
            let (g, x) = (Read::of(&grad.tensor)?, Read::of(&kept)?);
            let mut dx = g.slice::<T>().to_vec();
            dx.par_chunks_mut(width).zip(x.slice::<T>().par_chunks(width)).for_each(|(dx, x)| {
                let length = length(x);
                let along = lanes::dot(dx, x) / (length * length);
                dx.iter_mut().zip(x).for_each(|(dx, x)| *dx = (*dx - *x * along) / length);
            });
            dx
        }, kept.dims())?;
        back.give(&input, dx)
    }))
}

fn length<T: Real>(x: &[T]) -> T {
    num_traits::Float::max(lanes::dot(x, x).sqrt(), T::of(LENGTH_MIN))
}

/// Each number times a factor.
///
/// # Errors
/// If the tensor is not one that layers make.
pub fn scaled(tape: &Tape<'_>, x: &Value, factor: f64) -> Result<Value> {
    let y = x.tensor.affine(factor, 0.0)?;
    let input = Input::from(x);
    Ok(tape.record(y, &[x], move |back, grad| back.give(&input, grad.tensor.affine(factor, 0.0)?)))
}

/// Rows × width as rows × 1 × width, or back: dropout wants positions.
///
/// # Errors
/// If the tensor has another form.
pub fn as_rows(tape: &Tape<'_>, x: &Value, longer: bool) -> Result<Value> {
    let y = if longer { x.tensor.unsqueeze(1)? } else { x.tensor.squeeze(1)? };
    let input = Input::from(x);
    Ok(tape.record(y, &[x], move |back, grad| {
        let dx = if longer { grad.tensor.squeeze(1)? } else { grad.tensor.unsqueeze(1)? };
        back.give(&input, dx)
    }))
}
