//! The encoder-decoder Transformer: an encoder that reads the source, and a decoder that sees it.

use std::sync::Arc;

use candle_core::Tensor;

use super::decoder::{adapt, check_next, last};
use super::head::{language_loss, logits};
use super::{ModelConfig, side, t5};
use crate::model::{Answered, Model, Pass, Passed};
use crate::nn::{Cache, Context, Layer, Linear, Lora, Norm, Scope, layer::stack};
use crate::ops::attention::Mask;
use crate::ops::pool::scaled;
use crate::parameters::{Id, Parameters};
use crate::tape::{Tape, Value};
use crate::{Batch, Error, Result, Side};

/// The encoder or the decoder.
#[derive(Debug)]
pub(super) struct Stack {
    /// Those of this stage of a pipeline.
    pub layers: Vec<Layer>,
    /// The norm after the last layer, where norms come before, on the stage that has that layer.
    pub norm: Option<Norm>,
    /// Whether this stage has the side's first layer, and the last.
    pub ends: [bool; 2],
    /// The first of its two places of dropout outside of layers.
    pub site: u32,
}

/// An encoder-decoder of either form.
#[derive(Debug)]
pub struct Transformer {
    pub(super) config: ModelConfig,
    pub(super) parameters: Parameters,
    /// The tokens' table, of both sides, on the stages where one begins.
    pub(super) tokens: Option<Id>,
    /// What rows of the tokens' table are multiplied with.
    pub(super) scale: f64,
    /// Sinusoidal positions.
    pub(super) positions: Option<Tensor>,
    /// How many buckets T5's relative bias has, and from which distance on all have the last.
    pub(super) buckets: Option<[usize; 2]>,
    pub(super) dropout: f64,
    pub(super) encoder: Stack,
    pub(super) decoder: Stack,
    /// On the last stage the output layer's weight, its bias, and what is multiplied before it.
    pub(super) head: Option<(Id, Option<Id>, f64)>,
}

/// Which of an encoder's and of a decoder's layers a stage of a pipeline has, and whether they are the first and the
/// last of their side: stages divide all layers evenly.
pub(super) fn stages(parameters: &Parameters, encoder: usize, decoder: usize) -> Result<[Share; 2]> {
    let own = parameters.stage(encoder + decoder)?;
    let cut = |first: usize, count: usize| {
        let layers =
            own.start.clamp(first, first + count) - first..own.end.clamp(first, first + count) - first;
        let ends = [!layers.is_empty() && layers.start == 0, !layers.is_empty() && layers.end == count];
        Share { layers, ends }
    };
    Ok([cut(0, encoder), cut(encoder, decoder)])
}

/// A stage's layers of one side.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub layers: std::ops::Range<usize>,
    pub ends: [bool; 2],
}

impl Transformer {
    fn embed(
        &self,
        scope: &Scope<'_, '_>,
        ids: Arc<[u32]>,
        at: Arc<[u32]>,
        dims: [usize; 2],
    ) -> Result<Value> {
        let table = self.positions.clone().map(Value::constant);
        let positions: Vec<_> = table.iter().map(|table| (table, at.clone(), 1.0)).collect();
        let tokens = self.tokens.ok_or_else(|| Error::stage("embedding"))?;
        scope.embed(tokens, (ids, self.scale), &positions, dims)
    }

    fn run<'a>(
        &self,
        scope: &Scope<'_, 'a>,
        which: &'a Stack,
        x: Value,
        memory: Option<&Value>,
        context: Context,
        checkpoint: bool,
    ) -> Result<Value> {
        let x = stack(&which.layers, scope, x, memory, &Arc::new(context), checkpoint)?;
        let Some(norm) = &which.norm else { return Ok(x) };
        scope.drop(&norm.forward(scope, &x)?, which.site + 1, self.dropout)
    }

    fn buckets(&self, both: bool, offset: usize, queries: usize, keys: usize) -> Option<Arc<[u32]>> {
        let [buckets, distance] = self.buckets?;
        Some(t5::buckets(both, offset, [queries, keys], buckets, distance))
    }

    /// A side's tokens, as what its first layer reads.
    fn enter(&self, scope: &Scope<'_, '_>, which: &Stack, side: &Side) -> Result<Value> {
        let dims = [side.rows(), side.length];
        let x = self.embed(scope, side::tokens(side), side::positions(side), dims)?;
        scope.drop(&x, which.site, self.dropout)
    }

    fn encode<'a>(
        &'a self,
        scope: &Scope<'_, 'a>,
        source: &Side,
        checkpoint: bool,
        from: Option<&Value>,
    ) -> Result<Value> {
        let length = source.length;
        let x = match from {
            Some(x) => x.clone(),
            None => self.enter(scope, &self.encoder, source)?,
        };
        let buckets = self.buckets(true, 0, length, length);
        let context = Context { mask: side::mask(source, false), buckets, ..Context::default() };
        self.run(scope, &self.encoder, x, None, context, checkpoint)
    }

    /// This stage's layers, from what the stage before has passed on, or from the tokens: what the encoder has so far,
    /// and where the decoder has begun, what that has.
    fn layers<'a>(
        &'a self,
        scope: &Scope<'_, 'a>,
        batch: &Batch,
        pass: &Pass,
        from: &[Value],
    ) -> Result<Vec<Value>> {
        batch.check(self.config.vocabulary(), self.config.positions())?;
        let Some(source) = &batch.source else {
            return Err(Error::Batch("an encoder-decoder needs a source".into()));
        };
        let memory = match from.first() {
            Some(memory) if self.encoder.layers.is_empty() => memory.clone(),
            begun => self.encode(scope, source, pass.checkpoint, begun)?,
        };
        let (input, length) = (&batch.input, batch.input.length);
        let x = match from.get(1) {
            Some(x) => x.clone(),
            None if self.decoder.layers.is_empty() => return Ok(vec![memory]),
            None => self.enter(scope, &self.decoder, input)?,
        };
        let context = Context {
            mask: side::mask(input, true),
            source_mask: side::mask_between(input, source),
            buckets: self.buckets(false, 0, length, length),
            angles: None,
        };
        let x = self.run(scope, &self.decoder, x, Some(&memory), context, pass.checkpoint)?;
        Ok(vec![memory, x])
    }

    /// What the output layer reads, its weight and its bias.
    fn head(&self, scope: &Scope<'_, '_>, x: &Value) -> Result<(Value, Id, Option<Value>)> {
        let (weight, bias, factor) = self.head.ok_or_else(|| Error::stage("logits"))?;
        let bias = bias.map(|id| {
            // Hugging Face keeps it as one row, and does not train it.
            Ok::<_, Error>(Value::constant(self.parameters.at(id).var().as_detached_tensor().flatten_all()?))
        });
        let x = if factor == 1.0 { x.clone() } else { scaled(scope.tape, x, factor)? };
        Ok((x, weight, bias.transpose()?))
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

    fn answer(&self, batch: &Batch, pass: &Pass, from: &[Value]) -> Result<Answered> {
        let tape = self.parameters.tape();
        let scope = Scope::new(&tape, &self.parameters, batch, pass);
        let passed = self.layers(&scope, batch, pass, from)?;
        let (Some(_), Some(x)) = (&self.head, passed.last()) else { return Ok(Answered::On(passed)) };
        let (x, weight, bias) = self.head(&scope, x)?;
        Ok(Answered::Logits(logits(&scope, &x, weight, bias.as_ref())?))
    }

    fn forward<'a>(
        &'a self,
        tape: &Tape<'a>,
        batch: &'a Batch,
        pass: &'a Pass,
        from: &[Value],
    ) -> Result<Passed> {
        let scope = Scope::new(tape, &self.parameters, batch, pass);
        let passed = self.layers(&scope, batch, pass, from)?;
        match (&self.head, passed.last()) {
            (Some(_), Some(x)) => {
                let (x, weight, bias) = self.head(&scope, x)?;
                Ok(Passed::Loss(language_loss(&scope, x, weight, bias.as_ref(), batch, pass)?))
            }
            _ => Ok(Passed::On(passed)),
        }
    }

    fn incoming(&self, batch: &Batch) -> Vec<[usize; 3]> {
        let (rows, width) = (batch.rows(), self.config.width());
        let memory = batch.source.as_ref().map_or(0, |source| source.length);
        let begun = !self.decoder.layers.is_empty() && !self.decoder.ends[0];
        let x = begun.then_some([rows, batch.input.length, width]);
        [[rows, memory, width]].into_iter().chain(x).collect()
    }

    fn begin(&self, source: Option<&Side>, padding: &[usize]) -> Result<Cache> {
        let Some(source) = source.filter(|source| source.rows() == padding.len()) else {
            return Err(Error::Batch("an encoder-decoder needs a source for each row".into()));
        };
        Batch { input: source.clone(), ..Batch::default() }
            .check(self.config.vocabulary(), self.config.positions())?;
        let tape = self.parameters.tape();
        let scope = Scope::generating(&tape, &self.parameters, None);
        let memory = self.encode(&scope, source, false, None)?;
        let seen = Arc::new(Mask { keys: source.mask.clone(), ..Mask::default() });
        Ok(Cache::with_memory(padding, memory.tensor().clone(), seen))
    }

    fn next(&self, tokens: &[u32], cache: &Cache) -> Result<Tensor> {
        let (tape, offset) = (self.parameters.tape(), cache.length());
        let scope = Scope::generating(&tape, &self.parameters, Some(cache));
        let count = check_next(tokens, cache, &self.config)?;
        let Some((memory, seen)) = cache.memory.clone() else {
            return Err(Error::Batch("an encoder-decoder needs a source; begin with one".into()));
        };
        let at = cache.positions(count, self.config.positions())?.into();
        let x = self.embed(&scope, tokens.into(), at, [cache.rows(), count])?;
        let x = scope.drop(&x, self.decoder.site, self.dropout)?;
        let context = Context {
            mask: cache.mask(count),
            source_mask: seen,
            buckets: self.buckets(false, offset, count, offset + count),
            angles: None,
        };
        let x = self.run(&scope, &self.decoder, x, Some(&Value::constant(memory)), context, false)?;
        cache.advance(count);
        let (x, weight, bias) = self.head(&scope, &last(&x)?)?;
        Ok(logits(&scope, &x, weight, bias.as_ref())?.squeeze(1)?)
    }
}
