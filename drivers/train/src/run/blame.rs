//! Finds where numbers stopped being numbers.

use rayon::prelude::*;

use crate::gradients::Gradients;
use crate::ops::for_type;
use crate::ops::read::Read;
use crate::ops::real::Real;
use crate::parameters::Parameters;

/// Numbers that a thread looks at at a time.
const PIECE: usize = 1 << 14;

/// The first parameter, in the order of the model, that is not finite, or else the first whose gradient is not.
pub fn blame(parameters: &Parameters, gradients: Option<&Gradients>) -> String {
    if let Some(name) = not_finite(parameters) {
        return format!("the parameter `{name}`");
    }
    let Some(gradients) = gradients else { return "the loss itself; parameters were finite".into() };
    for (number, parameter) in parameters.iter().enumerate() {
        if gradients.tensor(number).ok().flatten().is_some_and(|gradient| !is_finite(&gradient)) {
            return format!("the gradient of `{}`; all parameters were finite", parameter.name());
        }
    }
    "the loss itself; parameters and gradients were finite".into()
}

/// The first parameter, in the order of the model, that is not finite.
pub fn not_finite(parameters: &Parameters) -> Option<&str> {
    let found = parameters.iter().find(|parameter| !is_finite(parameter.var().as_tensor()));
    found.map(|parameter| parameter.name())
}

fn is_finite(tensor: &candle_core::Tensor) -> bool {
    let Ok(tensor) = tensor.to_device(&candle_core::Device::Cpu) else { return false };
    let finite = for_type!(tensor, T => {
        let all = |numbers: &[T]| numbers.iter().all(|number| number.wide().is_finite());
        Read::of(&tensor).map(|read| read.slice::<T>().par_chunks(PIECE).all(all))
    });
    finite.unwrap_or(false)
}
