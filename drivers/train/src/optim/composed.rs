//! One step of one parameter, of candle's operations: for parameters that do not lie in the CPU's memory. The order of
//! operations is the kernels'.

use candle_core::Tensor;

use super::adam::Factors;
use super::update::Buffers;
use crate::Result;
use crate::parameters::Parameter;

/// Adam or AdamW.
pub(super) fn adam(
    parameter: &Parameter,
    gradient: &Tensor,
    place: usize,
    [means, squares]: [&mut Buffers; 2],
    f: Factors<f64>,
) -> Result<()> {
    let value = parameter.var().as_detached_tensor();
    let g = pulled(gradient, &value, f.l2)?;
    let mean = weighed([&means.tensor(place, parameter)?, &g], [f.betas[0], f.rest[0]])?;
    let square = weighed([&squares.tensor(place, parameter)?, &g.sqr()?], [f.betas[1], f.rest[1]])?;
    let change = (mean.affine(f.size, 0.0)? / square.sqrt()?.affine(f.root, f.epsilon)?)?;
    parameter.var().set(&(value.affine(f.keep, 0.0)? - change)?)?;
    means.put(place, mean);
    squares.put(place, square);
    Ok(())
}

/// Descent, with momentum where it is above 0.
pub(super) fn sgd(
    parameter: &Parameter,
    gradient: &Tensor,
    place: usize,
    (momenta, momentum, nesterov): (&mut Buffers, f64, bool),
    [rate, decay]: [f64; 2],
) -> Result<()> {
    let value = parameter.var().as_detached_tensor();
    let g = pulled(gradient, &value, decay)?;
    let change = match momentum > 0.0 {
        false => g,
        true => {
            let gathered = weighed([&momenta.tensor(place, parameter)?, &g], [momentum, 1.0])?;
            momenta.put(place, gathered.clone());
            if nesterov { weighed([&gathered, &g], [momentum, 1.0])? } else { gathered }
        }
    };
    Ok(parameter.var().set(&(value - change.affine(rate, 0.0)?)?)?)
}

/// A gradient with the pull of its weights towards zero.
fn pulled(gradient: &Tensor, value: &Tensor, by: f64) -> Result<Tensor> {
    if by == 0.0 { Ok(gradient.clone()) } else { weighed([value, gradient], [by, 1.0]) }
}

/// The sum of two tensors, each times a factor.
fn weighed([a, b]: [&Tensor; 2], [of_a, of_b]: [f64; 2]) -> Result<Tensor> {
    Ok((a.affine(of_a, 0.0)? + b.affine(of_b, 0.0)?)?)
}
