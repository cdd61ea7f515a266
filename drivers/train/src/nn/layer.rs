//! The layer that all models are stacks of: attention with itself, in decoders of translations with the source, and a
//! feed-forward layer, each with a norm and a sum around it.

use std::sync::Arc;

use super::attention::Attention;
use super::feed_forward::FeedForward;
use super::linear::Linear;
use super::norm::Norm;
use super::scope::Scope;
use crate::Result;
use crate::ops::attention::Mask;
use crate::ops::dropout::residual;
use crate::ops::rope::Angles;
use crate::tape::Value;

/// Where the norms are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Before each part: GPT, Llama, T5.
    Before,
    /// After each sum: BERT, and the original Transformer.
    After,
}

/// What all layers of one side are given.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Who sees whom.
    pub mask: Arc<Mask>,
    /// Who sees whom in the source.
    pub source_mask: Arc<Mask>,
    /// Angles of rotary positions.
    pub angles: Option<Angles>,
    /// Buckets of T5's relative bias.
    pub buckets: Option<Arc<[u32]>>,
}

/// One layer.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Attention with itself, and its norm.
    pub attention: (Attention, Norm),
    /// Attention with the source, and its norm.
    pub source: Option<(Attention, Norm)>,
    /// The feed-forward layer, and its norm.
    pub feed: (FeedForward, Norm),
    /// Where the norms are.
    pub order: Order,
    /// What is dropped of each part before it is added.
    pub dropout: f64,
    /// Its number in the model, for dropout.
    pub number: u32,
}

impl Layer {
    /// Computes the layer; `memory` is what the encoder made of the source.
    ///
    /// # Errors
    /// If the shapes do not go together.
    pub fn forward(
        &self,
        scope: &Scope<'_, '_>,
        x: &Value,
        memory: Option<&Value>,
        context: &Context,
    ) -> Result<Value> {
        // Six places of dropout in a layer.
        let site = |i: u32| self.number * 8 + i;
        let (attention, norm) = &self.attention;
        let mut x =
            self.part(scope, x, norm, site(1), |x| attention.with_itself(scope, x, context, site(0)))?;
        if let (Some((attention, norm)), Some(memory)) = (&self.source, memory) {
            x = self.part(scope, &x, norm, site(3), |x| {
                attention.with_source(scope, x, memory, &context.source_mask, site(2))
            })?;
        }
        let (feed, norm) = &self.feed;
        self.part(scope, &x, norm, site(5), |x| feed.forward(scope, x, site(4)))
    }

    fn part(
        &self,
        scope: &Scope<'_, '_>,
        x: &Value,
        norm: &Norm,
        site: u32,
        compute: impl FnOnce(&Value) -> Result<Value>,
    ) -> Result<Value> {
        let dropout = scope.dropout(site, self.dropout);
        match self.order {
            Order::Before => residual(scope.tape, x, &compute(&norm.forward(scope, x)?)?, dropout.as_ref()),
            Order::After => norm.forward(scope, &residual(scope.tape, x, &compute(x)?, dropout.as_ref())?),
        }
    }

    /// Its linear layers.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let source = self.source.iter_mut().flat_map(|(attention, _)| attention.linears_mut());
        self.attention.0.linears_mut().chain(source).chain(self.feed.0.linears_mut())
    }

    /// Its linear layers.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        let source = self.source.iter().flat_map(|(attention, _)| attention.linears());
        self.attention.0.linears().chain(source).chain(self.feed.0.linears())
    }
}

/// Computes a stack of layers, each as a checkpoint where `checkpoint` says so.
///
/// # Errors
/// If the shapes do not go together.
pub fn stack<'a>(
    layers: &'a [Layer],
    scope: &Scope<'_, 'a>,
    x: Value,
    memory: Option<&Value>,
    context: &Arc<Context>,
    checkpoint: bool,
) -> Result<Value> {
    let mut x = x;
    for layer in layers {
        x = if checkpoint && scope.tape.records() {
            let (later, context) = (scope.later(), context.clone());
            let inputs: Vec<&Value> = [Some(&x), memory].into_iter().flatten().collect();
            scope.tape.checkpoint(&inputs, move |tape, values| {
                layer.forward(&later(tape), &values[0], values.get(1), &context)
            })?
        } else {
            layer.forward(scope, &x, memory, context)?
        };
    }
    Ok(x)
}
