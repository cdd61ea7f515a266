//! The two places where a layer that is divided over tensor ranks touches the others (Shoeybi et al., "Megatron-LM",
//! 2019). Between them each rank computes with its own heads or columns.
//!
//! ```text
//! enter    forward: as it is            backward: gradients of all ranks are summed
//! leave    forward: results are summed  backward: as it is
//! ```

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::group::{Combine, Group, piece};
use crate::Result;
use crate::ops::linear::column_sums;
use crate::ops::read::Read;
use crate::ops::{Kernels, add_to_buffer, for_type, real::Real, tensor};
use crate::tape::{Input, Tape, Value};

/// The input of what is divided.
///
/// # Errors
/// If a rank is gone.
pub fn enter(tape: &Tape<'_>, group: &Arc<dyn Group>, x: &Value) -> Result<Value> {
    if group.size() == 1 {
        return Ok(x.clone());
    }
    let (input, group) = (Input::from(x), group.clone());
    Ok(tape.record(x.tensor().clone(), &[x], move |back, grad| {
        back.give(&input, summed(&*group, &grad.tensor)?)
    }))
}

/// The result of what was divided, with the bias that is added once.
///
/// # Errors
/// If a rank is gone.
pub fn leave(tape: &Tape<'_>, group: &Arc<dyn Group>, x: &Value, bias: Option<&Value>) -> Result<Value> {
    let width = x.tensor().dims().last().copied().unwrap_or_default();
    if tape.kernels() == Kernels::Composed {
        return leave_composed(tape, group, x, bias);
    }
    let y = for_type!(x.tensor(), T => {
        let mut y = sum::<T>(&**group, x.tensor())?;
        if let Some(bias) = bias {
            let bias = Read::of(bias.tensor())?;
            let bias = bias.slice::<T>();
            y.chunks_exact_mut(width).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, bias)| *y += *bias));
        }
        y
    }, x.tensor().dims())?;
    let (input, bias_in) = (Input::from(x), bias.map(Input::from));
    let inputs: Vec<&Value> = [Some(x), bias].into_iter().flatten().collect();
    Ok(tape.record(y, &inputs, move |back, grad| {
        if let Some(bias) = bias_in.filter(|bias| bias.wanted()) {
            for_type!(grad.tensor, T => {
                let sums = column_sums(Read::of(&grad.tensor)?.slice::<T>(), width);
                if !back.accumulate::<T>(&bias, |buffer, written| add_to_buffer(buffer, written, &sums)) {
                    back.give(&bias, tensor(sums, &[width])?)?;
                }
                Ok::<_, crate::Error>(())
            })?;
        }
        back.give_to_input(&input, grad)
    }))
}

/// The same of candle's operations.
fn leave_composed(tape: &Tape<'_>, group: &Arc<dyn Group>, x: &Value, bias: Option<&Value>) -> Result<Value> {
    let mut y = summed(&**group, x.tensor())?;
    if let Some(bias) = bias {
        y = y.broadcast_add(bias.tensor())?;
    }
    let (input, bias_in) = (Input::from(x), bias.map(Input::from));
    let inputs: Vec<&Value> = [Some(x), bias].into_iter().flatten().collect();
    Ok(tape.record(y, &inputs, move |back, grad| {
        if let Some(bias) = bias_in.filter(|bias| bias.wanted()) {
            let width = grad.tensor.dims().last().copied().unwrap_or_default();
            back.give(&bias, grad.tensor.reshape(((), width))?.sum(0)?)?;
        }
        back.give_to_input(&input, grad)
    }))
}

/// A tensor summed over the ranks, which sum in the CPU's memory.
pub(crate) fn summed(group: &dyn Group, x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    on_host(&x, |x| for_type!(x, T => sum::<T>(group, x)?, x.dims()))
}

/// What ranks do with a tensor in the CPU's memory, which is where they send from. The outcome is where the tensor is.
pub(super) fn on_host(x: &Tensor, compute: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    Ok(compute(&x.to_device(&Device::Cpu)?)?.to_device(x.device())?)
}

fn sum<T: Real>(group: &dyn Group, x: &Tensor) -> Result<Vec<T>> {
    let mut numbers = Read::of(x)?.slice::<T>().to_vec();
    group.all_reduce(T::numbers(&mut numbers), Combine::Sum)?;
    Ok(numbers)
}

/// Puts together what each rank has of the last dimension, such as logits of its part of the vocabulary.
///
/// # Errors
/// If a rank is gone.
pub fn gathered(group: &dyn Group, x: &Tensor, whole: usize) -> Result<Tensor> {
    if group.size() == 1 {
        return Ok(x.clone());
    }
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = whole;
    }
    let own = piece(whole, group.rank(), group.size());
    fn gather<T: Real>(group: &dyn Group, x: &Tensor, own: Range<usize>, dims: &[usize]) -> Result<Tensor> {
        let (read, whole) = (Read::of(x)?, dims.last().copied().unwrap_or_default());
        let mut all = vec![T::zero(); dims.iter().product()];
        for (all, part) in all.chunks_exact_mut(whole).zip(read.slice::<T>().chunks_exact(own.len())) {
            all[own.clone()].copy_from_slice(part);
        }
        group.all_reduce(T::numbers(&mut all), Combine::Sum)?;
        tensor(all, dims)
    }
    on_host(x, |x| for_type!(x, T => gather::<T>(group, x, own, &dims)))
}
