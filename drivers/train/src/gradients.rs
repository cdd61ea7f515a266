//! The gradients of a model's parameters: one buffer for each, kept from step to step, added to by every pass.

use candle_core::{CpuStorage, DType, Device, Tensor};
use rayon::prelude::*;

use crate::ops::real::Real;
use crate::parameters::{Id, Parameters};
use crate::{Error, Result};

/// Numbers are summed in pieces of this many, so that a sum does not depend on the number of threads.
const PIECE: usize = 1 << 14;

/// A parameter's gradient.
#[derive(Debug)]
struct Buffer {
    values: CpuStorage,
    shape: Vec<usize>,
    /// Whether anything was added since the last clearing; what the buffer holds means nothing before.
    written: bool,
}

/// The gradients of all parameters, in the parameters' order.
#[derive(Debug, Default)]
pub struct Gradients {
    buffers: Vec<Buffer>,
}

impl Gradients {
    /// Buffers for the trainable ones of `parameters`.
    ///
    /// # Errors
    /// If the parameters are neither f32 nor f64.
    pub fn new(parameters: &Parameters) -> Result<Self> {
        let buffer = |count| match parameters.dtype() {
            DType::F32 => Ok(CpuStorage::F32(vec![0.0; count])),
            DType::F64 => Ok(CpuStorage::F64(vec![0.0; count])),
            other => Err(Error::Config(format!("parameters are {other:?}; training needs f32 or f64"))),
        };
        let buffers = parameters.iter().map(|parameter| {
            let count = if parameter.trainable { parameter.count() } else { 0 };
            Ok(Buffer { values: buffer(count)?, shape: parameter.var().dims().to_vec(), written: false })
        });
        Ok(Gradients { buffers: buffers.collect::<Result<_>>()? })
    }

    /// Forgets what was added.
    pub fn clear(&mut self) {
        self.buffers.iter_mut().for_each(|buffer| buffer.written = false);
    }

    /// Whether a parameter's gradient was computed since the last clearing.
    pub fn has(&self, id: usize) -> bool {
        self.buffers[id].written
    }

    /// The gradient of the parameter at place `id`, or `None` where none was computed.
    ///
    /// # Errors
    /// If candle cannot make the tensor.
    pub fn tensor(&self, id: usize) -> Result<Option<Tensor>> {
        let buffer = &self.buffers[id];
        if !buffer.written {
            return Ok(None);
        }
        let shape = buffer.shape.as_slice();
        Ok(Some(match &buffer.values {
            CpuStorage::F32(values) => Tensor::from_slice(values, shape, &Device::Cpu)?,
            CpuStorage::F64(values) => Tensor::from_slice(values, shape, &Device::Cpu)?,
            _ => unreachable!("buffers are f32 or f64"),
        }))
    }

    /// The numbers of one gradient, where it was computed.
    pub fn slice<T: Real>(&self, id: usize) -> Option<&[T]> {
        let buffer = &self.buffers[id];
        buffer.written.then(|| buffer.values.as_slice().expect("the type of the parameters"))
    }

    /// The numbers of one gradient to change, where it was computed. Ranks add theirs here.
    pub fn slice_mut<T: Real>(&mut self, id: usize) -> Option<&mut [T]> {
        let buffer = &mut self.buffers[id];
        buffer.written.then(|| T::slice_mut(&mut buffer.values))
    }

    /// The buffer of a parameter to add to, and whether it holds something already. Counts as written afterwards.
    pub(crate) fn accumulate<T: Real>(&mut self, id: Id) -> (&mut [T], bool) {
        let buffer = &mut self.buffers[id.0];
        let before = std::mem::replace(&mut buffer.written, true);
        (T::slice_mut(&mut buffer.values), before)
    }

    /// The square root of the sum of all squares.
    pub fn norm(&self) -> f64 {
        let squares = self.buffers.iter().filter(|b| b.written).map(|buffer| match &buffer.values {
            CpuStorage::F32(values) => squares(values),
            CpuStorage::F64(values) => squares(values),
            _ => unreachable!("buffers are f32 or f64"),
        });
        squares.sum::<f64>().sqrt()
    }

    /// Multiplies all of them.
    pub fn scale(&mut self, factor: f64) {
        for buffer in self.buffers.iter_mut().filter(|b| b.written) {
            match &mut buffer.values {
                CpuStorage::F32(values) => {
                    let factor = factor as f32;
                    values
                        .par_chunks_mut(PIECE)
                        .for_each(|piece| piece.iter_mut().for_each(|v| *v *= factor));
                }
                CpuStorage::F64(values) => {
                    values
                        .par_chunks_mut(PIECE)
                        .for_each(|piece| piece.iter_mut().for_each(|v| *v *= factor));
                }
                _ => unreachable!("buffers are f32 or f64"),
            }
        }
    }

    /// Scales them so that their norm is `limit` at most, and says what it was. A norm that is no number changes
    /// nothing: the caller sees it and stops.
    pub fn clip(&mut self, limit: f64) -> f64 {
        let norm = self.norm();
        if norm.is_finite() && norm > limit {
            // PyTorch's clip_grad_norm_ adds the same, so that runs can be compared.
            self.scale(limit / (norm + 1e-6));
        }
        norm
    }
}

fn squares<T: Real>(values: &[T]) -> f64 {
    let pieces: Vec<f64> = values
        .par_chunks(PIECE)
        .map(|piece| {
            // Eight sums at once, so that the loop is not one chain of additions.
            let mut sums = [0.0f64; 8];
            for part in piece.chunks(8) {
                part.iter().zip(&mut sums).for_each(|(v, sum)| *sum += v.wide() * v.wide());
            }
            sums.iter().sum()
        })
        .collect();
    pieces.iter().sum()
}
