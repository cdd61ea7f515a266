//! Norms.

use super::scope::Scope;
use crate::Result;
use crate::ops::norm::{layer_norm, rms_norm};
use crate::parameters::{Id, Init, Parameters};
use crate::tape::Value;

/// LayerNorm, or RMSNorm where there is no bias.
#[derive(Clone, Debug)]
pub struct Norm {
    weight: Id,
    bias: Option<Id>,
    epsilon: f64,
}

impl Norm {
    /// Adds `NAME.weight` and `NAME.bias`.
    ///
    /// # Errors
    /// If candle cannot make the tensors.
    pub fn layer(parameters: &mut Parameters, name: &str, width: usize, epsilon: f64) -> Result<Self> {
        let weight = parameters.add(format!("{name}.weight"), &[width], Init::Ones)?;
        let bias = Some(parameters.add(format!("{name}.bias"), &[width], Init::Zeros)?);
        Ok(Norm { weight, bias, epsilon })
    }

    /// Adds `NAME.weight`: a norm that takes no mean away.
    ///
    /// # Errors
    /// If candle cannot make the tensor.
    pub fn rms(parameters: &mut Parameters, name: &str, width: usize, epsilon: f64) -> Result<Self> {
        let weight = parameters.add(format!("{name}.weight"), &[width], Init::Ones)?;
        Ok(Norm { weight, bias: None, epsilon })
    }

    /// Computes the layer.
    ///
    /// # Errors
    /// If the shapes do not go together.
    pub fn forward(&self, scope: &Scope<'_, '_>, x: &Value) -> Result<Value> {
        let weight = scope.value(self.weight);
        match self.bias {
            Some(bias) => layer_norm(scope.tape, x, &weight, Some(&scope.value(bias)), self.epsilon),
            None => rms_norm(scope.tape, x, &weight, self.epsilon),
        }
    }
}
