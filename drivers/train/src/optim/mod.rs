//! Optimisers: how gradients change parameters; and schedules of their rate.

mod adam;
mod composed;
mod schedule;
mod sgd;
#[cfg(test)]
mod tests;
mod update;

use std::collections::BTreeMap;

use candle_core::Tensor;

pub use adam::Adam;
pub use schedule::{Decay, Schedule};
pub use sgd::Sgd;

use crate::Result;
use crate::gradients::Gradients;
use crate::parameters::Parameters;

/// What an optimiser remembers between steps; a checkpoint keeps it.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Steps so far.
    pub step: u64,
    /// Tensors by name, `NAME.KIND` such as `wte.weight.mean`, each of the shape of the parameter NAME.
    pub tensors: BTreeMap<String, Tensor>,
}

/// A rule that changes parameters by their gradients.
pub trait Optimiser: Send {
    /// Changes the parameters that have a gradient, each by `rate` times its own [rate](crate::Parameter::rate).
    ///
    /// # Errors
    /// If the gradients are not those of the parameters.
    fn step(&mut self, parameters: &Parameters, gradients: &Gradients, rate: f64) -> Result<()>;

    /// The kinds of tensors that it remembers.
    fn kinds(&self) -> &'static [&'static str];

    /// A copy of what it remembers.
    ///
    /// # Errors
    /// If candle cannot make the tensors.
    fn state(&self, parameters: &Parameters) -> Result<State>;

    /// Goes on from what another one of its kind remembered.
    ///
    /// # Errors
    /// If the state belongs to other parameters; nothing is changed then.
    fn load_state(&mut self, parameters: &Parameters, state: &State) -> Result<()>;
}
