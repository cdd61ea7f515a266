//! Finds where numbers stopped being numbers.

use crate::gradients::Gradients;
use crate::parameters::Parameters;

/// The first parameter, in the order of the model, that is not finite, or else the first whose gradient is not.
pub fn blame(parameters: &Parameters, gradients: &Gradients) -> String {
    for parameter in parameters.iter() {
        if !is_finite(parameter.var().as_tensor()) {
            return format!("the parameter `{}`", parameter.name());
        }
    }
    for (number, parameter) in parameters.iter().enumerate() {
        if gradients.tensor(number).ok().flatten().is_some_and(|gradient| !is_finite(&gradient)) {
            return format!("the gradient of `{}`; all parameters were finite", parameter.name());
        }
    }
    "the loss itself; parameters and gradients were finite".into()
}

fn is_finite(tensor: &candle_core::Tensor) -> bool {
    let numbers =
        tensor.flatten_all().and_then(|flat| flat.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>());
    numbers.is_ok_and(|numbers| numbers.iter().all(|number| number.is_finite()))
}
