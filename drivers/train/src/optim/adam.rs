//! Adam (Kingma and Ba, 2014), and AdamW (Loshchilov and Hutter, 2017), whose decay of weights is no gradient. One
//! pass over memory for each parameter, on all threads. The order of operations is PyTorch's.

use rayon::prelude::*;

use super::update::{Buffers, PIECE, check, update};
use super::{Optimiser, State, composed};
use crate::gradients::Gradients;
use crate::ops::real::Real;
use crate::ops::{Kernels, for_type};
use crate::parameters::Parameters;
use crate::{Error, Result};

/// Adam or AdamW.
#[derive(Debug)]
pub struct Adam {
    /// How much of the means of gradients and of their squares is kept in a step.
    pub betas: [f64; 2],
    /// Added to the root of the mean square.
    pub epsilon: f64,
    /// How strongly parameters that [decay](crate::Parameter::decay) are pulled towards zero.
    pub weight_decay: f64,
    /// Whether decay changes weights directly (AdamW) or is part of the gradient (Adam).
    pub decoupled: bool,
    step: u64,
    means: Buffers,
    squares: Buffers,
}

impl Adam {
    /// AdamW.
    pub fn decoupled(betas: [f64; 2], epsilon: f64, weight_decay: f64) -> Self {
        let (means, squares) = (Buffers::default(), Buffers::default());
        Adam { betas, epsilon, weight_decay, decoupled: true, step: 0, means, squares }
    }

    /// Adam.
    pub fn new(betas: [f64; 2], epsilon: f64, weight_decay: f64) -> Self {
        Adam { decoupled: false, ..Adam::decoupled(betas, epsilon, weight_decay) }
    }
}

impl Default for Adam {
    /// AdamW with PyTorch's defaults.
    fn default() -> Self {
        Adam::decoupled([0.9, 0.999], 1e-8, 0.01)
    }
}

/// The factors of one step, for one parameter.
#[derive(Clone, Copy)]
pub(super) struct Factors<T> {
    pub keep: T,
    pub l2: T,
    pub betas: [T; 2],
    pub rest: [T; 2],
    /// The rate over the correction of the mean, which is too small in the first steps.
    pub size: T,
    /// One over the root of the correction of the squares.
    pub root: T,
    pub epsilon: T,
}

impl Factors<f64> {
    /// The same as the numbers that parameters have.
    fn of<T: Real>(self) -> Factors<T> {
        Factors {
            keep: T::of(self.keep),
            l2: T::of(self.l2),
            betas: self.betas.map(T::of),
            rest: self.rest.map(T::of),
            size: T::of(self.size),
            root: T::of(self.root),
            epsilon: T::of(self.epsilon),
        }
    }
}

impl Optimiser for Adam {
    fn step(&mut self, parameters: &Parameters, gradients: &Gradients, rate: f64) -> Result<()> {
        self.step += 1;
        for (place, parameter) in parameters.iter().enumerate() {
            if !parameter.trainable || !gradients.has(place) {
                continue;
            }
            let (rate, decay) = (rate * parameter.rate, parameter.pulled(self.weight_decay));
            let betas = parameter.betas.unwrap_or(self.betas);
            let corrections = betas.map(|beta| 1.0 - beta.powf(self.step as f64));
            let factors = Factors {
                keep: if self.decoupled { 1.0 - rate * decay } else { 1.0 },
                l2: if self.decoupled { 0.0 } else { decay },
                betas,
                rest: betas.map(|beta| 1.0 - beta),
                size: rate / corrections[0],
                root: corrections[1].sqrt().recip(),
                epsilon: self.epsilon,
            };
            if parameters.kernels() == Kernels::Composed {
                let Some(gradient) = gradients.tensor(place)? else { continue };
                composed::adam(parameter, &gradient, place, [&mut self.means, &mut self.squares], factors)?;
                continue;
            }
            for_type!(parameter.var(), T => {
                let factors = factors.of::<T>();
                let gradient = gradients.slice::<T>(place).unwrap_or_default();
                let (mean, square) = (self.means.get::<T>(place, parameter), self.squares.get::<T>(place, parameter));
                update(parameter, |values| change(values, gradient, mean, square, factors))?;
                Ok::<_, Error>(())
            })?;
        }
        Ok(())
    }

    fn kinds(&self) -> &'static [&'static str] {
        &["mean", "square"]
    }

    fn state(&self, parameters: &Parameters) -> Result<State> {
        let mut state = State { step: self.step, ..State::default() };
        self.means.save(parameters, "mean", &mut state)?;
        self.squares.save(parameters, "square", &mut state)?;
        Ok(state)
    }

    fn load_state(&mut self, parameters: &Parameters, state: &State) -> Result<()> {
        check(parameters, self.kinds(), state)?;
        let means = Buffers::load(parameters, "mean", state)?;
        self.squares = Buffers::load(parameters, "square", state)?;
        (self.means, self.step) = (means, state.step);
        Ok(())
    }
}

fn change<T: Real>(values: &mut [T], gradient: &[T], mean: &mut [T], square: &mut [T], f: Factors<T>) {
    let state = mean.par_chunks_mut(PIECE).zip(square.par_chunks_mut(PIECE));
    let pieces = values.par_chunks_mut(PIECE).zip(gradient.par_chunks(PIECE)).zip(state);
    pieces.for_each(|((values, gradient), (mean, square))| {
        let numbers = values.iter_mut().zip(gradient).zip(mean.iter_mut().zip(square));
        for ((value, g), (mean, square)) in numbers {
            let g = *g + f.l2 * *value;
            *mean = f.betas[0] * *mean + f.rest[0] * g;
            *square = f.betas[1] * *square + f.rest[1] * g * g;
            *value = f.keep * *value - f.size * *mean / (square.sqrt() * f.root + f.epsilon);
        }
    });
}
