//! What the loop knows of a model: its configuration, its parameters, and a loss with gradients for a batch.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use candle_core::Tensor;

use crate::gradients::Gradients;
use crate::models::ModelConfig;
use crate::nn::{Cache, Linear, Lora};
use crate::ops::product::Precision;
use crate::parameters::Parameters;
use crate::tape::{Tape, Value};
use crate::{Batch, Error, Result, Side};

/// What dropout depends on besides the place of a number: the same key drops the same numbers in every layout of ranks
/// and when a checkpointed part is computed again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropoutKey {
    /// The run's seed.
    pub seed: u64,
    /// The optimiser's step. Microbatches of one step differ by the numbers of their samples.
    pub step: u64,
}

/// How a batch is computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pass {
    /// The key of dropout while training; `None` while evaluating, where nothing is dropped.
    pub dropout: Option<DropoutKey>,
    /// Whether blocks are computed again while going backwards, instead of keeping what is inside of them.
    pub checkpoint: bool,
    /// What gradients are divided by: the targets that count in the *whole* step, over all microbatches and ranks.
    /// `None` for those of this batch.
    pub denominator: Option<f64>,
    /// How much of each target's probability goes to all classes evenly.
    pub label_smoothing: f64,
    /// How matrices are multiplied for gradients.
    pub precision: Precision,
    /// What a loss has numbers of its own for.
    pub criterion: Criterion,
}

/// The numbers of a loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Criterion {
    /// How much the targets of each class weigh; all the same where there are none.
    pub class_weights: Option<Arc<[f64]>>,
    /// What similarities of sentences are multiplied with before their cross-entropy.
    pub scale: f64,
}

impl Default for Criterion {
    /// All classes weigh the same, and similarities are scaled as sentence-transformers'
    /// `MultipleNegativesRankingLoss` does.
    fn default() -> Self {
        Criterion { class_weights: None, scale: 20.0 }
    }
}

impl Pass {
    /// Evaluation: nothing is dropped.
    pub fn evaluation() -> Self {
        Pass::default()
    }

    /// A step of training.
    pub fn training(seed: u64, step: u64) -> Self {
        Pass { dropout: Some(DropoutKey { seed, step }), ..Pass::default() }
    }
}

/// A loss as a sum over what was counted, so that those of microbatches and ranks can be put together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// The sum over all targets.
    pub sum: f64,
    /// What the targets that counted weigh: their number, where all weigh the same.
    pub count: f64,
}

impl Loss {
    /// The mean over the targets; 0 where none counted.
    pub fn mean(&self) -> f64 {
        if self.count == 0.0 { 0.0 } else { self.sum / self.count }
    }
}

impl std::ops::AddAssign for Loss {
    fn add_assign(&mut self, other: Self) {
        self.sum += other.sum;
        self.count += other.count;
    }
}

/// A loss with the value on the tape that going backwards begins from.
pub struct Recorded {
    /// The loss.
    pub loss: Loss,
    /// Where going backwards begins.
    pub value: Value,
    /// Its gradient; `None` on a tape that does not record.
    pub gradient: Option<Tensor>,
}

/// What comes out of a stage of a pipeline. One stage alone is the whole model, and has the loss.
pub enum Passed {
    /// Values for the next stage.
    On(Vec<Value>),
    /// The loss, on the last stage.
    Loss(Recorded),
}

/// What a stage of a pipeline has made of a batch that nothing is learned from.
pub enum Answered {
    /// Values for the next stage.
    On(Vec<Value>),
    /// What comes out, on the last stage.
    Logits(Tensor),
}

/// A model that can be trained, or what a rank has of it.
pub trait Model: Send + Sync {
    /// What Hugging Face's `config.json` says of it.
    fn config(&self) -> ModelConfig;

    /// Its parameters, under the names that they have in Hugging Face's files.
    fn parameters(&self) -> &Parameters;

    /// Its parameters, to freeze some of them or to put others in their place.
    fn parameters_mut(&mut self) -> &mut Parameters;

    /// Its linear layers.
    fn linears(&self) -> Vec<&Linear>;

    /// Puts low-rank adapters beside the linear layers that `which` names, and freezes everything else. Returns how
    /// many there are.
    ///
    /// # Errors
    /// If candle cannot make the tensors.
    fn adapt(&mut self, lora: Lora, which: &dyn Fn(&str) -> bool) -> Result<usize>;

    /// The tensors by name with adapters in the weights that they stand beside, as other programs read them.
    ///
    /// # Errors
    /// If candle cannot multiply them.
    fn merged(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = self.parameters().tensors();
        for linear in self.linears() {
            if let Some((weight, adapter)) = linear.merged(self.parameters())? {
                adapter.iter().for_each(|name| drop(tensors.remove(name)));
                tensors.insert(self.parameters().at(linear.weight()).name().to_string(), weight);
            }
        }
        Ok(tensors)
    }

    /// Begins to generate text; an encoder-decoder reads `source` first. There is a row for each entry of `padding`: that
    /// many tokens stand before its own, and are not seen.
    ///
    /// # Errors
    /// If the model generates no text, or the source is missing or not wanted.
    fn begin(&self, source: Option<&Side>, padding: &[usize]) -> Result<Cache> {
        let _ = (source, padding);
        Err(Error::Config(
            "an encoder generates no text; train a gpt2, llama, marian or t5 model for that".into(),
        ))
    }

    /// Reads as many more tokens of each row, and returns the logits of what comes after the last ones, rows × vocabulary.
    ///
    /// # Errors
    /// If the model generates no text, or the tokens do not fit.
    fn next(&self, tokens: &[u32], cache: &Cache) -> Result<Tensor> {
        let _ = (tokens, cache);
        Err(Error::Config(
            "an encoder generates no text; train a gpt2, llama, marian or t5 model for that".into(),
        ))
    }

    /// What comes out for a batch. Language models: rows × length × vocabulary. Classifiers of texts: rows × classes;
    /// of tokens: rows × length × classes. Extractive answers: rows × length × 2. Embeddings: rows × width.
    ///
    /// # Errors
    /// If the batch is not for this model.
    fn logits(&self, batch: &Batch, pass: &Pass) -> Result<Tensor> {
        match self.answer(batch, pass, &[])? {
            Answered::Logits(logits) => Ok(logits),
            Answered::On(_) => Err(Error::stage("logits")),
        }
    }

    /// Computes this stage's layers for a batch, from what the stage before has passed on, without a tape.
    ///
    /// # Errors
    /// If the batch is not for this model.
    fn answer(&self, batch: &Batch, pass: &Pass, from: &[Value]) -> Result<Answered>;

    /// Computes this stage's layers for a batch on a tape, from what the stage before has passed on; the first stage
    /// begins with the tokens.
    ///
    /// # Errors
    /// If the batch is not for this model.
    fn forward<'a>(
        &'a self,
        tape: &Tape<'a>,
        batch: &'a Batch,
        pass: &'a Pass,
        from: &[Value],
    ) -> Result<Passed>;

    /// The dimensions of what the stage before passes on for a batch.
    fn incoming(&self, batch: &Batch) -> Vec<[usize; 3]>;

    /// Computes the loss of a batch on a tape.
    ///
    /// # Errors
    /// If the batch is not for this model, or this is not all of it.
    fn record<'a>(&'a self, tape: &Tape<'a>, batch: &'a Batch, pass: &'a Pass) -> Result<Recorded> {
        match self.forward(tape, batch, pass, &[])? {
            Passed::Loss(recorded) => Ok(recorded),
            Passed::On(_) => Err(Error::stage("a loss")),
        }
    }

    /// The loss of a batch.
    ///
    /// # Errors
    /// If the batch is not for this model.
    fn loss(&self, batch: &Batch, pass: &Pass) -> Result<Loss> {
        Ok(self.record(&self.parameters().tape(), batch, pass)?.loss)
    }

    /// The loss of a batch; adds its gradients to `gradients`.
    ///
    /// # Errors
    /// If the batch is not for this model. What was added to the gradients until then is of no use.
    fn gradients(&self, batch: &Batch, pass: &Pass, gradients: &mut Gradients) -> Result<Loss> {
        let shared = Rc::new(RefCell::new(std::mem::take(gradients)));
        let result = (|| {
            let tape = Tape::recording(shared.clone()).in_precision(pass.precision);
            let Recorded { loss, value, gradient } = self.record(&tape, batch, pass)?;
            if let Some(gradient) = gradient {
                tape.backward(&value, gradient, &[])?;
            }
            Ok(loss)
        })();
        // All tapes are gone by now, and with them all other owners.
        *gradients = Rc::try_unwrap(shared).map(RefCell::into_inner).unwrap_or_else(|shared| shared.take());
        result
    }
}
