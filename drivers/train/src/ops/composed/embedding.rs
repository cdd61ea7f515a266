//! Embeddings of candle's operations.

use std::sync::Arc;

use candle_core::Tensor;

use super::{as_matrix, beside, ids_beside};
use crate::Result;
use crate::ops::embedding::{Lookup, NOWHERE};
use crate::tape::{Input, Tape, Value};

pub(in crate::ops) fn embedding(tape: &Tape<'_>, tables: &[Lookup<'_>], shape: [usize; 3]) -> Result<Value> {
    let mut sum: Option<Tensor> = None;
    for (table, ids, scale) in tables {
        let rows = table.tensor.index_select(&places(ids, &table.tensor)?, 0)?;
        let rows = here(&rows.affine(*scale, 0.0)?, ids)?;
        sum = Some(match sum {
            None => rows,
            Some(sum) => (sum + rows)?,
        });
    }
    let y = sum.expect("the caller has looked for a first table").reshape(&shape)?;
    let kept: Vec<(Input, Tensor, Arc<[u32]>, f64)> = tables
        .iter()
        .map(|(table, ids, scale)| (Input::from(*table), table.tensor.clone(), ids.clone(), *scale))
        .collect();
    let inputs: Vec<&Value> = tables.iter().map(|(table, ..)| *table).collect();
    Ok(tape.record(y, &inputs, move |back, grad| {
        let g = as_matrix(&grad.tensor)?;
        for (input, table, ids, scale) in kept.iter().filter(|(input, ..)| input.wanted()) {
            let rows = here(&g.affine(*scale, 0.0)?, ids)?;
            back.give(input, table.zeros_like()?.index_add(&places(ids, table)?, &rows, 0)?)?;
        }
        Ok(())
    }))
}

/// The row of the table for each place; the first for those that have none.
fn places(ids: &[u32], table: &Tensor) -> Result<Tensor> {
    let places: Vec<u32> = ids.iter().map(|&id| if id == NOWHERE { 0 } else { id }).collect();
    ids_beside(&places, table)
}

/// Rows with zeros for places that the table has no row for.
fn here(rows: &Tensor, ids: &[u32]) -> Result<Tensor> {
    if !ids.contains(&NOWHERE) {
        return Ok(rows.clone());
    }
    let here: Vec<f64> = ids.iter().map(|&id| f64::from(u8::from(id != NOWHERE))).collect();
    Ok(rows.broadcast_mul(&beside(&here, &[ids.len(), 1], rows)?)?)
}
