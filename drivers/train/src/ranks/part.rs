//! Which part of a whole tensor a rank has. Whatever leaves a run, checkpoints above all, is in whole tensors, so that
//! another layout of ranks can take its own parts of them.

use std::ops::Range;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::group::piece;

/// A part of a tensor: some ranges along one axis, and everything along the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    whole: Vec<usize>,
    axis: usize,
    ranges: Vec<Range<usize>>,
}

impl Part {
    /// All of a tensor.
    pub fn all(dims: &[usize]) -> Part {
        Part { whole: dims.to_vec(), axis: 0, ranges: dims.first().map(|&n| 0..n).into_iter().collect() }
    }

    /// The part of a rank along an axis that has so many equal blocks, of each of which a rank has its share: queries,
    /// keys and values that one matrix makes are three.
    pub fn share(dims: &[usize], axis: usize, blocks: usize, [rank, size]: [usize; 2]) -> Part {
        let block = dims[axis] / blocks;
        let own = piece(block, rank, size);
        let ranges = (0..blocks).map(|number| number * block + own.start..number * block + own.end);
        Part { whole: dims.to_vec(), axis, ranges: ranges.collect() }
    }

    /// The dimensions of the whole.
    pub fn whole(&self) -> &[usize] {
        &self.whole
    }

    /// The dimensions of the part.
    pub fn dims(&self) -> Vec<usize> {
        let mut dims = self.whole.clone();
        if let Some(dim) = dims.get_mut(self.axis) {
            *dim = self.ranges.iter().map(Range::len).sum();
        }
        dims
    }

    /// Whether it is the whole.
    pub fn is_whole(&self) -> bool {
        self.dims() == self.whole
    }

    /// The runs of numbers that follow one another in the whole, in the order in which the part has them.
    pub fn runs(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let axis = self.whole.get(self.axis).copied().unwrap_or(1);
        let before: usize = self.whole.iter().take(self.axis).product();
        let inner: usize = self.whole.iter().skip(self.axis + 1).product();
        let scalar = self.whole.is_empty().then_some(0..1);
        let at = move |outer: usize, range: &Range<usize>| {
            (outer * axis + range.start) * inner..(outer * axis + range.end) * inner
        };
        let runs = (0..before).flat_map(move |outer| self.ranges.iter().map(move |range| at(outer, range)));
        scalar.into_iter().chain(runs)
    }

    /// The part of a whole tensor.
    ///
    /// # Errors
    /// If candle cannot cut it; the caller has compared the dimensions.
    pub fn cut(&self, whole: &Tensor) -> candle_core::Result<Tensor> {
        if self.is_whole() {
            return Ok(whole.clone());
        }
        let cut = |range: &Range<usize>| whole.narrow(self.axis, range.start, range.len());
        let parts = self.ranges.iter().map(cut).collect::<candle_core::Result<Vec<_>>>()?;
        Tensor::cat(&parts, self.axis)?.contiguous()
    }

    /// Puts the numbers of the part in their places of the whole.
    pub fn put<T: Copy>(&self, part: &[T], whole: &mut [T]) {
        let mut from = 0;
        for run in self.runs() {
            let length = run.len();
            whole[run].copy_from_slice(&part[from..from + length]);
            from += length;
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn parts_of_all_ranks_make_the_whole_again() -> candle_core::Result<()> {
        for (axis, blocks, size) in [(0, 1, 2), (1, 1, 3), (1, 3, 2), (1, 2, 3)] {
            let whole = Tensor::arange(0f64, 72.0, &Device::Cpu)?.reshape((6, 12))?;
            let mut again = vec![-1.0; 72];
            for rank in 0..size {
                let part = Part::share(&[6, 12], axis, blocks, [rank, size]);
                let own = part.cut(&whole)?;
                assert_eq!(own.dims(), part.dims());
                assert!(!part.is_whole());
                part.put(&own.flatten_all()?.to_vec1::<f64>()?, &mut again);
            }
            assert!(
                again.iter().enumerate().all(|(at, number)| at as f64 == *number),
                "{axis} {blocks} {size}"
            );
        }
        assert!(Part::all(&[3, 2]).is_whole() && Part::all(&[]).runs().eq(std::iter::once(0..1)));
        Ok(())
    }
}
