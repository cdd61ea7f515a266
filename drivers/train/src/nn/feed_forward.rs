//! Feed-forward layers: two products with a function between, or three with a gate.

use super::linear::Linear;
use super::scope::Scope;
use crate::Result;
use crate::models::config::Activation;
use crate::ops::activation::{activation, gated};
use crate::tape::Value;

/// A feed-forward layer.
#[derive(Clone, Debug)]
pub struct FeedForward {
    /// The product whose result goes through the function.
    pub up: Linear,
    /// The product that the function's result is multiplied with, where there is a gate.
    pub gate: Option<Linear>,
    /// The product back to the model's width.
    pub down: Linear,
    /// The width between the products, on all tensor ranks together.
    pub inner: usize,
    /// The function.
    pub activation: Activation,
    /// What is dropped before the last product.
    pub dropout: f64,
}

impl FeedForward {
    /// Computes the layer.
    ///
    /// # Errors
    /// If the shapes do not go together.
    pub fn forward(&self, scope: &Scope<'_, '_>, x: &Value, site: u32) -> Result<Value> {
        let x = &scope.enter(x)?;
        let up = self.up.forward(scope, x)?;
        let inner = match &self.gate {
            Some(gate) => gated(scope.tape, &up, &gate.forward(scope, x)?, self.activation)?,
            None => activation(scope.tape, &up, self.activation)?,
        };
        let first = scope.parameters.mesh().share(self.inner).start;
        self.down.forward(scope, &scope.drop_part(&inner, site, self.dropout, first)?)
    }

    /// Its linear layers.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        [Some(&mut self.up), self.gate.as_mut(), Some(&mut self.down)].into_iter().flatten()
    }

    /// Its linear layers.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        [Some(&self.up), self.gate.as_ref(), Some(&self.down)].into_iter().flatten()
    }
}
