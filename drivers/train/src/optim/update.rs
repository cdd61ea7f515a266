//! What optimisers have in common: buffers beside each parameter, and changing parameters in place.

use std::cell::RefCell;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Tensor};

use super::State;
use crate::ops::read::Read;
use crate::ops::real::Real;
use crate::ops::{Kernels, for_type};
use crate::parameters::{Parameter, Parameters};
use crate::{Error, Result};

/// Numbers that a thread changes at a time.
pub(super) const PIECE: usize = 1 << 14;

/// One number for each number of each parameter. A parameter has none until it is first changed, so frozen ones never
/// take memory.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    list: Vec<Option<CpuStorage>>,
    /// In their place where operations are composed.
    tensors: Vec<Option<Tensor>>,
}

impl Buffers {
    /// The buffer of parameter `place`, of zeros at first.
    pub fn get<T: Real>(&mut self, place: usize, parameter: &Parameter) -> &mut [T] {
        if self.list.len() <= place {
            self.list.resize_with(place + 1, || None);
        }
        let zeros = || match parameter.var().dtype() {
            DType::F64 => CpuStorage::F64(vec![0.0; parameter.count()]),
            _ => CpuStorage::F32(vec![0.0; parameter.count()]),
        };
        T::slice_mut(self.list[place].get_or_insert_with(zeros))
    }

    /// The same as a tensor beside the parameter.
    pub fn tensor(&self, place: usize, parameter: &Parameter) -> Result<Tensor> {
        match self.tensors.get(place) {
            Some(Some(tensor)) => Ok(tensor.clone()),
            _ => Ok(parameter.var().as_detached_tensor().zeros_like()?),
        }
    }

    /// Puts another tensor in its place.
    pub fn put(&mut self, place: usize, tensor: Tensor) {
        if self.tensors.len() <= place {
            self.tensors.resize_with(place + 1, || None);
        }
        self.tensors[place] = Some(tensor);
    }

    /// Copies them into a state, under the parameters' names and `kind`.
    pub fn save(&self, parameters: &Parameters, kind: &str, state: &mut State) -> Result<()> {
        for (parameter, buffer) in parameters.iter().zip(&self.list) {
            let shape = parameter.var().dims();
            let tensor = match buffer {
                Some(CpuStorage::F32(values)) => Tensor::from_slice(values, shape, &Device::Cpu)?,
                Some(CpuStorage::F64(values)) => Tensor::from_slice(values, shape, &Device::Cpu)?,
                _ => continue,
            };
            state.tensors.insert(format!("{}.{kind}", parameter.name()), tensor);
        }
        for (parameter, tensor) in parameters.iter().zip(&self.tensors) {
            let Some(tensor) = tensor else { continue };
            let tensor = tensor.to_device(&Device::Cpu)?;
            state.tensors.insert(format!("{}.{kind}", parameter.name()), tensor);
        }
        Ok(())
    }

    /// What a state has of this kind.
    pub fn load(parameters: &Parameters, kind: &str, state: &State) -> Result<Self> {
        let mut buffers = Buffers::default();
        for (place, parameter) in parameters.iter().enumerate() {
            let name = format!("{}.{kind}", parameter.name());
            let Some(tensor) = state.tensors.get(&name) else { continue };
            if tensor.dims() != parameter.var().dims() {
                let (given, wanted) = (tensor.dims(), parameter.var().dims());
                return Err(Error::State(format!(
                    "{name} has the shape {given:?}, and its parameter {wanted:?}"
                )));
            }
            let tensor = tensor.to_dtype(parameter.var().dtype())?.contiguous()?;
            if parameters.kernels() == Kernels::Composed {
                buffers.put(place, tensor.to_device(parameters.device())?);
                continue;
            }
            for_type!(tensor, T => {
                buffers.get::<T>(place, parameter).copy_from_slice(Read::of(&tensor)?.slice());
                Ok::<_, Error>(())
            })?;
        }
        Ok(buffers)
    }
}

/// Whether all tensors of a state belong to these parameters and kinds.
pub(super) fn check(parameters: &Parameters, kinds: &[&str], state: &State) -> Result<()> {
    let known = |name: &str| {
        name.rsplit_once('.')
            .is_some_and(|(name, kind)| kinds.contains(&kind) && parameters.get(name).is_some())
    };
    match state.tensors.keys().find(|name| !known(name)) {
        Some(name) => Err(Error::State(format!(
            "{name} belongs to no parameter of this model; is the checkpoint another model's or optimiser's?"
        ))),
        None => Ok(()),
    }
}

/// Changes a parameter's numbers in place.
pub(super) fn update<T: Real>(parameter: &Parameter, change: impl FnOnce(&mut [T])) -> Result<()> {
    let change = InPlace(RefCell::new(Some(change)), std::marker::PhantomData::<T>);
    Ok(parameter.var().as_tensor().inplace_op1(&change)?)
}

struct InPlace<F, T>(RefCell<Option<F>>, std::marker::PhantomData<T>);

impl<T: Real, F: FnOnce(&mut [T])> InplaceOp1 for InPlace<F, T> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (Some((start, end)), Some(change)) = (layout.contiguous_offsets(), self.0.take()) else {
            candle_core::bail!("a parameter whose numbers do not follow one another");
        };
        change(&mut T::slice_mut(storage)[start..end]);
        Ok(())
    }
}
