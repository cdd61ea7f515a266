//! The operations of the models, each with its backward pass, in f32 and f64: by kernels on threads of the CPU, and
//! for other devices composed of candle's operations. A tape has one of the two ([`Kernels`]).
//!
//! A kernel reads tensors through [`read::Read`], computes on slices, and puts a closure on the tape that does the
//! same backwards. Work is cut into pieces whose size does not depend on the number of threads, so results do not
//! either.

pub mod activation;
pub mod attention;
pub mod composed;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod lanes;
pub mod linear;
pub mod norm;
pub mod pool;
pub mod product;
pub mod read;
pub mod real;
pub mod rope;
pub mod weighted;

use candle_core::{Device, Tensor};
pub use composed::Kernels;
use rayon::prelude::*;

use crate::Result;
use real::Real;

/// Below this many numbers a loop is not worth waking another thread.
const SERIAL: usize = 1 << 13;

/// Runs a block for the type of a tensor: f32 or f64.
macro_rules! for_type {
    // With a shape: the block gives numbers, and they become a tensor.
    ($tensor:expr, $T:ident => $body:expr, $shape:expr) => {
        $crate::ops::for_type!($tensor, $T => $crate::ops::tensor::<$T>($body, &$shape))
    };
    ($tensor:expr, $T:ident => $body:expr) => {
        match $tensor.dtype() {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => Err($crate::Error::Config(format!("tensors of {other:?}; models are f32 or f64"))),
        }
    };
}
pub(crate) use for_type;

/// Numbers that are written before anybody reads them.
pub fn blank<T: Real>(count: usize) -> Vec<T> {
    let mut values = Vec::with_capacity(count);
    // SAFETY: every pattern of bits is a float, and each caller writes all of them before it reads one. Filling them
    // first would cost a pass over memory for each operation.
    #[allow(clippy::uninit_vec)]
    unsafe {
        values.set_len(count);
    }
    values
}

/// A tensor of these numbers.
pub fn tensor<T: Real>(values: Vec<T>, shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// How many rows of `width` make one piece of work.
pub fn piece_rows(width: usize) -> usize {
    (SERIAL / width.max(1)).max(1)
}

/// `sum += more`.
pub(crate) fn add_slices<T: Real>(sum: &mut [T], more: &[T]) {
    sum.par_chunks_mut(SERIAL).zip(more.par_chunks(SERIAL)).for_each(|(sum, more)| {
        sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += *more);
    });
}

/// Adds to a parameter's buffer, or begins it.
pub(crate) fn add_to_buffer<T: Real>(buffer: &mut [T], written: bool, more: &[T]) {
    if written { add_slices(buffer, more) } else { buffer.copy_from_slice(more) }
}
