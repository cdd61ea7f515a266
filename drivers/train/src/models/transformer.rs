//! The encoder-decoder Transformer: an encoder that reads the source, and a decoder that sees it.

use std::sync::Arc;

use candle_core::Tensor;

use super::decoder::{adapt, check_next, language_loss, last};
use super::{ModelConfig, side, t5};
use crate::model::{Model, Pass, Recorded};
use crate::nn::{Cache, Context, Layer, Linear, Lora, Norm, Scope, layer::stack};
use crate::ops::attention::Mask;
use crate::ops::embedding::embedding;
use crate::ops::linear::{Layout, linear};
use crate::ops::pool::scaled;
use crate::parameters::{Id, Parameters};
use crate::tape::{Tape, Value};
use crate::{Batch, Error, Result, Side};

/// The encoder or the decoder.
#[derive(Debug)]
pub(super) struct Stack {
    pub layers: Vec<Layer>,
    /// The norm after the last layer, where norms come before.
    pub norm: Option<Norm>,
    /// The first of its two places of dropout outside of layers.
    pub site: u32,
}

/// An encoder-decoder of either form.
#[derive(Debug)]
pub struct Transformer {
    pub(super) config: ModelConfig,
    pub(super) parameters: Parameters,
    /// The tokens' table, of both sides.
    pub(super) tokens: Id,
    /// What rows of the tokens' table are multiplied with.
    pub(super) scale: f64,
    /// Sinusoidal positions.
    pub(super) positions: Option<Tensor>,
    /// How many buckets T5's relative bias has, and from which distance on all have the last.
    pub(super) buckets: Option<[usize; 2]>,
    pub(super) dropout: f64,
    pub(super) encoder: Stack,
    pub(super) decoder: Stack,
    /// The output layer's weight, its bias, and what is multiplied before it.
    pub(super) head: (Id, Option<Id>, f64),
}

impl Transformer {
    fn embed(
        &self,
        scope: &Scope<'_, '_>,
        ids: Arc<[u32]>,
        at: Arc<[u32]>,
        dims: [usize; 2],
    ) -> Result<Value> {
        let tokens = scope.value(self.tokens);
        match self.positions.clone().map(Value::constant) {
            Some(table) => embedding(scope.tape, &[(&tokens, ids, self.scale), (&table, at, 1.0)], dims),
            None => embedding(scope.tape, &[(&tokens, ids, self.scale)], dims),
        }
    }

    fn run<'a>(
        &self,
        scope: &Scope<'_, 'a>,
        which: &'a Stack,
        x: &Value,
        memory: Option<&Value>,
        context: Context,
        checkpoint: bool,
    ) -> Result<Value> {
        let x = scope.drop(x, which.site, self.dropout)?;
        let x = stack(&which.layers, scope, x, memory, &Arc::new(context), checkpoint)?;
        let Some(norm) = &which.norm else { return Ok(x) };
        scope.drop(&norm.forward(scope, &x)?, which.site + 1, self.dropout)
    }

    fn buckets(&self, both: bool, offset: usize, queries: usize, keys: usize) -> Option<Arc<[u32]>> {
        let [buckets, distance] = self.buckets?;
        Some(t5::buckets(both, offset, [queries, keys], buckets, distance))
    }

    fn encode<'a>(&'a self, scope: &Scope<'_, 'a>, source: &Side, checkpoint: bool) -> Result<Value> {
        let length = source.length;
        let dims = [source.rows(), length];
        let x = self.embed(scope, side::tokens(source), side::positions(source), dims)?;
        let buckets = self.buckets(true, 0, length, length);
        let context = Context { mask: side::mask(source, false), buckets, ..Context::default() };
        self.run(scope, &self.encoder, &x, None, context, checkpoint)
    }

    fn hidden<'a>(&'a self, scope: &Scope<'_, 'a>, batch: &Batch, pass: &Pass) -> Result<Value> {
        batch.check(self.config.vocabulary(), self.config.positions())?;
        let Some(source) = &batch.source else {
            return Err(Error::Batch("an encoder-decoder needs a source".into()));
        };
        let memory = self.encode(scope, source, pass.checkpoint)?;
        let (input, length) = (&batch.input, batch.input.length);
        let x = self.embed(scope, side::tokens(input), side::positions(input), [batch.rows(), length])?;
        let context = Context {
            mask: side::mask(input, true),
            source_mask: side::mask_between(input, source),
            buckets: self.buckets(false, 0, length, length),
            angles: None,
        };
        let x = self.run(scope, &self.decoder, &x, Some(&memory), context, pass.checkpoint)?;
        self.before_head(scope, &x)
    }

    fn before_head(&self, scope: &Scope<'_, '_>, x: &Value) -> Result<Value> {
        if self.head.2 == 1.0 { Ok(x.clone()) } else { scaled(scope.tape, x, self.head.2) }
    }

    /// The output layer's weight and bias.
    fn head(&self, scope: &Scope<'_, '_>) -> Result<(Value, Option<Value>)> {
        let bias = self.head.1.map(|id| {
            // Hugging Face keeps it as one row, and does not train it.
            Ok::<_, Error>(Value::constant(self.parameters.at(id).var().as_detached_tensor().flatten_all()?))
        });
        Ok((scope.value(self.head.0), bias.transpose()?))
    }
}

impl Model for Transformer {
    fn config(&self) -> ModelConfig {
        self.config.clone()
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    fn linears(&self) -> Vec<&Linear> {
        self.encoder.layers.iter().chain(&self.decoder.layers).flat_map(Layer::linears).collect()
    }

    fn adapt(&mut self, lora: Lora, which: &dyn Fn(&str) -> bool) -> Result<usize> {
        let layers = self.encoder.layers.iter_mut().chain(&mut self.decoder.layers);
        adapt(&mut self.parameters, layers.flat_map(Layer::linears_mut), lora, which)
    }

    fn logits(&self, batch: &Batch, pass: &Pass) -> Result<Tensor> {
        let tape = Tape::idle();
        let scope = Scope::new(&tape, &self.parameters, batch, pass);
        let x = self.hidden(&scope, batch, pass)?;
        let (weight, bias) = self.head(&scope)?;
        Ok(linear(&tape, &x, &weight, bias.as_ref(), Layout::OutIn)?.tensor().clone())
    }

    fn record<'a>(&'a self, tape: &Tape<'a>, batch: &'a Batch, pass: &'a Pass) -> Result<Recorded> {
        let scope = Scope::new(tape, &self.parameters, batch, pass);
        let x = self.hidden(&scope, batch, pass)?;
        let (weight, bias) = self.head(&scope)?;
        language_loss(tape, x, &weight, bias.as_ref(), batch, pass)
    }

    fn begin(&self, source: Option<&[u32]>) -> Result<Cache> {
        let Some(source) = source.filter(|s| !s.is_empty()) else {
            return Err(Error::Batch("an encoder-decoder needs a source".into()));
        };
        check_next(source, 0, &self.config)?;
        let tape = Tape::idle();
        let scope = Scope::generating(&tape, &self.parameters, None);
        let memory = self.encode(&scope, &Side::new(source.to_vec(), source.len()), false)?;
        Ok(Cache::with_memory(memory.tensor().clone()))
    }

    fn next(&self, tokens: &[u32], cache: &Cache) -> Result<Tensor> {
        let (tape, offset) = (Tape::idle(), cache.length());
        let scope = Scope::generating(&tape, &self.parameters, Some(cache));
        check_next(tokens, offset, &self.config)?;
        let Some(memory) = cache.memory.clone().map(Value::constant) else {
            return Err(Error::Batch("an encoder-decoder needs a source; begin with one".into()));
        };
        let at = (offset..offset + tokens.len()).map(|p| p as u32).collect();
        let x = self.embed(&scope, tokens.into(), at, [1, tokens.len()])?;
        let context = Context {
            mask: Arc::new(Mask { causal: true, offset, ..Mask::default() }),
            buckets: self.buckets(false, offset, tokens.len(), offset + tokens.len()),
            ..Context::default()
        };
        let x = self.run(&scope, &self.decoder, &x, Some(&memory), context, false)?;
        cache.advance(tokens.len());
        let (weight, bias) = self.head(&scope)?;
        let x = self.before_head(&scope, &last(&x)?)?;
        Ok(linear(&tape, &x, &weight, bias.as_ref(), Layout::OutIn)?.tensor().flatten_all()?)
    }
}
