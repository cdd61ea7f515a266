//! Stochastic gradient descent, with momentum or Nesterov's.

use rayon::prelude::*;

use super::update::{Buffers, PIECE, check, update};
use super::{Optimiser, State, composed};
use crate::gradients::Gradients;
use crate::ops::real::Real;
use crate::ops::{Kernels, for_type};
use crate::parameters::Parameters;
use crate::{Error, Result};

/// Stochastic gradient descent. The order of operations is PyTorch's.
#[derive(Debug, Default)]
pub struct Sgd {
    /// How much of the last step's change goes into the next; 0 for none.
    pub momentum: f64,
    /// Whether the gradient is looked at where momentum leads.
    pub nesterov: bool,
    /// How strongly parameters that [decay](crate::Parameter::decay) are pulled towards zero.
    pub weight_decay: f64,
    step: u64,
    momenta: Buffers,
}

impl Sgd {
    /// Descent with momentum, or without if it is 0.
    pub fn new(momentum: f64, nesterov: bool, weight_decay: f64) -> Self {
        Sgd { momentum, nesterov, weight_decay, ..Sgd::default() }
    }
}

impl Optimiser for Sgd {
    fn step(&mut self, parameters: &Parameters, gradients: &Gradients, rate: f64) -> Result<()> {
        self.step += 1;
        for (place, parameter) in parameters.iter().enumerate() {
            if !parameter.trainable || !gradients.has(place) {
                continue;
            }
            let (rate, decay) = (rate * parameter.rate, parameter.pulled(self.weight_decay));
            if parameters.kernels() == Kernels::Composed {
                let Some(gradient) = gradients.tensor(place)? else { continue };
                let momentum = (&mut self.momenta, self.momentum, self.nesterov);
                composed::sgd(parameter, &gradient, place, momentum, [rate, decay])?;
                continue;
            }
            for_type!(parameter.var(), T => {
                let gradient = gradients.slice::<T>(place).unwrap_or_default();
                let (rate, decay, momentum) = (T::of(rate), T::of(decay), T::of(self.momentum));
                if self.momentum == 0.0 {
                    update(parameter, |values: &mut [T]| {
                        let pieces = values.par_chunks_mut(PIECE).zip(gradient.par_chunks(PIECE));
                        pieces.for_each(|(values, gradient)| {
                            let numbers = values.iter_mut().zip(gradient);
                            numbers.for_each(|(value, g)| *value -= rate * (*g + decay * *value));
                        });
                    })?;
                } else {
                    let (momenta, nesterov) = (self.momenta.get::<T>(place, parameter), self.nesterov);
                    update(parameter, |values: &mut [T]| {
                        let pieces = values.par_chunks_mut(PIECE).zip(gradient.par_chunks(PIECE));
                        pieces.zip(momenta.par_chunks_mut(PIECE)).for_each(|((values, gradient), momenta)| {
                            for ((value, g), m) in values.iter_mut().zip(gradient).zip(momenta) {
                                let g = *g + decay * *value;
                                *m = momentum * *m + g;
                                *value -= rate * if nesterov { g + momentum * *m } else { *m };
                            }
                        });
                    })?;
                }
                Ok::<_, Error>(())
            })?;
        }
        Ok(())
    }

    fn kinds(&self) -> &'static [&'static str] {
        &["momentum"]
    }

    fn state(&self, parameters: &Parameters) -> Result<State> {
        let mut state = State { step: self.step, ..State::default() };
        self.momenta.save(parameters, "momentum", &mut state)?;
        Ok(state)
    }

    fn load_state(&mut self, parameters: &Parameters, state: &State) -> Result<()> {
        check(parameters, self.kinds(), state)?;
        self.momenta = Buffers::load(parameters, "momentum", state)?;
        self.step = state.step;
        Ok(())
    }
}
