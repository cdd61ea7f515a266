//! Attention backwards (after Dao, "FlashAttention-2", 2023): scores are computed again from what was kept.

use rayon::prelude::*;

use super::forward::{compute_scores, hide};
use super::{Attention, BLOCK, Inputs, Sizes};
use crate::ops::linear::add_rows;
use crate::ops::product::{Matrix, Output, product_here};
use crate::ops::{blank, lanes, real::Real};

/// What came out going forwards, and its gradient.
#[derive(Clone, Copy)]
pub(super) struct Came<'m, T> {
    pub out: &'m [T],
    pub sums: &'m [T],
    pub gradient: &'m [T],
}

/// The gradients: of the one projection or of queries, keys and values, and of the bias.
pub(super) struct Gradients<T> {
    pub projections: Vec<Vec<T>>,
    pub bias: Option<Vec<T>>,
}

/// Puts what head number i of the keys gives into a row's places.
type Place<'p, T> = &'p (dyn Fn(&mut [T], usize, &Part<T>) + Sync);

/// What one head of keys, with the heads of queries that it serves, gives.
struct Part<T> {
    /// For each of the heads of queries: queries × size.
    q: Vec<Vec<T>>,
    k: Vec<T>,
    v: Vec<T>,
    bias: Vec<T>,
}

pub(super) fn backward<T: Real>(
    sizes: Sizes,
    inputs: &Inputs<'_, T>,
    what: &Attention,
    came: Came<'_, T>,
    packed: bool,
) -> Gradients<T> {
    let Sizes { rows, queries, keys, heads, kv_heads, size } = sizes;
    let parts: Vec<Part<T>> = (0..rows * kv_heads)
        .into_par_iter()
        .map(|i| part(sizes, inputs, what, came, i / kv_heads, i % kv_heads))
        .collect();
    let (width, kv_width, group) = (heads * size, kv_heads * size, heads / kv_heads);
    let put = |out: &mut [T], row_width: usize, column: usize, part: &[T]| {
        let places = out.chunks_exact_mut(row_width).zip(part.chunks_exact(size));
        places.for_each(|(out, part)| out[column..][..size].copy_from_slice(part));
    };
    let gather = |length: usize, row_width: usize, place: Place<'_, T>| {
        let mut out = blank::<T>(rows * length * row_width);
        out.par_chunks_mut(length * row_width).zip(parts.par_chunks(kv_heads)).for_each(|(out, parts)| {
            parts.iter().enumerate().for_each(|(kv, part)| place(out, kv, part));
        });
        out
    };
    let put_q = |out: &mut [T], row_width, kv: usize, part: &Part<T>| {
        part.q.iter().enumerate().for_each(|(i, q)| put(out, row_width, (kv * group + i) * size, q));
    };
    let projections = if packed {
        vec![gather(queries, 3 * width, &|out, kv, part| {
            put_q(out, 3 * width, kv, part);
            put(out, 3 * width, width + kv * size, &part.k);
            put(out, 3 * width, 2 * width + kv * size, &part.v);
        })]
    } else {
        vec![
            gather(queries, width, &|out, kv, part| put_q(out, width, kv, part)),
            gather(keys, kv_width, &|out, kv, part| put(out, kv_width, kv * size, &part.k)),
            gather(keys, kv_width, &|out, kv, part| put(out, kv_width, kv * size, &part.v)),
        ]
    };
    let bias =
        inputs.bias.map(|(table, _)| add_rows(parts.into_iter().map(|p| p.bias).collect(), table.len()));
    Gradients { projections, bias }
}

fn part<T: Real>(
    sizes: Sizes,
    inputs: &Inputs<'_, T>,
    what: &Attention,
    came: Came<'_, T>,
    row: usize,
    kv: usize,
) -> Part<T> {
    let Sizes { queries, keys, heads, kv_heads, size, .. } = sizes;
    let group = heads / kv_heads;
    let bias = inputs.bias.map_or(0, |(table, _)| table.len());
    let mut part = Part {
        q: Vec::with_capacity(group),
        k: vec![T::zero(); keys * size],
        v: vec![T::zero(); keys * size],
        bias: vec![T::zero(); bias],
    };
    let block = BLOCK.min(queries) * keys;
    let (mut weights, mut slopes) = (blank::<T>(block), blank::<T>(block));
    let mut factors = vec![T::one(); keys];
    for head in kv * group..(kv + 1) * group {
        let mut dq = blank::<T>(queries * size);
        for first in (0..queries).step_by(BLOCK) {
            let count = BLOCK.min(queries - first);
            let seen = what.mask.limit(first + count - 1, keys);
            let (weights, slopes) = (&mut weights[..count * seen], &mut slopes[..count * seen]);
            compute_scores(sizes, inputs, what, [row, head], [first, count], weights);
            let at = ((row * queries + first) * heads + head) * size;
            let (g, out) = (&came.gradient[at..], &came.out[at..]);
            let g_matrix = Matrix::new(g, heads * size);
            let v = Matrix::new(inputs.v.head(row, 0, kv, size), inputs.v.strides[1]);
            product_here(
                inputs.precision,
                [count, seen, size],
                Output::set(slopes, seen),
                g_matrix,
                v.turned(),
                T::one(),
            );
            let lines = weights.chunks_exact_mut(seen).zip(slopes.chunks_exact_mut(seen));
            for (i, (weights, slopes)) in lines.enumerate() {
                let query = first + i;
                hide(sizes, what, row, query, weights);
                let sum = came.sums[(row * heads + head) * queries + query];
                weights.iter_mut().for_each(|w| *w = (*w - sum).fast_exp());
                let line = i * heads * size;
                let along = lanes::dot(&g[line..][..size], &out[line..][..size]);
                if let Some(dropout) = &what.dropout {
                    let factors = &mut factors[..seen];
                    dropout.factors(row, what.mask.offset + query, head, factors);
                    let numbers = weights.iter_mut().zip(slopes.iter_mut()).zip(&*factors);
                    numbers.for_each(|((w, s), f)| {
                        *s = *w * (*s * *f - along);
                        *w *= *f;
                    });
                } else {
                    weights.iter().zip(slopes.iter_mut()).for_each(|(w, s)| *s = *w * (*s - along));
                }
                if let Some((_, buckets)) = inputs.bias {
                    let buckets = &buckets[query * keys..][..seen];
                    slopes.iter().zip(buckets).for_each(|(s, &b)| part.bias[b as usize * heads + head] += *s);
                }
            }
            let (weights, slopes) = (Matrix::new(weights, seen), Matrix::new(slopes, seen));
            let q = Matrix::new(inputs.q.head(row, first, head, size), inputs.q.strides[1]);
            let k = Matrix::new(inputs.k.head(row, 0, kv, size), inputs.k.strides[1]);
            let scale = T::of(what.scale);
            product_here(
                inputs.precision,
                [seen, size, count],
                Output::add(&mut part.v, size, true),
                weights.turned(),
                g_matrix,
                T::one(),
            );
            product_here(
                inputs.precision,
                [seen, size, count],
                Output::add(&mut part.k, size, true),
                slopes.turned(),
                q,
                scale,
            );
            let dq = Output::set(&mut dq[first * size..][..count * size], size);
            product_here(inputs.precision, [count, size, seen], dq, slopes, k, scale);
        }
        part.q.push(dq);
    }
    part
}
