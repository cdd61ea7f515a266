//! Attention layers: the projections around the operation.

use std::sync::Arc;

use super::layer::Context;
use super::linear::Linear;
use super::scope::Scope;
use crate::Result;
use crate::ops::attention::{Attention as Operation, Heads, Mask, Relative, attention};
use crate::ops::rope::rope;
use crate::parameters::Id;
use crate::tape::Value;

/// How queries, keys and values are made.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "each layer has one, which stays where it is")]
pub enum Projections {
    /// By one product.
    Packed(Linear),
    /// By three: queries, keys, values.
    Separate([Linear; 3]),
}

/// An attention layer.
#[derive(Clone, Debug)]
pub struct Attention {
    /// How queries, keys and values are made.
    pub projections: Projections,
    /// The product after it.
    pub out: Linear,
    /// Heads of queries, of keys and values, and the first one's number: those of this tensor rank.
    pub heads: (usize, usize, usize),
    /// What scores are multiplied with.
    pub scale: f64,
    /// What is dropped of the weights.
    pub dropout: f64,
    /// The table of T5's relative bias.
    pub relative: Option<Id>,
    /// Its number among the attentions of the model: its place in the cache.
    pub place: usize,
}

impl Attention {
    /// Computes attention of `x` with itself.
    ///
    /// # Errors
    /// If the shapes do not go together.
    pub fn with_itself(
        &self,
        scope: &Scope<'_, '_>,
        x: &Value,
        context: &Context,
        site: u32,
    ) -> Result<Value> {
        let x = &scope.enter(x)?;
        let what = self.operation(scope, &context.mask, site);
        let table = self.relative.map(|id| scope.value(id));
        let relative =
            table.as_ref().zip(context.buckets.clone()).map(|(table, buckets)| Relative { table, buckets });
        let y = match &self.projections {
            Projections::Packed(linear) => {
                let qkv = linear.forward(scope, x)?;
                match scope.cache {
                    None => attention(scope.tape, Heads::Packed(&qkv), &what, relative)?,
                    Some(cache) => {
                        let width = qkv.tensor().dim(2)? / 3;
                        let part =
                            |i: usize| Ok::<_, crate::Error>(qkv.tensor().narrow(2, i * width, width)?);
                        let [k, v] = cache.extend(self.place, [&part(1)?, &part(2)?])?.map(Value::constant);
                        let q = Value::constant(part(0)?);
                        attention(scope.tape, Heads::Separate { q: &q, k: &k, v: &v }, &what, relative)?
                    }
                }
            }
            Projections::Separate(linears) => {
                let [mut q, mut k, mut v] = self.project(linears, scope, [x, x])?;
                if let Some(angles) = &context.angles {
                    (q, k) = (rope(scope.tape, &q, angles)?, rope(scope.tape, &k, angles)?);
                }
                if let Some(cache) = scope.cache {
                    [k, v] = cache.extend(self.place, [k.tensor(), v.tensor()])?.map(Value::constant);
                }
                attention(scope.tape, Heads::Separate { q: &q, k: &k, v: &v }, &what, relative)?
            }
        };
        self.out.forward(scope, &y)
    }

    /// Computes attention of `x` with what the encoder made of the source.
    ///
    /// # Errors
    /// If the shapes do not go together, or one product makes all three projections.
    pub fn with_source(
        &self,
        scope: &Scope<'_, '_>,
        x: &Value,
        memory: &Value,
        mask: &Arc<Mask>,
        site: u32,
    ) -> Result<Value> {
        let Projections::Separate(linears) = &self.projections else {
            return crate::error::shape("attention", "one product cannot read two sides");
        };
        let (x, memory) = (&scope.enter(x)?, &scope.enter(memory)?);
        let what = self.operation(scope, mask, site);
        let [q, k, v] = match scope.cache {
            None => self.project(linears, scope, [x, memory])?,
            Some(cache) => {
                let pair = || {
                    let pair = [linears[1].forward(scope, memory)?, linears[2].forward(scope, memory)?];
                    Ok(pair.map(|v| v.tensor().clone()))
                };
                let [k, v] = cache.once(self.place, pair)?.map(Value::constant);
                [linears[0].forward(scope, x)?, k, v]
            }
        };
        let y = attention(scope.tape, Heads::Separate { q: &q, k: &k, v: &v }, &what, None)?;
        self.out.forward(scope, &y)
    }

    fn project(
        &self,
        linears: &[Linear; 3],
        scope: &Scope<'_, '_>,
        [x, memory]: [&Value; 2],
    ) -> Result<[Value; 3]> {
        let [q, k, v] = linears;
        Ok([q.forward(scope, x)?, k.forward(scope, memory)?, v.forward(scope, memory)?])
    }

    fn operation(&self, scope: &Scope<'_, '_>, mask: &Arc<Mask>, site: u32) -> Operation {
        let (heads, kv_heads, first) = self.heads;
        let dropout = scope.dropout(site, self.dropout).map(|dropout| dropout.from(first, 0));
        Operation { heads, kv_heads, scale: self.scale, mask: mask.clone(), dropout }
    }

    /// Its linear layers.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let projections = match &mut self.projections {
            Projections::Packed(linear) => std::slice::from_mut(linear),
            Projections::Separate(linears) => linears.as_mut_slice(),
        };
        projections.iter_mut().chain([&mut self.out])
    }

    /// Its linear layers.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        let projections = match &self.projections {
            Projections::Packed(linear) => std::slice::from_ref(linear),
            Projections::Separate(linears) => linears.as_slice(),
        };
        projections.iter().chain([&self.out])
    }
}
