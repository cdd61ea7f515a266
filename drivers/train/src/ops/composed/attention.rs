//! Attention of candle's operations: a block of queries at a time, for all rows and heads together. As in the kernel the
//! logarithm of each query's sum is kept and scores are computed again on the way back, so memory grows with the length
//! and not with its square. Of dropout the choices are kept, one byte each.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{D, Tensor};

use super::dropout::Choices;
use super::{ids_beside, product};
use crate::Result;
use crate::ops::attention::{Attention, Sizes};
use crate::ops::product::Precision;
use crate::tape::{Backward, Input, Tape, Value};

/// Scores that exist at a time.
pub(crate) const SCORES: usize = 1 << 26;

/// T5's table, and the bucket of each pair of query and key.
type Bias = (Tensor, Arc<[u32]>);

/// Everything that both directions need. Heads are rows × heads × places × size.
struct Pass {
    /// Scores that exist at a time.
    scores_max: usize,
    sizes: Sizes,
    what: Attention,
    precision: Precision,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Option<Bias>,
}

/// What a block of queries has left for the way back.
struct Block {
    queries: Range<usize>,
    /// Keys, from the first, that one of them sees.
    seen: usize,
    /// For each query the logarithm of the sum of its exponentials.
    sums: Tensor,
    choices: Option<Choices>,
}

pub(in crate::ops) fn attention(
    tape: &Tape<'_>,
    projections: &[Tensor; 3],
    inputs: (&[&Value], bool),
    what: (Sizes, &Attention, Option<Bias>),
) -> Result<Value> {
    within(SCORES, tape, projections, inputs, what)
}

/// The same with no more than so many scores at a time.
pub(super) fn within(
    scores_max: usize,
    tape: &Tape<'_>,
    [q, k, v]: &[Tensor; 3],
    (inputs, packed): (&[&Value], bool),
    (sizes, what, bias): (Sizes, &Attention, Option<Bias>),
) -> Result<Value> {
    let pass = Pass {
        scores_max,
        q: split(q, sizes.heads)?,
        k: split(k, sizes.kv_heads)?,
        v: split(v, sizes.kv_heads)?,
        precision: tape.precision(),
        what: what.clone(),
        sizes,
        bias,
    };
    let (out, blocks) = pass.forward()?;
    let targets: Vec<Input> = inputs.iter().map(|value| Input::from(*value)).collect();
    let kept = out.clone();
    Ok(tape.record(join(&out)?, inputs, move |back, grad| {
        let g = split(&grad.tensor, sizes.heads)?;
        pass.backward(&blocks, [&kept, &g])?.give(back, &targets, packed)
    }))
}

/// Rows × places × width as rows × heads × places × size.
fn split(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (rows, places, width) = x.dims3()?;
    Ok(x.reshape((rows, places, heads, width / heads))?.transpose(1, 2)?.contiguous()?)
}

/// The same backwards.
fn join(x: &Tensor) -> Result<Tensor> {
    let (rows, heads, places, size) = x.dims4()?;
    Ok(x.transpose(1, 2)?.reshape((rows, places, heads * size))?)
}

impl Pass {
    fn forward(&self) -> Result<(Tensor, Vec<Block>)> {
        let Sizes { rows, queries, keys, heads, .. } = self.sizes;
        let step = (self.scores_max / (rows * heads * keys).max(1)).clamp(1, queries.max(1));
        let (mut outs, mut blocks) = (Vec::new(), Vec::new());
        for first in (0..queries).step_by(step) {
            let own = first..queries.min(first + step);
            let seen = self.what.mask.limit(own.end - 1, keys);
            let scores = self.scores(&own, seen)?;
            // A query that sees nothing, such as padding, has −∞ alone, and gets nothing.
            let greatest = scores.max_keepdim(D::Minus1)?.maximum(f64::from(f32::MIN))?;
            let powers = scores.broadcast_sub(&greatest)?.exp()?;
            // The greatest adds 1, so this changes the sums of no others.
            let total = powers.sum_keepdim(D::Minus1)?.maximum(1f64)?;
            let mut weights = powers.broadcast_div(&total)?;
            let choices = self.choices(&own, seen)?;
            if let Some(choices) = &choices {
                weights = choices.apply(&weights)?;
            }
            outs.push(self.times_keys(&weights, &first_of(&self.v, seen)?)?);
            blocks.push(Block { queries: own, seen, sums: (greatest + total.log()?)?, choices });
        }
        Ok((Tensor::cat(&outs, 2)?, blocks))
    }

    /// Scores of a block of queries with the keys that it sees, −∞ where a query sees a key not.
    fn scores(&self, queries: &Range<usize>, seen: usize) -> Result<Tensor> {
        let q = self.q.narrow(2, queries.start, queries.len())?;
        let k = first_of(&self.k, seen)?;
        let mut scores = self.times_keys(&q, &k.t()?)?.affine(self.what.scale, 0.0)?;
        if let Some((table, buckets)) = &self.bias {
            let own = ids_beside(&self.buckets(buckets, queries, seen), table)?;
            let bias = table.index_select(&own, 0)?.reshape((queries.len(), seen, self.sizes.heads))?;
            scores = scores.broadcast_add(&bias.permute((2, 0, 1))?)?;
        }
        self.hide(scores, queries, seen)
    }

    /// Products of queries' rows with a matrix of each head of keys, which serves several heads of queries.
    fn times_keys(&self, x: &Tensor, of_keys: &Tensor) -> Result<Tensor> {
        let (rows, heads, places, inner) = x.dims4()?;
        let groups = (rows, self.sizes.kv_heads, places * heads / self.sizes.kv_heads, inner);
        let y = product(self.precision, &x.contiguous()?.reshape(groups)?, of_keys)?;
        Ok(y.reshape((rows, heads, places, of_keys.dim(3)?))?)
    }

    /// Products that sum over a block of queries and over all heads of them that a head of keys serves.
    fn over_queries(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let group = |x: &Tensor| -> Result<Tensor> {
            let (rows, heads, places, inner) = x.dims4()?;
            let groups = (rows, self.sizes.kv_heads, places * heads / self.sizes.kv_heads, inner);
            Ok(x.contiguous()?.reshape(groups)?)
        };
        product(self.precision, &group(a)?.t()?, &group(b)?)
    }

    fn buckets(&self, all: &[u32], queries: &Range<usize>, seen: usize) -> Vec<u32> {
        queries.clone().flat_map(|query| all[query * self.sizes.keys..][..seen].iter().copied()).collect()
    }

    fn hide(&self, scores: Tensor, queries: &Range<usize>, seen: usize) -> Result<Tensor> {
        let (mask, Sizes { rows, queries: all, keys, .. }) = (&self.what.mask, self.sizes);
        let mut scores = scores;
        if mask.limit(queries.start, keys) < seen {
            let limits: Vec<u32> = queries.clone().map(|query| mask.limit(query, keys) as u32).collect();
            let limits = ids_beside(&limits, &scores)?.reshape((1, 1, queries.len(), 1))?;
            let keys = Tensor::arange(0, seen as u32, scores.device())?.reshape((1, 1, 1, seen))?;
            scores = only(&keys.broadcast_lt(&limits)?, &scores)?;
        }
        if let Some(real) = &mask.keys {
            let real = Tensor::from_slice(real, (rows, 1, 1, keys), scores.device())?;
            scores = only(&real.narrow(3, 0, seen)?.ne(0u8)?, &scores)?;
        }
        if let Some([of_queries, of_keys]) = &mask.segments {
            let of_queries = ids_beside(of_queries, &scores)?.reshape((rows, 1, all, 1))?;
            let of_queries = of_queries.narrow(2, queries.start, queries.len())?;
            let of_keys = ids_beside(of_keys, &scores)?.reshape((rows, 1, 1, keys))?;
            scores = only(&of_queries.broadcast_eq(&of_keys.narrow(3, 0, seen)?)?, &scores)?;
        }
        Ok(scores)
    }

    fn choices(&self, queries: &Range<usize>, seen: usize) -> Result<Option<Choices>> {
        let Some(dropout) = &self.what.dropout else { return Ok(None) };
        let (heads, count) = (self.sizes.heads, queries.len());
        let first = self.what.mask.offset + queries.start;
        let shape = [self.sizes.rows, heads, count, seen];
        let choices = Choices::new(dropout, &shape, &self.q, |i, row| {
            dropout.stays(i / count / heads, first + i % count, i / count % heads, row);
        });
        choices.map(Some)
    }

    fn backward(&self, blocks: &[Block], [out, gradient]: [&Tensor; 2]) -> Result<Gradients> {
        let mut sums = Gradients {
            q: Vec::with_capacity(blocks.len()),
            k: self.k.zeros_like()?,
            v: self.v.zeros_like()?,
            bias: self.bias.as_ref().map(|(table, _)| table.zeros_like()).transpose()?,
        };
        for block in blocks {
            let (first, count, seen) = (block.queries.start, block.queries.len(), block.seen);
            let own = |x: &Tensor| x.narrow(2, first, count);
            let (g, out, q) = (own(gradient)?, own(out)?, own(&self.q)?);
            let mut weights = self.scores(&block.queries, seen)?.broadcast_sub(&block.sums)?.exp()?;
            let mut slopes = self.times_keys(&g, &first_of(&self.v, seen)?.t()?)?;
            if let Some(choices) = &block.choices {
                slopes = choices.apply(&slopes)?;
            }
            slopes = (&weights * slopes.broadcast_sub(&(&g * out)?.sum_keepdim(D::Minus1)?)?)?;
            if let Some(choices) = &block.choices {
                weights = choices.apply(&weights)?;
            }
            if let (Some((table, buckets)), Some(bias)) = (&self.bias, &mut sums.bias) {
                let own = ids_beside(&self.buckets(buckets, &block.queries, seen), table)?;
                let of_pairs =
                    slopes.sum(0)?.permute((1, 2, 0))?.reshape((count * seen, self.sizes.heads))?;
                *bias = bias.index_add(&own, &of_pairs, 0)?;
            }
            let scaled = |x: Tensor| x.affine(self.what.scale, 0.0);
            sums.q.push(scaled(self.times_keys(&slopes, &first_of(&self.k, seen)?)?)?);
            sums.k = self.add_seen(&sums.k, scaled(self.over_queries(&slopes, &q)?)?)?;
            sums.v = self.add_seen(&sums.v, self.over_queries(&weights, &g)?)?;
        }
        Ok(sums)
    }

    /// Adds what the keys that a block sees get.
    fn add_seen(&self, sum: &Tensor, more: Tensor) -> Result<Tensor> {
        let unseen = self.sizes.keys - more.dim(2)?;
        Ok((sum + more.pad_with_zeros(2, 0, unseen)?)?)
    }
}

/// The first places of each head.
fn first_of(x: &Tensor, places: usize) -> Result<Tensor> {
    Ok(x.narrow(2, 0, places)?.contiguous()?)
}

/// Scores where something holds, and −∞ elsewhere.
fn only(holds: &Tensor, scores: &Tensor) -> Result<Tensor> {
    let hidden = Tensor::full(f32::NEG_INFINITY, (), scores.device())?.to_dtype(scores.dtype())?;
    Ok(holds.broadcast_as(scores.shape())?.where_cond(scores, &hidden.broadcast_as(scores.shape())?)?)
}

/// The gradients, with those of queries in blocks.
struct Gradients {
    q: Vec<Tensor>,
    k: Tensor,
    v: Tensor,
    bias: Option<Tensor>,
}

impl Gradients {
    fn give(self, back: &mut Backward, targets: &[Input], packed: bool) -> Result<()> {
        let parts = [join(&Tensor::cat(&self.q, 2)?)?, join(&self.k)?, join(&self.v)?];
        let mut gradients: Vec<Tensor> = match packed {
            true => vec![Tensor::cat(&parts, 2)?],
            false => parts.into(),
        };
        gradients.extend(self.bias);
        targets.iter().zip(gradients).try_for_each(|(target, gradient)| back.give(target, gradient))
    }
}
