//! Rows that each data rank has some of, for losses that compare them.

use candle_core::Tensor;

use super::group::{Combine, Group};
use super::tensor::on_host;
use crate::Result;
use crate::ops::read::Read;
use crate::ops::{for_type, real::Real, tensor};

/// The rows of all ranks, `rows` × width, of which `x` are this rank's from number `first` on.
///
/// # Errors
/// If a rank is gone.
pub(crate) fn all_rows(group: &dyn Group, x: &Tensor, (first, rows): (usize, usize)) -> Result<Tensor> {
    fn gather<T: Real>(group: &dyn Group, x: &Tensor, first: usize, rows: usize) -> Result<Tensor> {
        let (read, width) = (Read::of(x)?, x.dim(1)?);
        let own = read.slice::<T>();
        let mut all = vec![T::zero(); rows * width];
        all[first * width..][..own.len()].copy_from_slice(own);
        group.all_reduce(T::numbers(&mut all), Combine::Sum)?;
        tensor(all, &[rows, width])
    }
    on_host(x, |x| for_type!(x, T => gather::<T>(group, x, first, rows)))
}
