//! The optimiser's state, divided over the data ranks (Rajbhandari et al., "ZeRO", 2020, stage 1): each rank keeps the
//! state of its piece of each bucket, changes these parameters alone, and gives them to the others.
//!
//! The pieces are parameters of their own, so optimisers know nothing of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, Device, Tensor};

use super::group::{Group, piece};
use super::plan::Plan;
use crate::ops::for_type;
use crate::ops::read::Read;
use crate::optim::{Optimiser, State};
use crate::parameters::Parameters;
use crate::{Gradients, Result};

/// A piece of a parameter that this rank changes.
#[derive(Clone, Debug)]
struct Piece {
    /// The parameter.
    id: usize,
    bucket: usize,
    /// Its numbers in this rank's piece of the bucket.
    in_piece: Range<usize>,
    /// The same numbers in the parameter.
    in_parameter: Range<usize>,
}

/// This rank's pieces.
pub(super) struct Zero {
    plan: Arc<Plan>,
    list: Vec<Piece>,
    pieces: Parameters,
    gradients: Gradients,
    place: [usize; 2],
}

impl Zero {
    /// The pieces of rank `rank` of `size`.
    pub fn new(plan: Arc<Plan>, parameters: &Parameters, [rank, size]: [usize; 2]) -> Result<Zero> {
        let mut list = Vec::new();
        let mut pieces = parameters.like();
        for (bucket, entry) in plan.places() {
            let own = piece(plan.buckets[bucket].length, rank, size);
            let (start, end) = (entry.range.start.max(own.start), entry.range.end.min(own.end));
            if start >= end {
                continue;
            }
            let parameter = parameters.iter().nth(entry.id).expect("the plan is of these parameters");
            let in_parameter = start - entry.range.start..end - entry.range.start;
            let flat = parameter.var().as_tensor().flatten_all()?;
            let values = flat.narrow(0, in_parameter.start, in_parameter.len())?.copy()?;
            pieces.take(parameter, &values)?;
            list.push(Piece {
                id: entry.id,
                bucket,
                in_piece: start - own.start..end - own.start,
                in_parameter,
            });
        }
        let gradients = Gradients::new(&pieces)?;
        Ok(Zero { plan, list, pieces, gradients, place: [rank, size] })
    }

    /// Takes the gradients of a bucket's piece.
    pub fn take(&mut self, bucket: usize, values: &CpuStorage) -> Result<()> {
        let own = self.list.iter().enumerate().filter(|(_, piece)| piece.bucket == bucket);
        for_type!(self.pieces, T => {
            let values: &[T] = candle_core::WithDType::cpu_storage_as_slice(values)?;
            let mut own = own;
            own.try_for_each(|(place, piece)| self.gradients.set(place, &values[piece.in_piece.clone()]))
        })
    }

    /// Leaves out those that no rank has a gradient of.
    pub fn keep(&mut self, has: impl Fn(usize) -> bool) {
        let absent = self.list.iter().enumerate().filter(|(_, piece)| !has(piece.id));
        absent.for_each(|(place, _)| self.gradients.forget(place));
    }

    /// The gradients of the pieces, with the parameter that each is of.
    pub fn gradients(&self) -> (&Gradients, impl Iterator<Item = usize>) {
        (&self.gradients, self.list.iter().map(|piece| piece.id))
    }

    /// Multiplies the gradients.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        self.gradients.scale(factor)
    }

    /// Changes the pieces, and all parameters with them.
    pub fn step(
        &mut self,
        optimiser: &mut dyn Optimiser,
        parameters: &Parameters,
        group: &dyn Group,
        rate: f64,
    ) -> Result<()> {
        optimiser.step(&self.pieces, &self.gradients, rate)?;
        self.gradients.clear();
        let changed: Vec<Option<Tensor>> =
            self.pieces.iter().map(|piece| Some(piece.var().as_detached_tensor())).collect();
        for_type!(self.pieces, T => {
            self.gather::<T>(&changed, group, |id, values| {
                let parameter = parameters.iter().nth(id).expect("the plan is of these parameters");
                parameter.set(values)
            })
        })
    }

    /// Gathers one tensor for each piece into whole ones, and shows them one after another with their parameters.
    fn gather<T: crate::ops::real::Real>(
        &self,
        tensors: &[Option<Tensor>],
        group: &dyn Group,
        mut show: impl FnMut(usize, &[T]) -> Result<()>,
    ) -> Result<()> {
        let [rank, size] = self.place;
        let mut flat: Vec<T> = Vec::new();
        for (number, bucket) in self.plan.buckets.iter().enumerate() {
            flat.clear();
            flat.resize(bucket.length, T::zero());
            let own = piece(bucket.length, rank, size);
            let here = self.list.iter().zip(tensors).filter(|(piece, _)| piece.bucket == number);
            for (piece, tensor) in here {
                let Some(tensor) = tensor else { continue };
                let host = tensor.to_device(&Device::Cpu)?;
                flat[own.clone()][piece.in_piece.clone()].copy_from_slice(Read::of(&host)?.slice());
            }
            group.all_gather(T::numbers(&mut flat))?;
            bucket.entries.iter().try_for_each(|entry| show(entry.id, &flat[entry.range.clone()]))?;
        }
        Ok(())
    }

    /// What the optimiser remembers, put together over the ranks.
    pub fn state(
        &self,
        optimiser: &dyn Optimiser,
        parameters: &Parameters,
        group: &dyn Group,
    ) -> Result<State> {
        let of_pieces = optimiser.state(&self.pieces)?;
        let mut state = State { step: of_pieces.step, tensors: BTreeMap::new() };
        for kind in optimiser.kinds() {
            let name = |name: &str| format!("{name}.{kind}");
            let own: Vec<Option<Tensor>> =
                self.pieces.iter().map(|piece| of_pieces.tensors.get(&name(piece.name())).cloned()).collect();
            for_type!(self.pieces, T => {
                self.gather::<T>(&own, group, |id, values| {
                    let parameter = parameters.iter().nth(id).expect("the plan is of these parameters");
                    let tensor = crate::ops::tensor(values.to_vec(), parameter.var().dims())?;
                    state.tensors.insert(name(parameter.name()), tensor);
                    Ok(())
                })
            })?;
        }
        Ok(state)
    }

    /// Cuts this rank's pieces out of a state of whole parameters, and has the optimiser go on from them.
    pub fn load_state(&self, optimiser: &mut dyn Optimiser, state: &State) -> Result<()> {
        let mut cut = State { step: state.step, tensors: BTreeMap::new() };
        for kind in optimiser.kinds() {
            for (piece, parameter) in self.list.iter().zip(self.pieces.iter()) {
                let name = format!("{}.{kind}", parameter.name());
                let Some(whole) = state.tensors.get(&name) else { continue };
                let own = &piece.in_parameter;
                cut.tensors.insert(name, whole.flatten_all()?.narrow(0, own.start, own.len())?.copy()?);
            }
        }
        optimiser.load_state(&self.pieces, &cut)
    }

    /// How many numbers this rank keeps state of.
    pub fn count(&self) -> usize {
        self.pieces.counts().0
    }
}
