//! GPT: a stack of layers in which a token sees itself and those before it.

use std::sync::Arc;

use candle_core::Tensor;

use super::head::{language_loss, logits};
use super::{ModelConfig, side};
use crate::model::{Answered, Model, Pass, Passed};
use crate::nn::{Cache, Context, Layer, Linear, Lora, Norm, Scope, layer::stack};
use crate::ops::attention::Mask;
use crate::ops::rope::{Angles, Rotation};
use crate::parameters::{Id, Parameters};
use crate::tape::{Tape, Value};
use crate::{Batch, Error, Result, Side};

/// The place of dropout after the embedding; layers' places are below.
pub(super) const EMBEDDING_SITE: u32 = 0xF_FFF0;

/// A GPT of either form.
#[derive(Debug)]
pub struct Decoder {
    pub(super) config: ModelConfig,
    pub(super) parameters: Parameters,
    /// The table of tokens, on the first stage of a pipeline.
    pub(super) tokens: Option<Id>,
    /// The table of learnt positions, there, in the form of GPT-2.
    pub(super) positions: Option<Id>,
    /// How positions turn heads, in the form of Llama.
    pub(super) rotary: Option<Rotation>,
    pub(super) dropout: f64,
    pub(super) layers: Vec<Layer>,
    /// On the last stage the norm and the output layer's weight, which is the tokens' own table where the two are tied.
    pub(super) end: Option<(Norm, Id)>,
}

impl Decoder {
    /// This stage's layers, from what the stage before has passed on, or from the tokens.
    fn layers<'a>(
        &'a self,
        scope: &Scope<'_, 'a>,
        batch: &Batch,
        pass: &Pass,
        from: &[Value],
    ) -> Result<Value> {
        batch.check(self.config.vocabulary(), self.config.positions())?;
        let positions = side::positions(&batch.input);
        let x = match from.first() {
            Some(x) => x.clone(),
            None => {
                let dims = [batch.rows(), batch.input.length];
                let x = self.embed(scope, side::tokens(&batch.input), &positions, dims)?;
                scope.drop(&x, EMBEDDING_SITE, self.dropout)?
            }
        };
        let context = self.context(side::mask(&batch.input, true), &positions);
        stack(&self.layers, scope, x, None, &context, pass.checkpoint)
    }

    fn end(&self) -> Result<&(Norm, Id)> {
        self.end.as_ref().ok_or_else(|| Error::stage("logits"))
    }

    fn embed(
        &self,
        scope: &Scope<'_, '_>,
        ids: Arc<[u32]>,
        positions: &Arc<[u32]>,
        dims: [usize; 2],
    ) -> Result<Value> {
        let table = self.positions.map(|id| scope.value(id));
        let positions: Vec<_> = table.iter().map(|table| (table, positions.clone(), 1.0)).collect();
        let tokens = self.tokens.ok_or_else(|| Error::stage("embedding"))?;
        scope.embed(tokens, (ids, 1.0), &positions, dims)
    }

    fn context(&self, mask: Arc<Mask>, positions: &[u32]) -> Arc<Context> {
        let angles = self.rotary.as_ref().map(|rotation| Angles::new(positions, rotation));
        Arc::new(Context { mask, angles, ..Context::default() })
    }
}

impl Model for Decoder {
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
        self.layers.iter().flat_map(Layer::linears).collect()
    }

    fn adapt(&mut self, lora: Lora, which: &dyn Fn(&str) -> bool) -> Result<usize> {
        adapt(&mut self.parameters, self.layers.iter_mut().flat_map(Layer::linears_mut), lora, which)
    }

    fn answer(&self, batch: &Batch, pass: &Pass, from: &[Value]) -> Result<Answered> {
        let tape = self.parameters.tape();
        let scope = Scope::new(&tape, &self.parameters, batch, pass);
        let x = self.layers(&scope, batch, pass, from)?;
        let Some((norm, head)) = &self.end else { return Ok(Answered::On(vec![x])) };
        Ok(Answered::Logits(logits(&scope, &norm.forward(&scope, &x)?, *head, None)?))
    }

    fn forward<'a>(
        &'a self,
        tape: &Tape<'a>,
        batch: &'a Batch,
        pass: &'a Pass,
        from: &[Value],
    ) -> Result<Passed> {
        let scope = Scope::new(tape, &self.parameters, batch, pass);
        let x = self.layers(&scope, batch, pass, from)?;
        let Some((norm, head)) = &self.end else { return Ok(Passed::On(vec![x])) };
        let x = norm.forward(&scope, &x)?;
        Ok(Passed::Loss(language_loss(&scope, x, *head, None, batch, pass)?))
    }

    fn incoming(&self, batch: &Batch) -> Vec<[usize; 3]> {
        vec![[batch.rows(), batch.input.length, self.config.width()]]
    }

    fn begin(&self, source: Option<&Side>, padding: &[usize]) -> Result<Cache> {
        match source {
            None => Ok(Cache::of_rows(padding)),
            Some(_) => {
                Err(crate::Error::Batch("a source is for encoder-decoders; a GPT has one side".into()))
            }
        }
    }

    fn next(&self, tokens: &[u32], cache: &Cache) -> Result<Tensor> {
        let tape = self.parameters.tape();
        let scope = Scope::generating(&tape, &self.parameters, Some(cache));
        let count = check_next(tokens, cache, &self.config)?;
        let positions: Arc<[u32]> = cache.positions(count, self.config.positions())?.into();
        let x = self.embed(&scope, tokens.into(), &positions, [cache.rows(), count])?;
        let context = self.context(cache.mask(count), &positions);
        let x = stack(&self.layers, &scope, x, None, &context, false)?;
        cache.advance(count);
        let (norm, head) = self.end()?;
        let x = norm.forward(&scope, &last(&x)?)?;
        Ok(logits(&scope, &x, *head, None)?.squeeze(1)?)
    }
}

/// How many tokens of each row are to be read next, if they can be.
pub(super) fn check_next(tokens: &[u32], cache: &Cache, config: &ModelConfig) -> Result<usize> {
    let rows = cache.rows();
    if rows == 0 || tokens.is_empty() || !tokens.len().is_multiple_of(rows) {
        return Err(Error::Batch(format!("{} tokens for {rows} rows", tokens.len())));
    }
    let count = tokens.len() / rows;
    let batch = Batch { input: Side::new(tokens.to_vec(), count), ..Batch::default() };
    batch.check(config.vocabulary(), usize::MAX)?;
    Ok(count)
}

/// The last token of each row.
pub(super) fn last(x: &Value) -> Result<Value> {
    let length = x.tensor().dim(1)?;
    Ok(Value::constant(x.tensor().narrow(1, length - 1, 1)?.contiguous()?))
}

/// Adapts the layers that `which` names, and freezes the rest.
pub(super) fn adapt<'m>(
    parameters: &mut Parameters,
    linears: impl Iterator<Item = &'m mut Linear>,
    lora: Lora,
    which: &dyn Fn(&str) -> bool,
) -> Result<usize> {
    let mut count = 0;
    for linear in linears {
        if which(linear.name()) {
            linear.adapt(parameters, lora)?;
            count += 1;
        }
    }
    parameters.set_trainable(|name| name.contains(".lora_"));
    Ok(count)
}
