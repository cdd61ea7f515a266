//! Embeddings: the sum of rows of several tables, such as those of tokens and positions.

use std::sync::Arc;

use rayon::prelude::*;

use super::read::Read;
use super::{Kernels, blank, composed, for_type, piece_rows, real::Real, tensor};
use crate::Result;
use crate::error::shape;
use crate::tape::{Input, Tape, Value};

/// A table, the row of it for each place, and what its rows are multiplied with.
pub type Lookup<'v> = (&'v Value, Arc<[u32]>, f64);

/// The id of places that a table has no row for: another rank has it.
pub const NOWHERE: u32 = u32::MAX;

/// For each place the sum of the tables' rows; `dims` is the shape of the places.
///
/// # Errors
/// If an id is outside of its table, or the tables have different widths.
pub fn embedding(tape: &Tape<'_>, tables: &[Lookup<'_>], dims: [usize; 2]) -> Result<Value> {
    let count = dims[0] * dims[1];
    let width = tables.first().and_then(|(t, ..)| t.tensor.dims().get(1).copied()).unwrap_or_default();
    for (table, ids, _) in tables {
        let &[height, columns] = table.tensor.dims() else {
            return shape("embedding", format!("a table of {:?}", table.tensor.dims()));
        };
        if columns != width || width == 0 || ids.len() != count {
            return shape("embedding", format!("{} ids of {columns} for {count} of {width}", ids.len()));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= height && id != NOWHERE) {
            return shape("embedding", format!("id {id} in a table of {height} rows"));
        }
    }
    let shape = [dims[0], dims[1], width];
    if tape.kernels() == Kernels::Composed {
        return composed::embedding::embedding(tape, tables, shape);
    }
    let first = &tables[0].0.tensor;
    let y = for_type!(first, T => {
        let mut guards = Vec::with_capacity(tables.len());
        for (table, ids, scale) in tables {
            guards.push((Read::of(&table.tensor)?, ids, T::of(*scale)));
        }
        let tables: Vec<(&[T], &[u32], T)> = guards.iter().map(|(t, ids, scale)| (t.slice(), ids.as_ref(), *scale)).collect();
        gather(&tables, count, width)
    }, shape)?;
    let kept: Vec<(Input, Arc<[u32]>, f64, usize)> = tables
        .iter()
        .map(|(t, ids, scale)| (Input::from(*t), ids.clone(), *scale, t.tensor.dims()[0]))
        .collect();
    let inputs: Vec<&Value> = tables.iter().map(|(t, ..)| *t).collect();
    Ok(tape.record(y, &inputs, move |back, grad| {
        for_type!(grad.tensor, T => {
            let g = Read::of(&grad.tensor)?;
            for (input, ids, scale, height) in kept.iter().filter(|(input, ..)| input.wanted()) {
                let add = |buffer: &mut [T], written| scatter(buffer, written, g.slice(), ids, width, T::of(*scale));
                if !back.accumulate::<T>(input, add) {
                    let mut gradient = blank::<T>(height * width);
                    scatter(&mut gradient, false, g.slice(), ids, width, T::of(*scale));
                    back.give(input, tensor(gradient, &[*height, width])?)?;
                }
            }
            Ok(())
        })
    }))
}

fn gather<T: Real>(tables: &[(&[T], &[u32], T)], count: usize, width: usize) -> Vec<T> {
    let mut y = blank::<T>(count * width);
    let rows = piece_rows(width);
    y.par_chunks_mut(rows * width).enumerate().for_each(|(piece, y)| {
        for (i, y) in y.chunks_exact_mut(width).enumerate() {
            for (n, &(table, ids, scale)) in tables.iter().enumerate() {
                let id = ids[piece * rows + i];
                if id == NOWHERE {
                    if n == 0 {
                        y.fill(T::zero());
                    }
                    continue;
                }
                let row = &table[id as usize * width..][..width];
                match n {
                    0 => y.iter_mut().zip(row).for_each(|(y, x)| *y = *x * scale),
                    _ => y.iter_mut().zip(row).for_each(|(y, x)| *y += *x * scale),
                }
            }
        }
    });
    y
}

/// Adds each row of `g` to the row of its id. Pieces of the table are worked on at the same time, each in the order
/// of the rows of `g`, so the sums are always the same. Places without a row come last, and are never reached.
fn scatter<T: Real>(buffer: &mut [T], written: bool, g: &[T], ids: &[u32], width: usize, scale: T) {
    let mut order: Vec<(u32, u32)> = ids.iter().enumerate().map(|(row, &id)| (id, row as u32)).collect();
    order.sort_unstable();
    let rows = piece_rows(width);
    buffer.par_chunks_mut(rows * width).enumerate().for_each(|(piece, buffer)| {
        if !written {
            buffer.fill(T::zero());
        }
        let (first, last) = ((piece * rows) as u32, (piece * rows + buffer.len() / width) as u32);
        let begin = order.partition_point(|(id, _)| *id < first);
        for &(id, row) in order[begin..].iter().take_while(|(id, _)| *id < last) {
            let sum = &mut buffer[(id - first) as usize * width..][..width];
            let g = &g[row as usize * width..][..width];
            sum.iter_mut().zip(g).for_each(|(sum, g)| *sum += *g * scale);
        }
    });
}
