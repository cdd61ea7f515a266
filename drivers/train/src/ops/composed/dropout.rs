//! Dropout of candle's operations. The choices are made on the host, by the same counters as the kernel's, and copied
//! as one byte each; the way back has them from the way forward.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::Result;
use crate::ops::dropout::Dropout;
use crate::ops::piece_rows;
use crate::tape::{Input, Tape, Value};

/// Choices, 1 for what stays, on a device, and what that is multiplied with.
#[derive(Clone, Debug)]
pub(super) struct Choices {
    stays: Tensor,
    factor: f64,
}

impl Choices {
    /// Those of a tensor's shape, whose last dimension is `width`; `fill` writes row number i of them.
    pub fn new(
        dropout: &Dropout,
        shape: &[usize],
        like: &Tensor,
        fill: impl Fn(usize, &mut [u8]) + Sync,
    ) -> Result<Self> {
        let width = shape.last().copied().unwrap_or_default().max(1);
        let mut stays = vec![0u8; shape.iter().product()];
        let rows = piece_rows(width);
        stays.par_chunks_mut(rows * width).enumerate().for_each(|(piece, part)| {
            part.chunks_mut(width).enumerate().for_each(|(i, row)| fill(piece * rows + i, row));
        });
        Ok(Choices { stays: Tensor::from_vec(stays, shape, like.device())?, factor: dropout.factor() })
    }

    /// The numbers that stay, multiplied, and zeros.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let factors = self.stays.to_dtype(x.dtype())?.affine(self.factor, 0.0)?;
        Ok((x * factors)?)
    }
}

fn choices(dropout: &Dropout, x: &Tensor) -> Result<Choices> {
    let length = x.dims()[1];
    Choices::new(dropout, x.dims(), x, |place, row| dropout.stays(place / length, place % length, 0, row))
}

pub(in crate::ops) fn dropout(tape: &Tape<'_>, x: &Value, dropout: &Dropout) -> Result<Value> {
    let choices = choices(dropout, &x.tensor)?;
    let y = choices.apply(&x.tensor)?;
    let input = Input::from(x);
    Ok(tape.record(y, &[x], move |back, grad| back.give(&input, choices.apply(&grad.tensor)?)))
}

pub(in crate::ops) fn residual(
    tape: &Tape<'_>,
    x: &Value,
    y: &Value,
    dropout: Option<&Dropout>,
) -> Result<Value> {
    let choices = dropout.map(|dropout| choices(dropout, &y.tensor)).transpose()?;
    let sum = match &choices {
        Some(choices) => (&x.tensor + choices.apply(&y.tensor)?)?,
        None => (&x.tensor + &y.tensor)?,
    };
    let (x_in, y_in) = (Input::from(x), Input::from(y));
    Ok(tape.record(sum, &[x, y], move |back, grad| {
        match &choices {
            Some(choices) if y_in.wanted() => back.give(&y_in, choices.apply(&grad.tensor)?)?,
            _ => back.share(&y_in, grad.tensor.clone())?,
        }
        back.share(&x_in, grad.tensor)
    }))
}
