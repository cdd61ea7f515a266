//! Linear layers: x·W and a bias.

use rayon::prelude::*;

use super::product::{Matrix, Output, Precision, product};
use super::read::Read;
use super::{Kernels, add_to_buffer, blank, composed, for_type, piece_rows, real::Real, tensor};
use crate::Result;
use crate::error::shape;
use crate::tape::{Input, Tape, Value};

/// How a weight lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A row for each output, as PyTorch's `nn.Linear` has it.
    OutIn,
    /// A row for each input, as GPT-2's `Conv1D` has it.
    InOut,
}

/// Computes x·W + b over the last dimension of `x`.
///
/// # Errors
/// If the shapes do not go together.
pub fn linear(
    tape: &Tape<'_>,
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    layout: Layout,
) -> Result<Value> {
    let (rows, inputs, outputs) = sizes(x, weight, bias, layout)?;
    if tape.kernels() == Kernels::Composed {
        return composed::linear::linear(tape, x, weight, bias, layout, &dims(x, outputs));
    }
    let precision = tape.precision();
    let y = for_type!(x.tensor, T => {
        let (x, w) = (Read::of(&x.tensor)?, Read::of(&weight.tensor)?);
        let mut y = blank::<T>(rows * outputs);
        let bias = bias.map(|bias| Read::of(&bias.tensor)).transpose()?;
        let out = Output::biased(&mut y, outputs, bias.as_ref().map(Read::slice::<T>));
        product(precision, [rows, outputs, inputs], out, Matrix::new(x.slice::<T>(), inputs), matrix(w.slice(), layout, [inputs, outputs]));
        y
    }, dims(x, outputs))?;
    let (x_in, w_in, b_in) = (Input::from(x), Input::from(weight), bias.map(Input::from));
    let (x_kept, w_kept) = (x.tensor.clone(), weight.tensor.clone());
    let inputs_of: Vec<&Value> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
    Ok(tape.record(y, &inputs_of, move |back, grad| {
        for_type!(grad.tensor, T => {
            let (g, x, w) = (Read::of(&grad.tensor)?, Read::of(&x_kept)?, Read::of(&w_kept)?);
            let g = g.slice::<T>();
            if let Some(bias) = b_in.filter(|b| b.wanted()) {
                let sums = column_sums(g, outputs);
                if !back.accumulate::<T>(&bias, |buffer, written| add_to_buffer(buffer, written, &sums)) {
                    back.give(&bias, tensor(sums, &[outputs])?)?;
                }
            }
            if w_in.wanted() {
                let add = |buffer: &mut [T], written| weight_gradient(precision, buffer, written, g, x.slice(), layout, [rows, inputs, outputs]);
                if !back.accumulate::<T>(&w_in, add) {
                    let mut gradient = blank::<T>(inputs * outputs);
                    weight_gradient(precision, &mut gradient, false, g, x.slice(), layout, [rows, inputs, outputs]);
                    back.give(&w_in, tensor(gradient, w_kept.dims())?)?;
                }
            }
            if x_in.wanted() {
                let mut dx = blank::<T>(rows * inputs);
                let w = matrix(w.slice::<T>(), layout, [inputs, outputs]).turned();
                product(precision, [rows, inputs, outputs], Output::set(&mut dx, inputs), Matrix::new(g, outputs), w);
                back.give(&x_in, tensor(dx, x_kept.dims())?)?;
            }
            Ok(())
        })
    }))
}

/// The weight as a matrix of inputs × outputs.
fn matrix<T: Real>(weight: &[T], layout: Layout, [inputs, outputs]: [usize; 2]) -> Matrix<'_, T> {
    match layout {
        Layout::OutIn => Matrix::new(weight, inputs).turned(),
        Layout::InOut => Matrix::new(weight, outputs),
    }
}

#[allow(clippy::too_many_arguments, reason = "what a product needs, and where it goes")]
fn weight_gradient<T: Real>(
    precision: Precision,
    buffer: &mut [T],
    written: bool,
    g: &[T],
    x: &[T],
    layout: Layout,
    [rows, inputs, outputs]: [usize; 3],
) {
    let (g, x) = (Matrix::new(g, outputs), Matrix::new(x, inputs));
    match layout {
        Layout::OutIn => {
            product(precision, [outputs, inputs, rows], Output::add(buffer, inputs, written), g.turned(), x)
        }
        Layout::InOut => {
            product(precision, [inputs, outputs, rows], Output::add(buffer, outputs, written), x.turned(), g)
        }
    }
}

fn sizes(x: &Value, weight: &Value, bias: Option<&Value>, layout: Layout) -> Result<(usize, usize, usize)> {
    let (x, w) = (x.tensor.dims(), weight.tensor.dims());
    let (inputs, outputs) = match (layout, w) {
        (Layout::OutIn, &[outputs, inputs]) | (Layout::InOut, &[inputs, outputs]) => (inputs, outputs),
        _ => return shape("linear", format!("a weight of {w:?} is no matrix")),
    };
    if x.last() != Some(&inputs) {
        return shape("linear", format!("{x:?} times a weight of {inputs} inputs and {outputs} outputs"));
    }
    match bias.map(|b| b.tensor.dims()) {
        Some(bias) if bias != [outputs] => {
            shape("linear", format!("a bias of {bias:?} for {outputs} outputs"))
        }
        _ => Ok((x[..x.len() - 1].iter().product(), inputs, outputs)),
    }
}

fn dims(x: &Value, outputs: usize) -> Vec<usize> {
    let mut dims = x.tensor.dims().to_vec();
    dims.pop();
    dims.push(outputs);
    dims
}

/// The sum of all rows of `width` numbers.
pub(crate) fn column_sums<T: Real>(g: &[T], width: usize) -> Vec<T> {
    let parts: Vec<Vec<T>> = g
        .par_chunks(4 * piece_rows(width) * width)
        .map(|piece| {
            let mut sums = vec![T::zero(); width];
            for row in piece.chunks_exact(width) {
                sums.iter_mut().zip(row).for_each(|(sum, g)| *sum += *g);
            }
            sums
        })
        .collect();
    add_rows(parts, width)
}

/// The sum of rows that pieces of work have made, in their order.
pub(super) fn add_rows<T: Real>(parts: Vec<Vec<T>>, width: usize) -> Vec<T> {
    let mut parts = parts.into_iter();
    let mut sums = parts.next().unwrap_or_else(|| vec![T::zero(); width]);
    for part in parts {
        sums.iter_mut().zip(&part).for_each(|(sum, part)| *sum += *part);
    }
    sums
}
