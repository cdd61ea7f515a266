//! Linear layers of candle's products.

use candle_core::Tensor;

use super::{as_matrix, product};
use crate::Result;
use crate::ops::linear::Layout;
use crate::tape::{Input, Tape, Value};

pub(in crate::ops) fn linear(
    tape: &Tape<'_>,
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    layout: Layout,
    dims: &[usize],
) -> Result<Value> {
    let precision = tape.precision();
    let mut y = product(precision, &as_matrix(&x.tensor)?, &matrix(&weight.tensor, layout)?)?;
    if let Some(bias) = bias {
        y = y.broadcast_add(&bias.tensor)?;
    }
    let (x_in, w_in, b_in) = (Input::from(x), Input::from(weight), bias.map(Input::from));
    let (x_kept, w_kept) = (x.tensor.clone(), weight.tensor.clone());
    let inputs: Vec<&Value> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
    Ok(tape.record(y.reshape(dims)?, &inputs, move |back, grad| {
        let g = as_matrix(&grad.tensor)?;
        if let Some(bias) = b_in.filter(|bias| bias.wanted()) {
            back.give(&bias, g.sum(0)?)?;
        }
        if w_in.wanted() {
            let x = as_matrix(&x_kept)?;
            let gradient = match layout {
                Layout::OutIn => product(precision, &g.t()?, &x)?,
                Layout::InOut => product(precision, &x.t()?, &g)?,
            };
            back.give(&w_in, gradient)?;
        }
        if x_in.wanted() {
            let dx = product(precision, &g, &matrix(&w_kept, layout)?.t()?)?;
            back.give(&x_in, dx.reshape(x_kept.dims())?)?;
        }
        Ok(())
    }))
}

/// The weight as a matrix of inputs × outputs.
fn matrix(weight: &Tensor, layout: Layout) -> Result<Tensor> {
    Ok(match layout {
        Layout::OutIn => weight.t()?,
        Layout::InOut => weight.clone(),
    })
}
