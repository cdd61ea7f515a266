//! Rotary positions, in Llama's order: number i of a head turns with number i + half.

use std::sync::{Arc, OnceLock};

use candle_core::Tensor;
use rayon::prelude::*;

use super::read::Read;
use super::{Kernels, blank, composed, for_type, piece_rows, real::Real};
use crate::Result;
use crate::error::shape;
use crate::tape::{Input, Tape, Value};

/// How fast each pair of a head turns with the position, and what its length is multiplied with.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    /// One for each pair: half as many as a head has numbers.
    pub frequencies: Vec<f64>,
    pub scale: f64,
}

impl Rotation {
    /// For heads of `size` numbers: pair i turns by base^(−2i / size) a position.
    pub fn plain(size: usize, base: f64) -> Self {
        let frequency = |i: usize| base.powf(-2.0 * i as f64 / size as f64);
        Rotation { frequencies: (0..size / 2).map(frequency).collect(), scale: 1.0 }
    }
}

/// The angles of each position of each row.
#[derive(Clone, Debug)]
pub struct Angles {
    /// Cosine and sine, half a head of each for each place.
    table: Arc<[[f64; 2]]>,
    half: usize,
    /// The same on the device that has first asked for it.
    tensors: Arc<OnceLock<[Tensor; 2]>>,
}

impl Angles {
    /// Angles for places whose positions are given.
    pub fn new(positions: &[u32], rotation: &Rotation) -> Self {
        let Rotation { frequencies, scale } = rotation;
        let turned = |p: u32| frequencies.iter().map(move |frequency| (f64::from(p) * frequency).sin_cos());
        let table = positions.iter().flat_map(|&p| turned(p));
        let table = table.map(|(sin, cos)| [cos * scale, sin * scale]).collect();
        Angles { table, half: frequencies.len(), tensors: Arc::default() }
    }

    /// Cosines and sines, places × 1 × half, on a tensor's device and of its type. All layers of a pass have the same
    /// ones, so they are copied once.
    pub(super) fn tensors(&self, like: &Tensor) -> Result<[Tensor; 2]> {
        let fits =
            |[cos, _]: &&[Tensor; 2]| cos.dtype() == like.dtype() && cos.device().same_device(like.device());
        if let Some(tensors) = self.tensors.get().filter(fits) {
            return Ok(tensors.clone());
        }
        let part = |which: usize| {
            let numbers: Vec<f64> = self.table.iter().map(|angle| angle[which]).collect();
            composed::beside(&numbers, &[numbers.len() / self.half, 1, self.half], like)
        };
        let made = [part(0)?, part(1)?];
        let kept = self.tensors.get_or_init(|| made.clone());
        Ok(if fits(&kept) { kept.clone() } else { made })
    }
}

/// Turns the heads of rows × length × width.
///
/// # Errors
/// If the width is no number of heads, or there are not as many angles as places.
pub fn rope(tape: &Tape<'_>, x: &Value, angles: &Angles) -> Result<Value> {
    let dims = x.tensor.dims();
    let width = dims.last().copied().unwrap_or_default();
    let places = dims[..dims.len().saturating_sub(1)].iter().product::<usize>();
    if width == 0 || !width.is_multiple_of(2 * angles.half) || places * angles.half != angles.table.len() {
        return shape("rope", format!("{dims:?} with angles of {:?}", [angles.table.len(), angles.half]));
    }
    if tape.kernels() == Kernels::Composed {
        return composed::rope::rope(tape, x, angles);
    }
    let y =
        for_type!(x.tensor, T => turn(Read::of(&x.tensor)?.slice::<T>(), angles, width, T::of(1.0)), dims)?;
    let (input, angles) = (Input::from(x), angles.clone());
    Ok(tape.record(y, &[x], move |back, grad| {
        let dims = grad.tensor.dims();
        // Back is the same turn the other way.
        let dx = for_type!(grad.tensor, T => turn(Read::of(&grad.tensor)?.slice::<T>(), &angles, width, T::of(-1.0)), dims)?;
        back.give(&input, dx)
    }))
}

fn turn<T: Real>(x: &[T], angles: &Angles, width: usize, direction: T) -> Vec<T> {
    let half = angles.half;
    let mut y = blank::<T>(x.len());
    let rows = piece_rows(width);
    let places = y.par_chunks_mut(rows * width).zip(x.par_chunks(rows * width));
    places.zip(angles.table.par_chunks(rows * half)).for_each(|((y, x), table)| {
        let places = y.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(table.chunks_exact(half));
        let (mut cos, mut sin) = (vec![T::zero(); half], vec![T::zero(); half]);
        for ((y, x), table) in places {
            for i in 0..half {
                (cos[i], sin[i]) = (T::of(table[i][0]), T::of(table[i][1]) * direction);
            }
            for (y, x) in y.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half)) {
                let ((y0, y1), (x0, x1)) = (y.split_at_mut(half), x.split_at(half));
                for i in 0..half {
                    y0[i] = x0[i] * cos[i] - x1[i] * sin[i];
                    y1[i] = x1[i] * cos[i] + x0[i] * sin[i];
                }
            }
        }
    });
    y
}
