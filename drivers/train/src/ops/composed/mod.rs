//! The operations once more, of candle's own: for tensors that do not lie in the CPU's memory.
//!
//! Each file has the composed form of one operation, with both directions, and computes what the kernel of the same
//! name computes, in the same precision and with the same choices of dropout. [`Kernels`] says which of the two a model
//! takes. Nothing here is left to candle's `backward`, which many of its operations cut without a word: a closure on the
//! tape composes the way back, too.

pub(super) mod activation;
pub(crate) mod attention;
pub(crate) mod cross_entropy;
pub(super) mod dropout;
pub(super) mod embedding;
pub(super) mod linear;
pub(super) mod norm;
pub(super) mod pool;
pub(super) mod rope;
#[cfg(test)]
mod tests;

use candle_core::{DType, Device, Tensor};

use super::product::Precision;
use crate::Result;

/// How operations compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernels {
    /// By this library's kernels, on slices in the CPU's memory.
    #[default]
    Fused,
    /// By candle's operations, on any device; on the CPU, too, where they are compared with the kernels.
    Composed,
}

impl Kernels {
    /// What computes on a device.
    pub fn of(device: &Device) -> Kernels {
        if device.is_cpu() { Kernels::Fused } else { Kernels::Composed }
    }
}

/// The product of two matrices, or of as many as there are before the last two dimensions. In mixed precision those of
/// f32 are rounded to bf16 first; devices add in f32 and round what comes out, and the CPU, for which candle has no such
/// product, does not round it.
pub(crate) fn product(precision: Precision, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if precision == Precision::Full || a.dtype() != DType::F32 {
        return Ok(a.matmul(b)?);
    }
    let (a, b) = (a.to_dtype(DType::BF16)?, b.to_dtype(DType::BF16)?);
    match a.device().is_cpu() {
        true => Ok(a.to_dtype(DType::F32)?.matmul(&b.to_dtype(DType::F32)?)?),
        false => Ok(a.matmul(&b)?.to_dtype(DType::F32)?),
    }
}

/// Numbers of the host as a tensor beside another one, of its type.
pub(crate) fn beside(values: &[f64], shape: &[usize], like: &Tensor) -> Result<Tensor> {
    let host = Tensor::from_slice(values, shape, &Device::Cpu)?.to_dtype(like.dtype())?;
    Ok(host.to_device(like.device())?)
}

/// Ids of the host as a tensor beside another one.
pub(crate) fn ids_beside(ids: &[u32], like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::from_slice(ids, ids.len(), like.device())?)
}

/// A tensor as rows of its last dimension.
pub(crate) fn as_matrix(x: &Tensor) -> Result<Tensor> {
    let width = x.dims().last().copied().unwrap_or(1).max(1);
    Ok(x.reshape((x.elem_count() / width, width))?)
}
