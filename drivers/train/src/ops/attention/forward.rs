//! Attention forwards.

use rayon::prelude::*;

use super::{Attention, BLOCK, Inputs, Sizes};
use crate::ops::product::{Matrix, Output, product_here};
use crate::ops::{blank, lanes, real::Real};

/// The result, and for each row, head and query the logarithm of the sum of its exponentials.
pub(super) fn forward<T: Real>(sizes: Sizes, inputs: &Inputs<'_, T>, what: &Attention) -> (Vec<T>, Vec<T>) {
    let Sizes { rows, queries, heads, size, .. } = sizes;
    let width = heads * size;
    let parts: Vec<(Vec<T>, Vec<T>)> =
        (0..rows * heads).into_par_iter().map(|i| head(sizes, inputs, what, i / heads, i % heads)).collect();
    let mut out = blank::<T>(rows * queries * width);
    out.par_chunks_mut(queries * width).zip(parts.par_chunks(heads)).for_each(|(out, parts)| {
        for (head, (part, _)) in parts.iter().enumerate() {
            let places = out.chunks_exact_mut(width).zip(part.chunks_exact(size));
            places.for_each(|(out, part)| out[head * size..][..size].copy_from_slice(part));
        }
    });
    (out, parts.into_iter().flat_map(|(_, sums)| sums).collect())
}

fn head<T: Real>(
    sizes: Sizes,
    inputs: &Inputs<'_, T>,
    what: &Attention,
    row: usize,
    head: usize,
) -> (Vec<T>, Vec<T>) {
    let Sizes { queries, keys, size, .. } = sizes;
    let kv = head * sizes.kv_heads / sizes.heads;
    let mut out = blank::<T>(queries * size);
    let mut sums = blank::<T>(queries);
    let mut scores = blank::<T>(BLOCK.min(queries) * keys);
    let mut factors = vec![T::zero(); if what.dropout.is_some() { keys } else { 0 }];
    for first in (0..queries).step_by(BLOCK) {
        let count = BLOCK.min(queries - first);
        let seen = what.mask.limit(first + count - 1, keys);
        let scores = &mut scores[..count * seen];
        compute_scores(sizes, inputs, what, [row, head], [first, count], scores);
        for (i, scores) in scores.chunks_exact_mut(seen).enumerate() {
            let query = first + i;
            hide(sizes, what, row, query, scores);
            let greatest = lanes::max(scores);
            if greatest == T::neg_infinity() {
                // A query that sees nothing, such as padding, gets nothing.
                scores.fill(T::zero());
                sums[query] = T::infinity();
                continue;
            }
            let sum = lanes::exp_sum(scores, greatest);
            sums[query] = greatest + sum.ln();
            let scale = sum.recip();
            match &what.dropout {
                Some(dropout) => {
                    let factors = &mut factors[..seen];
                    dropout.factors(row, what.mask.offset + query, head, factors);
                    scores.iter_mut().zip(factors).for_each(|(s, f)| *s = *s * scale * *f);
                }
                None => scores.iter_mut().for_each(|s| *s *= scale),
            }
        }
        let values = Matrix::new(inputs.v.head(row, 0, kv, size), inputs.v.strides[1]);
        let out = Output::set(&mut out[first * size..][..count * size], size);
        product_here(inputs.precision, [count, size, seen], out, Matrix::new(scores, seen), values, T::one());
    }
    (out, sums)
}

/// The scores of a block of queries with the keys that one of them sees, before anything is hidden.
pub(super) fn compute_scores<T: Real>(
    sizes: Sizes,
    inputs: &Inputs<'_, T>,
    what: &Attention,
    [row, head]: [usize; 2],
    [first, count]: [usize; 2],
    scores: &mut [T],
) {
    let Sizes { keys, size, heads, kv_heads, .. } = sizes;
    let seen = scores.len() / count;
    let q = Matrix::new(inputs.q.head(row, first, head, size), inputs.q.strides[1]);
    let k = Matrix::new(inputs.k.head(row, 0, head * kv_heads / heads, size), inputs.k.strides[1]);
    product_here(
        inputs.precision,
        [count, seen, size],
        Output::set(scores, seen),
        q,
        k.turned(),
        T::of(what.scale),
    );
    if let Some((table, buckets)) = inputs.bias {
        for (i, scores) in scores.chunks_exact_mut(seen).enumerate() {
            let buckets = &buckets[(first + i) * keys..][..seen];
            scores.iter_mut().zip(buckets).for_each(|(s, &b)| *s += table[b as usize * heads + head]);
        }
    }
}

/// Puts −∞ where a query does not see a key.
pub(super) fn hide<T: Real>(sizes: Sizes, what: &Attention, row: usize, query: usize, scores: &mut [T]) {
    let limit = what.mask.limit(query, sizes.keys).min(scores.len());
    scores[limit..].fill(T::neg_infinity());
    if what.mask.has_gaps() {
        for (key, score) in scores[..limit].iter_mut().enumerate() {
            if !what.mask.sees(row, [query, sizes.queries], [key, sizes.keys]) {
                *score = T::neg_infinity();
            }
        }
    }
}
