//! What every layer is given besides its input.

use std::sync::Arc;

use super::cache::Cache;
use crate::Batch;
use crate::Result;
use crate::model::{DropoutKey, Pass};
use crate::ops::dropout::{Dropout, residual};
use crate::ops::embedding::{Lookup, NOWHERE, embedding};
use crate::parameters::{Id, Parameters};
use crate::ranks::{enter, leave};
use crate::tape::{Tape, Value};

/// The tape, the parameters, and what dropout depends on.
#[derive(Clone)]
pub struct Scope<'t, 'a> {
    /// Where operations are recorded.
    pub tape: &'t Tape<'a>,
    /// The model's parameters.
    pub parameters: &'a Parameters,
    dropout: Option<DropoutKey>,
    samples: Arc<[u64]>,
    /// Keys and values of earlier tokens, while text is generated.
    pub cache: Option<&'t Cache>,
}

impl<'t, 'a> Scope<'t, 'a> {
    /// For one batch.
    pub fn new(tape: &'t Tape<'a>, parameters: &'a Parameters, batch: &Batch, pass: &Pass) -> Self {
        let samples = (0..batch.rows()).map(|row| batch.sample(row)).collect();
        Scope { tape, parameters, dropout: pass.dropout, samples, cache: None }
    }

    /// For generating text.
    pub fn generating(tape: &'t Tape<'a>, parameters: &'a Parameters, cache: Option<&'t Cache>) -> Self {
        Scope { tape, parameters, dropout: None, samples: Arc::new([]), cache }
    }

    /// The same on another tape.
    pub fn on<'u>(&self, tape: &'u Tape<'a>) -> Scope<'u, 'a> {
        let (dropout, samples) = (self.dropout, self.samples.clone());
        Scope { tape, parameters: self.parameters, dropout, samples, cache: None }
    }

    /// What is needed to be on another tape, later.
    pub fn later(&self) -> impl for<'u> Fn(&'u Tape<'a>) -> Scope<'u, 'a> + use<'a> {
        let (parameters, dropout, samples) = (self.parameters, self.dropout, self.samples.clone());
        move |tape| Scope { tape, parameters, dropout, samples: samples.clone(), cache: None }
    }

    /// A parameter as a value.
    pub fn value(&self, id: Id) -> Value {
        self.tape.parameter(self.parameters, id)
    }

    /// Dropout at a place of the model; none while evaluating.
    pub fn dropout(&self, site: u32, probability: f64) -> Option<Dropout> {
        Dropout::new(self.dropout?, site, probability, &self.samples)
    }

    /// `x` as the input of layers that are divided over tensor ranks: going backwards, the gradients that come out of
    /// them are summed.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn enter(&self, x: &Value) -> Result<Value> {
        enter(self.tape, self.parameters.mesh().tensor(), x)
    }

    /// Rows of the tokens' table, of which each tensor rank has its share, plus rows of tables that all have.
    ///
    /// # Errors
    /// If an id is outside of its table, or a rank is gone.
    pub fn embed(
        &self,
        table: Id,
        (ids, scale): (Arc<[u32]>, f64),
        others: &[Lookup<'_>],
        dims: [usize; 2],
    ) -> Result<Value> {
        let (mesh, value) = (self.parameters.mesh(), self.value(table));
        if mesh.tensor().size() == 1 {
            let mut all = vec![(&value, ids, scale)];
            all.extend(others.iter().cloned());
            return embedding(self.tape, &all, dims);
        }
        let own = mesh.share(self.parameters.at(table).part.whole()[0]);
        let here = |id: &u32| if own.contains(&(*id as usize)) { id - own.start as u32 } else { NOWHERE };
        let part = embedding(self.tape, &[(&value, ids.iter().map(here).collect(), scale)], dims)?;
        let rows = leave(self.tape, mesh.tensor(), &part, None)?;
        match others.is_empty() {
            true => Ok(rows),
            false => residual(self.tape, &rows, &embedding(self.tape, others, dims)?, None),
        }
    }

    /// Drops some of `x`, of which this rank has the features from `first` on.
    ///
    /// # Errors
    /// If `x` is not one row for each sample.
    pub fn drop_part(&self, x: &Value, site: u32, probability: f64, first: usize) -> Result<Value> {
        let dropout = self.dropout(site, probability).map(|dropout| dropout.from(0, first));
        crate::ops::dropout::dropout(self.tape, x, dropout.as_ref())
    }

    /// Drops some of `x`.
    ///
    /// # Errors
    /// If `x` is not one row for each sample.
    pub fn drop(&self, x: &Value, site: u32, probability: f64) -> Result<Value> {
        crate::ops::dropout::dropout(self.tape, x, self.dropout(site, probability).as_ref())
    }
}
