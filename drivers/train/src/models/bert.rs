//! BERT, with one of five heads: masked tokens, classes of texts, classes of tokens, answers in a text, and vectors
//! of sentences.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

use super::config::{Activation, BertConfig, Problem};
use super::decoder::{EMBEDDING_SITE, adapt};
use super::{ModelConfig, head, side};
use crate::model::{Answered, Model, Pass, Passed, Recorded};
use crate::nn::{
    Attention, Context, FeedForward, Layer, Linear, Lora, Norm, Order, Projections, Scope, Split,
    layer::stack,
};
use crate::ops::activation::activation;
use crate::ops::cross_entropy::{Weighing, cross_entropy};
use crate::ops::linear::Layout;
use crate::ops::pool::{first_weights, mean_weights, unit, weighted};
use crate::ops::weighted::{binary_cross_entropy, cosine_error, squared_error, weighted_cross_entropy};
use crate::parameters::{Id, Init, Parameters};
use crate::ranks::all_rows;
use crate::tape::{Tape, Value};
use crate::{Batch, Error, Result};

/// The place of dropout before a classifier.
const HEAD_SITE: u32 = EMBEDDING_SITE + 1;

/// A BERT.
#[derive(Debug)]
pub struct Bert {
    config: BertConfig,
    parameters: Parameters,
    /// The table of tokens, on the first stage of a pipeline, and on the last where tokens are guessed.
    words: Option<Id>,
    /// The tables of positions and sentences and the norm behind them, on the first stage.
    start: Option<([Id; 2], Norm)>,
    layers: Vec<Layer>,
    /// On the last stage.
    head: Option<Head>,
}

#[derive(Debug)]
enum Head {
    /// `BertForMaskedLM`
    Masked { transform: Linear, norm: Norm, bias: Id },
    /// `BertForSequenceClassification`
    Text { pooler: Linear, classifier: Linear },
    /// `BertForTokenClassification`
    Tokens(Linear),
    /// `BertForQuestionAnswering`
    Answer(Linear),
    /// `BertModel`: the mean of the tokens, of length one.
    Sentence,
}

impl Bert {
    /// A new model.
    ///
    /// # Errors
    /// If `architectures` names a head that there is not.
    pub fn new(config: &BertConfig, mut parameters: Parameters) -> Result<Self> {
        let architecture = config.architecture();
        // The bare model's file has its names without the first part.
        let prefix = if architecture == "BertModel" { "" } else { "bert." };
        let init = Init::Normal(config.initializer_range);
        let width = config.hidden_size;
        let table = |parameters: &mut Parameters, name: &str, rows| {
            parameters.add(format!("{prefix}embeddings.{name}.weight"), &[rows, width], init)
        };
        let (first, masked) = (parameters.mesh().is_first_stage(), config.guesses());
        let name = format!("{prefix}embeddings.word_embeddings.weight");
        let dims = [config.vocab_size, width];
        let words = head::table(&mut parameters, &name, dims, (first, masked), init)?;
        let start = match first {
            true => {
                let tables = [
                    table(&mut parameters, "position_embeddings", config.max_position_embeddings)?,
                    table(&mut parameters, "token_type_embeddings", config.type_vocab_size)?,
                ];
                let name = format!("{prefix}embeddings.LayerNorm");
                Some((tables, Norm::layer(&mut parameters, &name, width, config.layer_norm_eps)?))
            }
            false => None,
        };
        let stage = parameters.stage(config.num_hidden_layers)?;
        let layers = stage.map(|i| layer(&mut parameters, config, prefix, i)).collect::<Result<_>>()?;
        if !parameters.mesh().is_last_stage() {
            return Ok(Bert { config: config.clone(), parameters, words, start, layers, head: None });
        }
        let linear = |parameters: &mut Parameters, name: &str, outputs| {
            Linear::new(parameters, name, [width, outputs], true, Layout::OutIn, Split::Whole, init)
        };
        let head = match architecture {
            _ if masked => Head::Masked {
                bias: {
                    let part = parameters.share(&[config.vocab_size], 0, 1)?;
                    parameters.add_part("cls.predictions.bias", part, Init::Zeros)?
                },
                transform: linear(&mut parameters, "cls.predictions.transform.dense", width)?,
                norm: Norm::layer(
                    &mut parameters,
                    "cls.predictions.transform.LayerNorm",
                    width,
                    config.layer_norm_eps,
                )?,
            },
            "BertForSequenceClassification" => Head::Text {
                pooler: linear(&mut parameters, "bert.pooler.dense", width)?,
                classifier: linear(&mut parameters, "classifier", config.classes())?,
            },
            "BertForTokenClassification" => {
                Head::Tokens(linear(&mut parameters, "classifier", config.classes())?)
            }
            "BertForQuestionAnswering" => Head::Answer(linear(&mut parameters, "qa_outputs", 2)?),
            "BertModel" => Head::Sentence,
            other => {
                return Err(Error::Config(format!(
                    "no BERT is a {other}; there are BertForMaskedLM, BertForSequenceClassification, \
                 BertForTokenClassification, BertForQuestionAnswering and BertModel"
                )));
            }
        };
        Ok(Bert { config: config.clone(), parameters, words, start, layers, head: Some(head) })
    }

    /// This stage's layers, from what the stage before has passed on, or from the tokens.
    fn layers<'a>(
        &'a self,
        scope: &Scope<'_, 'a>,
        batch: &Batch,
        pass: &Pass,
        from: &[Value],
    ) -> Result<Value> {
        batch.check(self.config.vocab_size, self.config.max_position_embeddings)?;
        let x = match from.first() {
            Some(x) => x.clone(),
            None => self.embed(scope, batch)?,
        };
        let context = Arc::new(Context { mask: side::mask(&batch.input, false), ..Context::default() });
        stack(&self.layers, scope, x, None, &context, pass.checkpoint)
    }

    fn embed(&self, scope: &Scope<'_, '_>, batch: &Batch) -> Result<Value> {
        let (Some(words), Some((tables, norm))) = (self.words, &self.start) else {
            return Err(Error::stage("embedding"));
        };
        let input = &batch.input;
        let types = input.types.clone().unwrap_or_else(|| vec![0; input.tokens.len()]);
        let [positions, sentences] = tables.map(|id| scope.value(id));
        let others = [(&positions, side::positions(input), 1.0), (&sentences, types.into(), 1.0)];
        let dims = [batch.rows(), input.length];
        let x = scope.embed(words, (side::tokens(input), 1.0), &others, dims)?;
        scope.drop(&norm.forward(scope, &x)?, EMBEDDING_SITE, self.config.hidden_dropout_prob)
    }

    fn end(&self) -> Result<&Head> {
        self.head.as_ref().ok_or_else(|| Error::stage("head"))
    }

    /// What the head makes of the layers' result; of masked tokens all but the output layer.
    fn head(&self, scope: &Scope<'_, '_>, x: &Value, batch: &Batch) -> Result<Value> {
        let (rows, length, dropout) = (batch.rows(), batch.input.length, self.config.hidden_dropout_prob);
        match self.end()? {
            Head::Masked { transform, norm, .. } => {
                let x = activation(scope.tape, &transform.forward(scope, x)?, self.config.hidden_act)?;
                norm.forward(scope, &x)
            }
            Head::Text { pooler, classifier } => {
                let first = weighted(scope.tape, x, first_weights(rows, length))?;
                let pooled = activation(scope.tape, &pooler.forward(scope, &first)?, Activation::Tanh)?;
                let pooled = crate::ops::pool::as_rows(scope.tape, &pooled, true)?;
                let pooled = scope.drop(&pooled, HEAD_SITE, dropout)?;
                classifier.forward(scope, &crate::ops::pool::as_rows(scope.tape, &pooled, false)?)
            }
            Head::Tokens(classifier) => classifier.forward(scope, &scope.drop(x, HEAD_SITE, dropout)?),
            Head::Answer(outputs) => outputs.forward(scope, x),
            Head::Sentence => {
                let weights = mean_weights(batch.input.mask.as_deref(), rows, length);
                unit(scope.tape, &weighted(scope.tape, x, weights)?)
            }
        }
    }
}

impl Model for Bert {
    fn config(&self) -> ModelConfig {
        ModelConfig::Bert(self.config.clone())
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
        let count =
            adapt(&mut self.parameters, self.layers.iter_mut().flat_map(Layer::linears_mut), lora, which)?;
        // A head begins anew for each task, so it is always trained.
        let head = ["classifier.", "qa_outputs.", "cls.", "bert.pooler."];
        self.parameters
            .set_trainable(|name| name.contains(".lora_") || head.iter().any(|h| name.starts_with(h)));
        Ok(count)
    }

    fn answer(&self, batch: &Batch, pass: &Pass, from: &[Value]) -> Result<Answered> {
        let tape = self.parameters.tape();
        let scope = Scope::new(&tape, &self.parameters, batch, pass);
        let x = self.layers(&scope, batch, pass, from)?;
        let Some(head) = &self.head else { return Ok(Answered::On(vec![x])) };
        let x = self.head(&scope, &x, batch)?;
        Ok(Answered::Logits(match (head, self.words) {
            (Head::Masked { bias, .. }, Some(words)) => {
                head::logits(&scope, &x, words, Some(&scope.value(*bias)))?
            }
            _ => x.tensor().clone(),
        }))
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
        let Some(head) = &self.head else { return Ok(Passed::On(vec![x])) };
        let x = self.head(&scope, &x, batch)?;
        let weighing = Weighing { label_smoothing: pass.label_smoothing, denominator: pass.denominator };
        let (loss, gradient) = match head {
            Head::Masked { bias, .. } => {
                let (words, bias) = (self.words.ok_or_else(|| Error::stage("table"))?, scope.value(*bias));
                let loss = head::language_loss(&scope, x, words, Some(&bias), batch, pass)?;
                return Ok(Passed::Loss(loss));
            }
            Head::Text { .. } if self.config.problem_type == Some(Problem::Number) => {
                squared_error(x.tensor(), &batch.values, weighing)?
            }
            Head::Text { .. } if self.config.problem_type == Some(Problem::Classes) => {
                binary_cross_entropy(x.tensor(), &batch.values, weighing)?
            }
            Head::Text { .. } | Head::Tokens(_) => match &pass.criterion.class_weights {
                None => cross_entropy(x.tensor(), &batch.targets, weighing)?,
                Some(weights) => weighted_cross_entropy(x.tensor(), &batch.targets, weights, weighing)?,
            },
            Head::Answer(_) => {
                // The classes of first and last place are the tokens of the row.
                let places = x.tensor().transpose(1, 2)?.contiguous()?;
                let (loss, gradient) = cross_entropy(&places, &batch.targets, weighing)?;
                (loss, gradient.transpose(1, 2)?.contiguous()?)
            }
            Head::Sentence if !batch.values.is_empty() => cosine_error(x.tensor(), &batch.values, weighing)?,
            Head::Sentence => {
                let (scale, own) = (pass.criterion.scale, x.tensor());
                match batch.among {
                    None => pairs(own, 0..batch.rows(), scale, weighing)?,
                    Some(place) => {
                        let all = all_rows(self.parameters.mesh().data(), own, place)?;
                        pairs(&all, place.0..place.0 + batch.rows(), scale, weighing)?
                    }
                }
            }
        };
        Ok(Passed::Loss(Recorded { loss, value: x, gradient: Some(gradient) }))
    }

    fn incoming(&self, batch: &Batch) -> Vec<[usize; 3]> {
        vec![[batch.rows(), batch.input.length, self.config.hidden_size]]
    }
}

/// The loss of vectors of which each two in a row belong together: the second of a pair is to be nearest to its first,
/// among the seconds of all pairs. It is that of the pairs in the rows `own`, and so is the gradient, which the losses of
/// all pairs make.
fn pairs(x: &Tensor, own: Range<usize>, scale: f64, weighing: Weighing) -> Result<(crate::Loss, Tensor)> {
    let (rows, width) = x.dims2()?;
    if rows == 0 || rows % 2 == 1 {
        return Err(Error::Batch(format!("{rows} sentences are no pairs; give an even number of them")));
    }
    let both = x.reshape((rows / 2, 2, width))?;
    let [a, b] = [both.narrow(1, 0, 1)?, both.narrow(1, 1, 1)?];
    let (a, b) = (a.squeeze(1)?.contiguous()?, b.squeeze(1)?.contiguous()?);
    let scores = (a.matmul(&b.t()?)? * scale)?;
    let targets: Vec<i32> = (0..rows as i32 / 2).collect();
    let cuts = [0..own.start / 2, own.start / 2..own.end / 2, own.end / 2..rows / 2];
    let (mut loss, mut slopes) = (crate::Loss::default(), Vec::new());
    for pairs in cuts.into_iter().filter(|pairs| !pairs.is_empty()) {
        let scores = scores.narrow(0, pairs.start, pairs.len())?.contiguous()?;
        let (of_part, slopes_of_part) = cross_entropy(&scores, &targets[pairs.clone()], weighing)?;
        if pairs.start == own.start / 2 {
            loss = of_part;
        }
        slopes.push(slopes_of_part);
    }
    let slopes = (Tensor::cat(&slopes, 0)? * scale)?;
    let gradients = [slopes.matmul(&b)?, slopes.t()?.matmul(&a)?];
    let gradient = Tensor::stack(&gradients, 1)?.reshape((rows, width))?;
    Ok((loss, gradient.narrow(0, own.start, own.len())?.contiguous()?))
}

fn layer(parameters: &mut Parameters, config: &BertConfig, prefix: &str, number: usize) -> Result<Layer> {
    let width = config.hidden_size;
    let name = |part: &str| format!("{prefix}encoder.layer.{number}.{part}");
    let linear = |parameters: &mut Parameters, part: &str, sizes, split| {
        let init = Init::Normal(config.initializer_range);
        Linear::new(parameters, &name(part), sizes, true, Layout::OutIn, split, init)
    };
    let norm = |parameters: &mut Parameters, part: &str| {
        Norm::layer(parameters, &name(part), width, config.layer_norm_eps)
    };
    let attention = Attention {
        projections: Projections::Separate([
            linear(parameters, "attention.self.query", [width, width], Split::OUTPUTS)?,
            linear(parameters, "attention.self.key", [width, width], Split::OUTPUTS)?,
            linear(parameters, "attention.self.value", [width, width], Split::OUTPUTS)?,
        ]),
        out: linear(parameters, "attention.output.dense", [width, width], Split::Inputs)?,
        heads: parameters.heads(config.num_attention_heads, config.num_attention_heads)?,
        scale: ((width / config.num_attention_heads) as f64).sqrt().recip(),
        dropout: config.attention_probs_dropout_prob,
        relative: None,
        place: number,
    };
    let attention_norm = norm(parameters, "attention.output.LayerNorm")?;
    let feed = FeedForward {
        up: linear(parameters, "intermediate.dense", [width, config.intermediate_size], Split::OUTPUTS)?,
        gate: None,
        down: linear(parameters, "output.dense", [config.intermediate_size, width], Split::Inputs)?,
        inner: config.intermediate_size,
        activation: config.hidden_act,
        dropout: 0.0,
    };
    Ok(Layer {
        attention: (attention, attention_norm),
        source: None,
        feed: (feed, norm(parameters, "output.LayerNorm")?),
        order: Order::After,
        dropout: config.hidden_dropout_prob,
        number: number as u32,
    })
}
