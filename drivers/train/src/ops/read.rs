//! Reading tensors as slices.

use candle_core::{Layout, Storage, StorageRef, Tensor};

use super::real::Real;
use crate::error::{Result, shape};

/// A tensor's memory while it is read.
pub struct Read<'t> {
    storage: StorageRef<'t>,
    start: usize,
    end: usize,
}

impl<'t> Read<'t> {
    /// A tensor whose numbers lie one after another.
    ///
    /// # Errors
    /// If they do not, or are not in the memory of the CPU.
    pub fn of(tensor: &'t Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        match layout.contiguous_offsets() {
            Some((start, end)) => Read { storage, start, end }.on_cpu(),
            None => shape(
                "read",
                format!("a tensor with strides {:?} where numbers must follow", layout.stride()),
            ),
        }
    }

    /// A tensor of rows × length × width whose last dimension lies one after another, with the distance between rows
    /// and between places.
    ///
    /// # Errors
    /// If it has another form, or is not in the memory of the CPU.
    pub fn strided(tensor: &'t Tensor) -> Result<(Self, [usize; 2])> {
        let (storage, layout) = tensor.storage_and_layout();
        let [_, _, 1] = *layout.stride() else {
            return shape(
                "read",
                format!("a tensor with strides {:?} where rows must follow", layout.stride()),
            );
        };
        let strides = [layout.stride()[0], layout.stride()[1]];
        let (start, end) = (layout.start_offset(), end(layout));
        Ok((Read { storage, start, end }.on_cpu()?, strides))
    }

    fn on_cpu(self) -> Result<Self> {
        match &*self.storage {
            Storage::Cpu(_) => Ok(self),
            _ => shape("read", "a tensor outside of the CPU's memory; move it with to_device"),
        }
    }

    /// The numbers.
    ///
    /// # Panics
    /// If they are of another type: operations look at the type first.
    pub fn slice<T: Real>(&self) -> &[T] {
        let Storage::Cpu(storage) = &*self.storage else { unreachable!("looked at when it was made") };
        &storage.as_slice::<T>().expect("operations look at the type first")[self.start..self.end]
    }
}

/// One past the last number that a layout reaches.
fn end(layout: &Layout) -> usize {
    let last = layout.dims().iter().zip(layout.stride()).map(|(n, stride)| n.saturating_sub(1) * stride);
    layout.start_offset() + last.sum::<usize>() + usize::from(layout.shape().elem_count() > 0)
}
