//! Attention, softmax(Q·Kᵀ/√d + bias)·V, for every model: causal or not, padded, packed, with fewer heads of keys than
//! of queries, with T5's relative bias, with dropout, and with keys of earlier passes.
//!
//! Heads are read where they lie in the projections, without being moved. A block of queries at a time has its scores
//! computed; only the logarithm of each row's sum is kept, and the backward pass computes the scores again.

mod backward;
mod forward;
mod mask;

use std::sync::Arc;

use candle_core::Tensor;

pub use mask::Mask;

use super::dropout::Dropout;
use super::product::Precision;
use super::read::Read;
use super::{Kernels, composed, for_type, real::Real, tensor};
use crate::Result;
use crate::error::shape;
use crate::tape::{Input, Tape, Value};

/// Queries in a block: their scores, with 1,024 keys, take a quarter of a core's second-level cache.
const BLOCK: usize = 64;

/// What attention computes besides the product of queries and keys.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; each serves as many heads of queries.
    pub kv_heads: usize,
    /// What scores are multiplied with, 1/√d as a rule.
    pub scale: f64,
    /// Who sees whom.
    pub mask: Arc<Mask>,
    /// What is dropped of the weights.
    pub dropout: Option<Dropout>,
}

/// T5's bias: a table of buckets × heads, and the bucket of each pair of query and key.
#[derive(Clone, Debug)]
pub struct Relative<'v> {
    /// Buckets × heads.
    pub table: &'v Value,
    /// Queries × keys.
    pub buckets: Arc<[u32]>,
}

/// Queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub enum Heads<'v> {
    /// One projection has the queries, the keys and the values, one after the other, in each place.
    Packed(&'v Value),
    /// Three projections.
    Separate {
        /// Rows × queries × width.
        q: &'v Value,
        /// Rows × keys × width of the keys.
        k: &'v Value,
        /// Rows × keys × width of the keys.
        v: &'v Value,
    },
}

/// The sizes of one attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub rows: usize,
    pub queries: usize,
    pub keys: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// Numbers in a head.
    pub size: usize,
}

/// Tensors in their places: numbers, and how far it is to the next row and the next position.
#[derive(Clone, Copy)]
struct View<'m, T> {
    numbers: &'m [T],
    strides: [usize; 2],
}

impl<'m, T> View<'m, T> {
    /// The numbers of one head in one row, from a position on.
    fn head(&self, row: usize, position: usize, head: usize, size: usize) -> &'m [T] {
        &self.numbers[row * self.strides[0] + position * self.strides[1] + head * size..]
    }
}

/// What both directions read.
struct Inputs<'m, T> {
    q: View<'m, T>,
    k: View<'m, T>,
    v: View<'m, T>,
    bias: Option<(&'m [T], &'m [u32])>,
    /// How they are multiplied.
    precision: Precision,
}

/// Computes attention; the result is rows × queries × (heads · size).
///
/// # Errors
/// If the shapes do not go together.
pub fn attention(
    tape: &Tape<'_>,
    heads: Heads<'_>,
    what: &Attention,
    relative: Option<Relative<'_>>,
) -> Result<Value> {
    let [q, k, v] = parts(heads)?;
    let sizes = sizes(&q, &k, &v, what)?;
    if let Some(relative) = &relative {
        let (table, pairs) = (relative.table.tensor.dims(), sizes.queries * sizes.keys);
        if table.get(1) != Some(&sizes.heads) || relative.buckets.len() != pairs {
            return shape("attention", format!("a bias of {table:?} and {} pairs", relative.buckets.len()));
        }
    }
    let mut inputs_of = match heads {
        Heads::Packed(qkv) => vec![qkv],
        Heads::Separate { q, k, v } => vec![q, k, v],
    };
    inputs_of.extend(relative.as_ref().map(|r| r.table));
    let table = relative.as_ref().map(|r| (r.table.tensor.clone(), r.buckets.clone()));
    let packed = matches!(heads, Heads::Packed(_));
    if tape.kernels() == Kernels::Composed {
        return composed::attention::attention(
            tape,
            &[q, k, v],
            (inputs_of.as_slice(), packed),
            (sizes, what, table),
        );
    }
    let targets: Vec<Input> = inputs_of.iter().map(|v| Input::from(*v)).collect();
    let (what, precision) = (what.clone(), tape.precision());
    let dims = [sizes.rows, sizes.queries, sizes.heads * sizes.size];
    for_type!(q, T => {
        let (out, sums) = {
            let guards = Guards::new(&q, &k, &v, table.as_ref())?;
            forward::forward::<T>(sizes, &guards.inputs(precision), &what)
        };
        let out = tensor(out, &dims)?;
        let kept = out.clone();
        Ok(tape.record(out, &inputs_of, move |back, grad| {
            let guards = Guards::new(&q, &k, &v, table.as_ref())?;
            let (out, g) = (Read::of(&kept)?, Read::of(&grad.tensor)?);
            let came = backward::Came { out: out.slice::<T>(), sums: &sums, gradient: g.slice() };
            let gradients = backward::backward::<T>(sizes, &guards.inputs(precision), &what, came, packed);
            let (q_dims, k_dims) = (q.dims(), k.dims());
            let mut targets = targets.iter();
            for (which, numbers) in gradients.projections.into_iter().enumerate() {
                let dims = match (packed, which) {
                    (true, _) => [q_dims[0], q_dims[1], 3 * q_dims[2]],
                    (false, 0) => [q_dims[0], q_dims[1], q_dims[2]],
                    (false, _) => [k_dims[0], k_dims[1], k_dims[2]],
                };
                if let Some(target) = targets.next() {
                    back.give(target, tensor(numbers, &dims)?)?;
                }
            }
            if let (Some(target), Some(bias), Some((table, _))) = (targets.next(), gradients.bias, &table) {
                back.give(target, tensor(bias, table.dims())?)?;
            }
            Ok(())
        }))
    })
}

fn parts(heads: Heads<'_>) -> Result<[Tensor; 3]> {
    match heads {
        Heads::Separate { q, k, v } => Ok([q.tensor.clone(), k.tensor.clone(), v.tensor.clone()]),
        Heads::Packed(qkv) => {
            let width = qkv.tensor.dims().last().copied().unwrap_or_default() / 3;
            let part = |i: usize| qkv.tensor.narrow(2, i * width, width);
            Ok([part(0)?, part(1)?, part(2)?])
        }
    }
}

fn sizes(q: &Tensor, k: &Tensor, v: &Tensor, what: &Attention) -> Result<Sizes> {
    let (&[rows, queries, width], &[k_rows, keys, k_width]) = (q.dims(), k.dims()) else {
        return shape("attention", format!("queries of {:?} and keys of {:?}", q.dims(), k.dims()));
    };
    let (heads, kv_heads) = (what.heads, what.kv_heads);
    let whole = heads > 0 && kv_heads > 0 && width.is_multiple_of(heads) && heads.is_multiple_of(kv_heads);
    if !whole || rows != k_rows || k.dims() != v.dims() || k_width * heads != width * kv_heads {
        let shapes = [q.dims(), k.dims(), v.dims()];
        return shape("attention", format!("{shapes:?} for {heads} heads and {kv_heads} of keys"));
    }
    what.mask.check(rows, queries, keys)?;
    Ok(Sizes { rows, queries, keys, heads, kv_heads, size: width / heads })
}

/// The tensors' memory while it is read.
struct Guards<'t> {
    q: (Read<'t>, [usize; 2]),
    k: (Read<'t>, [usize; 2]),
    v: (Read<'t>, [usize; 2]),
    bias: Option<(Read<'t>, &'t [u32])>,
}

impl<'t> Guards<'t> {
    fn new(
        q: &'t Tensor,
        k: &'t Tensor,
        v: &'t Tensor,
        bias: Option<&'t (Tensor, Arc<[u32]>)>,
    ) -> Result<Self> {
        let bias = bias
            .map(|(table, buckets)| Ok::<_, crate::Error>((Read::of(table)?, buckets.as_ref())))
            .transpose()?;
        Ok(Guards { q: Read::strided(q)?, k: Read::strided(k)?, v: Read::strided(v)?, bias })
    }

    fn inputs<T: Real>(&self, precision: Precision) -> Inputs<'_, T> {
        fn lend<'s, 't, T: Real>((read, strides): &'s (Read<'t>, [usize; 2])) -> View<'s, T> {
            View { numbers: read.slice(), strides: *strides }
        }
        let bias = self.bias.as_ref().map(|(table, buckets)| (table.slice(), *buckets));
        Inputs { q: lend(&self.q), k: lend(&self.k), v: lend(&self.v), bias, precision }
    }
}
