//! Dropout whose choices depend on what a number is, and not on when or where it is computed: the run's seed, the
//! step, the place in the model, the sample, the position and the feature.

use std::sync::Arc;

use rayon::prelude::*;

use super::read::Read;
use super::{Kernels, blank, composed, for_type, piece_rows, real::Real};
use crate::Result;
use crate::error::shape;
use crate::model::DropoutKey;
use crate::random;
use crate::tape::{Input, Tape, Value};

/// Blocks of four numbers that are made at once, so that the rounds are vector instructions.
const BLOCKS: usize = 16;

/// Features that one such group of blocks is for.
const GROUP: usize = 4 * BLOCKS;

/// Dropout at one place of the model.
#[derive(Clone, Debug)]
pub struct Dropout {
    key: [u32; 2],
    /// The place in the model.
    site: u32,
    probability: f64,
    /// The first head and the first feature that this rank computes.
    first: [usize; 2],
    /// The number of each row's sample in the whole data.
    samples: Arc<[u64]>,
}

impl Dropout {
    /// Dropout at `site`, or `None` if nothing is ever dropped there.
    pub fn new(key: DropoutKey, site: u32, probability: f64, samples: &Arc<[u64]>) -> Option<Self> {
        let mixed = random::Philox::new(key.seed).integer(key.step);
        let key = [mixed as u32, (mixed >> 32) as u32];
        let (first, samples) = ([0, 0], samples.clone());
        (probability > 0.0).then_some(Dropout { key, site, probability, first, samples })
    }

    /// The same for numbers whose heads and features are counted from these on: a rank drops of its part what one
    /// rank drops of the whole.
    pub fn from(self, head: usize, feature: usize) -> Self {
        Dropout { first: [head, feature], ..self }
    }

    /// Writes the factors of one row of features into `out`: 0, or one over the probability to stay. `head` tells
    /// apart what has several rows for a position.
    pub fn factors<T: Real>(&self, row: usize, position: usize, head: usize, out: &mut [T]) {
        self.choose([row, position, head], out, [T::zero(), T::of(self.factor())]);
    }

    /// Writes the choices alone: 0, or 1 for what stays.
    pub(super) fn stays(&self, row: usize, position: usize, head: usize, out: &mut [u8]) {
        self.choose([row, position, head], out, [0, 1]);
    }

    /// What numbers that stay are multiplied with.
    pub(super) fn factor(&self) -> f64 {
        (1.0 - self.probability).recip()
    }

    fn choose<N: Copy>(&self, [row, position, head]: [usize; 3], out: &mut [N], [goes, stays]: [N; 2]) {
        let sample = self.samples[row];
        // The bits of long data's sample numbers above 32 go where positions have none.
        let high = (sample >> 32) as u32;
        let head = head + self.first[0];
        let counter = [position as u32 ^ high << 20, sample as u32, self.site << 12 ^ head as u32];
        let limit = (self.probability * 4_294_967_296.0) as u32;
        let factor = |word: u32| if word >= limit { stays } else { goes };
        let words = |group: usize| blocks(group as u32 * BLOCKS as u32, counter, self.key);
        // The first group may begin before the features that are wanted.
        let (mut group, skip) = (self.first[1] / GROUP, self.first[1] % GROUP);
        let mut out = out;
        if skip > 0 {
            let (head, rest) = out.split_at_mut((GROUP - skip).min(out.len()));
            let words = words(group).into_iter().flatten().skip(skip);
            head.iter_mut().zip(words).for_each(|(out, word)| *out = factor(word));
            (out, group) = (rest, group + 1);
        }
        for (number, out) in out.chunks_mut(GROUP).enumerate() {
            for (out, words) in out.chunks_mut(BLOCKS).zip(&words(group + number)) {
                out.iter_mut().zip(words).for_each(|(out, word)| *out = factor(*word));
            }
        }
    }

    fn check(&self, dims: &[usize]) -> Result<()> {
        match dims {
            [rows, _, _] if *rows == self.samples.len() => Ok(()),
            _ => shape("dropout", format!("{dims:?} for {} samples", self.samples.len())),
        }
    }
}

/// Philox for `BLOCKS` counters in a row.
#[inline]
fn blocks(first: u32, [b, c, d]: [u32; 3], key: [u32; 2]) -> [[u32; BLOCKS]; 4] {
    let made: [[u32; 4]; BLOCKS] =
        std::array::from_fn(|i| random::philox([first.wrapping_add(i as u32), b, c, d], key));
    std::array::from_fn(|word| made.map(|block| block[word]))
}

/// Drops numbers of rows × length × width, and scales those that stay.
///
/// # Errors
/// If the tensor is not one row for each sample.
pub fn dropout(tape: &Tape<'_>, x: &Value, dropout: Option<&Dropout>) -> Result<Value> {
    let Some(dropout) = dropout.cloned() else { return Ok(x.clone()) };
    dropout.check(x.tensor.dims())?;
    if tape.kernels() == Kernels::Composed {
        return composed::dropout::dropout(tape, x, &dropout);
    }
    let y = for_type!(x.tensor, T => masked(Read::of(&x.tensor)?.slice::<T>(), None, &dropout, x.tensor.dims()), x.tensor.dims())?;
    let input = Input::from(x);
    Ok(tape.record(y, &[x], move |back, grad| {
        let dims = grad.tensor.dims();
        let dx = for_type!(grad.tensor, T => masked(Read::of(&grad.tensor)?.slice::<T>(), None, &dropout, dims), dims)?;
        back.give(&input, dx)
    }))
}

/// `x` plus what dropout leaves of `y`: the end of each part of a block.
///
/// # Errors
/// If the shapes differ.
pub fn residual(tape: &Tape<'_>, x: &Value, y: &Value, dropout: Option<&Dropout>) -> Result<Value> {
    let dims = x.tensor.dims();
    if dims != y.tensor.dims() {
        return shape("residual", format!("{dims:?} and {:?}", y.tensor.dims()));
    }
    dropout.map_or(Ok(()), |dropout| dropout.check(dims))?;
    if tape.kernels() == Kernels::Composed {
        return composed::dropout::residual(tape, x, y, dropout);
    }
    let sum = for_type!(x.tensor, T => {
        let (x, y) = (Read::of(&x.tensor)?, Read::of(&y.tensor)?);
        match dropout {
            Some(dropout) => masked(y.slice::<T>(), Some(x.slice()), dropout, dims),
            None => {
                let mut sum = blank::<T>(y.slice::<T>().len());
                let piece = super::SERIAL;
                let numbers = x.slice::<T>().par_chunks(piece).zip(y.slice::<T>().par_chunks(piece));
                sum.par_chunks_mut(piece).zip(numbers).for_each(|(sum, (x, y))| {
                    sum.iter_mut().zip(x.iter().zip(y)).for_each(|(sum, (x, y))| *sum = *x + *y);
                });
                sum
            }
        }
    }, dims)?;
    let (x_in, y_in, dropout) = (Input::from(x), Input::from(y), dropout.cloned());
    Ok(tape.record(sum, &[x, y], move |back, grad| {
        match &dropout {
            Some(dropout) if y_in.wanted() => {
                let dims = grad.tensor.dims();
                let dy = for_type!(grad.tensor, T => masked(Read::of(&grad.tensor)?.slice::<T>(), None, dropout, dims), dims)?;
                back.give(&y_in, dy)?;
                back.give_to_input(&x_in, grad)
            }
            _ => {
                back.share(&y_in, grad.tensor.clone())?;
                back.share(&x_in, grad.tensor)
            }
        }
    }))
}

/// `base` (or zero) plus `x` times the factors.
fn masked<T: Real>(x: &[T], base: Option<&[T]>, dropout: &Dropout, dims: &[usize]) -> Vec<T> {
    let (length, width) = (dims[1], dims[2]);
    let mut y = blank::<T>(x.len());
    let rows = piece_rows(width);
    y.par_chunks_mut(rows * width).zip(x.par_chunks(rows * width)).enumerate().for_each(|(piece, (y, x))| {
        for (i, (y, x)) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
            let place = piece * rows + i;
            dropout.factors(place / length, place % length, 0, y);
            match base {
                Some(base) => {
                    let base = &base[place * width..][..width];
                    y.iter_mut().zip(x.iter().zip(base)).for_each(|(y, (x, base))| *y = *base + *x * *y);
                }
                None => y.iter_mut().zip(x).for_each(|(y, x)| *y = *x * *y),
            }
        }
    });
    y
}
