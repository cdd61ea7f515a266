//! The gradients of a model's parameters, added to by every pass: on the CPU one buffer for each, kept from step to step,
//! and on other devices a tensor for each.

use candle_core::{CpuStorage, DType, Device, Tensor};
use crossbeam::channel::Sender;
use rayon::prelude::*;

use crate::ops::read::Read;
use crate::ops::real::Real;
use crate::ops::{Kernels, add_to_buffer, for_type};
use crate::parameters::{Id, Parameters};
use crate::ranks::{Combine, Group};
use crate::{Error, Result};

/// Numbers are summed in pieces of this many, so that a sum does not depend on the number of threads.
const PIECE: usize = 1 << 14;

/// A parameter's gradient.
#[derive(Debug)]
struct Buffer {
    values: CpuStorage,
    /// What takes its place where operations are composed.
    tensor: Option<Tensor>,
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
    kernels: Kernels,
    /// `None` for the CPU's.
    device: Option<Device>,
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
            let here = parameter.trainable && parameters.kernels() == Kernels::Fused;
            Ok(Buffer {
                values: buffer(if here { parameter.count() } else { 0 })?,
                tensor: None,
                shape: parameter.var().dims().to_vec(),
                written: false,
                lent: false,
                held: false,
            })
        });
        let (kernels, device) = (parameters.kernels(), Some(parameters.device().clone()));
        Ok(Gradients { buffers: buffers.collect::<Result<_>>()?, kernels, device, watcher: None })
    }

    /// How operations compute that add to them.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    fn device(&self) -> &Device {
        self.device.as_ref().unwrap_or(&Device::Cpu)
    }

    /// Forgets what was added.
    pub fn clear(&mut self) {
        self.buffers.iter_mut().for_each(|buffer| (buffer.written, buffer.tensor) = (false, None));
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
        if self.kernels == Kernels::Composed {
            return Ok(buffer.tensor.clone());
        }
        let shape = buffer.shape.as_slice();
        Ok(Some(match &buffer.values {
            CpuStorage::F32(values) => Tensor::from_slice(values, shape, &Device::Cpu)?,
            CpuStorage::F64(values) => Tensor::from_slice(values, shape, &Device::Cpu)?,
            _ => unreachable!("buffers are f32 or f64"),
        }))
    }

    /// The numbers of one gradient, where kernels computed it.
    pub fn slice<T: Real>(&self, id: usize) -> Option<&[T]> {
        let buffer = &self.buffers[id];
        let here = buffer.written && self.kernels == Kernels::Fused;
        here.then(|| buffer.values.as_slice().expect("the type of the parameters"))
    }

    /// The buffer of a parameter to add to, and whether it holds something already. Counts as written afterwards.
    pub(crate) fn accumulate<T: Real>(&mut self, id: Id) -> (&mut [T], bool) {
        let buffer = &mut self.buffers[id.0];
        let before = std::mem::replace(&mut buffer.written, true);
        (T::slice_mut(&mut buffer.values), before)
    }

    /// Adds a tensor to a gradient.
    ///
    /// # Errors
    /// If it is of another shape.
    pub(crate) fn add(&mut self, id: Id, gradient: &Tensor) -> Result<()> {
        if self.kernels == Kernels::Fused {
            return for_type!(gradient, T => {
                let gradient = Read::of(gradient)?;
                let (buffer, written) = self.accumulate::<T>(id);
                add_to_buffer(buffer, written, gradient.slice());
                Ok(())
            });
        }
        let buffer = &mut self.buffers[id.0];
        let sum = match buffer.tensor.take().filter(|_| buffer.written) {
            Some(former) => (former + gradient)?,
            None => gradient.contiguous()?,
        };
        (buffer.tensor, buffer.written) = (Some(sum), true);
        Ok(())
    }

    /// The sum of the squares of one that kernels computed.
    fn squares(&self, id: usize) -> f64 {
        let buffer = &self.buffers[id];
        match &buffer.values {
            _ if !buffer.written => 0.0,
            CpuStorage::F32(values) => squares(values),
            CpuStorage::F64(values) => squares(values),
            _ => unreachable!("buffers are f32 or f64"),
        }
    }

    /// The sum of the squares of several, 0 where none was computed.
    ///
    /// # Errors
    /// If the device fails.
    pub fn squares_of(&self, ids: impl Iterator<Item = usize>) -> Result<f64> {
        if self.kernels == Kernels::Fused {
            return Ok(ids.map(|id| self.squares(id)).sum());
        }
        // All of them are under way before the host waits for one.
        let written = |id: usize| self.buffers[id].tensor.as_ref().filter(|_| self.buffers[id].written);
        let sums: Vec<Tensor> = ids.filter_map(written).map(squared).collect::<Result<_>>()?;
        if sums.is_empty() {
            return Ok(0.0);
        }
        let sums = Tensor::stack(&sums, 0)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        Ok(sums.to_vec1::<f64>()?.iter().sum())
    }

    /// The square root of the sum of all squares.
    ///
    /// # Errors
    /// If the device fails.
    pub fn norm(&self) -> Result<f64> {
        Ok(self.squares_of(0..self.buffers.len())?.sqrt())
    }

    /// Multiplies all of them.
    ///
    /// # Errors
    /// If the device fails.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        for buffer in self.buffers.iter_mut().filter(|b| b.written) {
            if let Some(tensor) = &mut buffer.tensor {
                *tensor = tensor.affine(factor, 0.0)?;
                continue;
            }
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
        Ok(())
    }

    /// Scales them so that their norm is `limit` at most, and says what it was. A norm that is no number changes
    /// nothing: the caller sees it and stops.
    ///
    /// # Errors
    /// If the device fails.
    pub fn clip(&mut self, limit: f64) -> Result<f64> {
        let norm = self.norm()?;
        if let Some(factor) = Gradients::factor(norm, limit) {
            self.scale(factor)?;
        }
        Ok(norm)
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
        let has = group.max(f64::from(u8::from(self.buffers[id].written)))? > 0.0;
        self.to_host(id)?;
        let buffer = &mut self.buffers[id];
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
        self.to_device(id)
    }

    /// Moves a gradient, or zeros where there is none, to where ranks sum it.
    fn to_host(&mut self, id: usize) -> Result<()> {
        let buffer = &mut self.buffers[id];
        if self.kernels == Kernels::Fused {
            return Ok(());
        }
        let count = buffer.shape.iter().product();
        let tensor = buffer.tensor.take().filter(|_| buffer.written);
        match (&mut buffer.values, tensor) {
            (CpuStorage::F64(values), Some(tensor)) => *values = tensor.flatten_all()?.to_vec1()?,
            (CpuStorage::F32(values), Some(tensor)) => *values = tensor.flatten_all()?.to_vec1()?,
            (CpuStorage::F64(values), None) => *values = vec![0.0; count],
            (CpuStorage::F32(values), None) => *values = vec![0.0; count],
            _ => unreachable!("buffers are f32 or f64"),
        }
        Ok(())
    }

    /// Moves it back.
    fn to_device(&mut self, id: usize) -> Result<()> {
        if self.kernels == Kernels::Fused {
            return Ok(());
        }
        let device = self.device().clone();
        let buffer = &mut self.buffers[id];
        let shape = buffer.shape.as_slice();
        buffer.tensor = Some(match &mut buffer.values {
            CpuStorage::F32(values) => Tensor::from_vec(std::mem::take(values), shape, &device)?,
            CpuStorage::F64(values) => Tensor::from_vec(std::mem::take(values), shape, &device)?,
            _ => unreachable!("buffers are f32 or f64"),
        });
        Ok(())
    }

    /// Whether somebody wants gradients as soon as they are final.
    pub(crate) fn is_watched(&self) -> bool {
        self.watcher.is_some()
    }

    /// Says that nothing is added to a gradient any more; gives it to whoever watches, once.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn finished(&mut self, id: usize) -> Result<()> {
        let Some(watcher) = self.watcher.clone() else { return Ok(()) };
        if !self.buffers[id].held && !self.buffers[id].lent {
            self.to_host(id)?;
            let buffer = &mut self.buffers[id];
            buffer.lent = true;
            let nothing = match &buffer.values {
                CpuStorage::F64(_) => CpuStorage::F64(Vec::new()),
                _ => CpuStorage::F32(Vec::new()),
            };
            let values = std::mem::replace(&mut buffer.values, nothing);
            // Where nobody receives any more, the step fails when gradients are asked back.
            let _ = watcher.send(Ready { id, values, written: buffer.written });
        }
        Ok(())
    }

    /// Takes back a gradient's memory.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn give_back(&mut self, id: usize, values: CpuStorage) -> Result<()> {
        let buffer = &mut self.buffers[id];
        (buffer.values, buffer.lent) = (values, false);
        self.to_device(id)
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
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn set<T: Real>(&mut self, id: usize, values: &[T]) -> Result<()> {
        let device = self.device().clone();
        let buffer = &mut self.buffers[id];
        match self.kernels {
            Kernels::Fused => T::slice_mut(&mut buffer.values).copy_from_slice(values),
            Kernels::Composed => {
                buffer.tensor = Some(Tensor::from_slice(values, buffer.shape.as_slice(), &device)?);
            }
        }
        buffer.written = true;
        Ok(())
    }

    /// Forgets one gradient.
    pub(crate) fn forget(&mut self, id: usize) {
        self.buffers[id].written = false;
    }
}

/// The sum of a tensor's squares, on its device.
fn squared(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.sqr()?.sum_all()?)
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
