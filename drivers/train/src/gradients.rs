//! The gradients of a model's parameters: one buffer for each, kept from step to step, added to by every pass.

use candle_core::{CpuStorage, DType, Device, Tensor};
use crossbeam::channel::Sender;
use rayon::prelude::*;

use crate::ops::real::Real;
use crate::parameters::{Id, Parameters};
use crate::ranks::{Combine, Group};
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
    /// Whether its memory is with whoever sums it over ranks.
    lent: bool,
    /// Whether something is done with it before it may be lent.
    held: bool,
}

/// A gradient that nothing is added to any more in this step.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The parameter's place.
    pub id: usize,
    /// The buffer's memory.
    pub values: CpuStorage,
    /// Whether it holds a gradient.
    pub written: bool,
}

/// The gradients of all parameters, in the parameters' order.
#[derive(Debug, Default)]
pub struct Gradients {
    buffers: Vec<Buffer>,
    /// Who wants gradients as soon as they are final.
    watcher: Option<Sender<Ready>>,
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
            Ok(Buffer {
                values: buffer(count)?,
                shape: parameter.var().dims().to_vec(),
                written: false,
                lent: false,
                held: false,
            })
        });
        Ok(Gradients { buffers: buffers.collect::<Result<_>>()?, watcher: None })
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

    /// The sum of the squares of one gradient; 0 where none was computed.
    pub fn squares(&self, id: usize) -> f64 {
        let buffer = &self.buffers[id];
        match &buffer.values {
            _ if !buffer.written => 0.0,
            CpuStorage::F32(values) => squares(values),
            CpuStorage::F64(values) => squares(values),
            _ => unreachable!("buffers are f32 or f64"),
        }
    }

    /// The square root of the sum of all squares.
    pub fn norm(&self) -> f64 {
        (0..self.buffers.len()).map(|id| self.squares(id)).sum::<f64>().sqrt()
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
        if let Some(factor) = Gradients::factor(norm, limit) {
            self.scale(factor);
        }
        norm
    }

    /// What gradients of a norm are multiplied with to keep to a limit, where they must be.
    pub(crate) fn factor(norm: f64, limit: f64) -> Option<f64> {
        // PyTorch's clip_grad_norm_ adds the same, so that runs can be compared.
        (norm.is_finite() && norm > limit).then(|| limit / (norm + 1e-6))
    }

    /// Has each gradient given to `watcher` as soon as it is final; to nobody with `None`.
    pub(crate) fn watch(&mut self, watcher: Option<Sender<Ready>>) {
        self.watcher = watcher;
    }

    /// Keeps a gradient from being given away, or no more.
    pub(crate) fn hold(&mut self, id: usize, held: bool) {
        self.buffers[id].held = held;
    }

    /// Sums a gradient over ranks; those that have none of it have zeros.
    pub(crate) fn sum(&mut self, id: usize, group: &dyn Group) -> Result<()> {
        let buffer = &mut self.buffers[id];
        let has = group.max(f64::from(u8::from(buffer.written)))? > 0.0;
        fn sum<T: Real>(values: &mut [T], written: bool, group: &dyn Group) -> Result<()> {
            if !written {
                values.fill(T::zero());
            }
            Ok(group.all_reduce(T::numbers(values), Combine::Sum)?)
        }
        match &mut buffer.values {
            _ if !has => Ok(()),
            CpuStorage::F32(values) => sum(values, buffer.written, group),
            CpuStorage::F64(values) => sum(values, buffer.written, group),
            _ => unreachable!("buffers are f32 or f64"),
        }?;
        buffer.written = has;
        Ok(())
    }

    /// Whether somebody wants gradients as soon as they are final.
    pub(crate) fn is_watched(&self) -> bool {
        self.watcher.is_some()
    }

    /// Says that nothing is added to a gradient any more; gives it to whoever watches, once.
    pub(crate) fn finished(&mut self, id: usize) {
        let (Some(watcher), buffer) = (&self.watcher, &mut self.buffers[id]) else { return };
        if !buffer.held && !std::mem::replace(&mut buffer.lent, true) {
            let nothing = match &buffer.values {
                CpuStorage::F64(_) => CpuStorage::F64(Vec::new()),
                _ => CpuStorage::F32(Vec::new()),
            };
            let values = std::mem::replace(&mut buffer.values, nothing);
            // Where nobody receives any more, the step fails when gradients are asked back.
            let _ = watcher.send(Ready { id, values, written: buffer.written });
        }
    }

    /// Takes back a gradient's memory.
    pub(crate) fn give_back(&mut self, id: usize, values: CpuStorage) {
        let buffer = &mut self.buffers[id];
        (buffer.values, buffer.lent) = (values, false);
    }

    /// 1 for each parameter that has a gradient, and 0 for the others.
    pub(crate) fn written(&self) -> Vec<f64> {
        self.buffers.iter().map(|buffer| f64::from(u8::from(buffer.written))).collect()
    }

    /// Says which parameters have a gradient.
    pub(crate) fn set_written(&mut self, written: &[f64]) {
        self.buffers.iter_mut().zip(written).for_each(|(buffer, written)| buffer.written = *written > 0.0);
    }

    /// Puts a gradient in its place.
    pub(crate) fn set<T: Real>(&mut self, id: usize, values: &[T]) {
        let buffer = &mut self.buffers[id];
        T::slice_mut(&mut buffer.values).copy_from_slice(values);
        buffer.written = true;
    }

    /// Forgets one gradient.
    pub(crate) fn forget(&mut self, id: usize) {
        self.buffers[id].written = false;
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
