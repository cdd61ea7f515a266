//! BERT, with one of five heads: masked tokens, classes of texts, classes of tokens, answers in a text, and vectors
//! of sentences.

use std::sync::Arc;

use candle_core::Tensor;

use super::config::{Activation, BertConfig};
use super::decoder::{EMBEDDING_SITE, adapt, language_loss};
use super::{ModelConfig, side};
use crate::model::{Model, Pass, Recorded};
use crate::nn::{
    Attention, Context, FeedForward, Layer, Linear, Lora, Norm, Order, Projections, Scope, layer::stack,
};
use crate::ops::activation::activation;
use crate::ops::cross_entropy::{Weighing, cross_entropy};
use crate::ops::embedding::embedding;
use crate::ops::linear::{Layout, linear};
use crate::ops::pool::{first_weights, mean_weights, unit, weighted};
use crate::parameters::{Id, Init, Parameters};
use crate::tape::{Tape, Value};
use crate::{Batch, Error, Result};

/// The place of dropout before a classifier.
const HEAD_SITE: u32 = EMBEDDING_SITE + 1;

/// What similarities of sentences are multiplied with before their cross-entropy, as in sentence-transformers'
/// `MultipleNegativesRankingLoss`.
const SIMILARITY_SCALE: f64 = 20.0;

/// A BERT.
#[derive(Debug)]
pub struct Bert {
    config: BertConfig,
    parameters: Parameters,
    /// The tables of tokens, positions and sentences.
    tables: [Id; 3],
    norm: Norm,
    layers: Vec<Layer>,
    head: Head,
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
        let architecture = config.architectures.first().map_or("BertForMaskedLM", String::as_str);
        // The bare model's file has its names without the first part.
        let prefix = if architecture == "BertModel" { "" } else { "bert." };
        let init = Init::Normal(config.initializer_range);
        let width = config.hidden_size;
        let table = |parameters: &mut Parameters, name: &str, rows| {
            parameters.add(format!("{prefix}embeddings.{name}.weight"), &[rows, width], init)
        };
        let tables = [
            table(&mut parameters, "word_embeddings", config.vocab_size)?,
            table(&mut parameters, "position_embeddings", config.max_position_embeddings)?,
            table(&mut parameters, "token_type_embeddings", config.type_vocab_size)?,
        ];
        let norm_name = format!("{prefix}embeddings.LayerNorm");
        let norm = Norm::layer(&mut parameters, &norm_name, width, config.layer_norm_eps)?;
        let layers = (0..config.num_hidden_layers).map(|i| layer(&mut parameters, config, prefix, i));
        let layers = layers.collect::<Result<_>>()?;
        let linear = |parameters: &mut Parameters, name: &str, outputs| {
            Linear::new(parameters, name, [width, outputs], true, Layout::OutIn, init)
        };
        let head = match architecture {
            "BertForMaskedLM" | "BertForPreTraining" => Head::Masked {
                bias: parameters.add("cls.predictions.bias", &[config.vocab_size], Init::Zeros)?,
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
        Ok(Bert { config: config.clone(), parameters, tables, norm, layers, head })
    }

    fn hidden<'a>(&'a self, scope: &Scope<'_, 'a>, batch: &Batch, pass: &Pass) -> Result<Value> {
        batch.check(self.config.vocab_size, self.config.max_position_embeddings)?;
        let input = &batch.input;
        let types = input.types.clone().unwrap_or_else(|| vec![0; input.tokens.len()]);
        let [tokens, positions, sentences] = self.tables.map(|id| scope.value(id));
        let lookups = [
            (&tokens, side::tokens(input), 1.0),
            (&positions, side::positions(input), 1.0),
            (&sentences, types.into(), 1.0),
        ];
        let x = embedding(scope.tape, &lookups, [batch.rows(), input.length])?;
        let x = self.norm.forward(scope, &x)?;
        let x = scope.drop(&x, EMBEDDING_SITE, self.config.hidden_dropout_prob)?;
        let context = Arc::new(Context { mask: side::mask(input, false), ..Context::default() });
        stack(&self.layers, scope, x, None, &context, pass.checkpoint)
    }

    /// What the head makes of the layers' result; of masked tokens all but the output layer.
    fn head(&self, scope: &Scope<'_, '_>, x: &Value, batch: &Batch) -> Result<Value> {
        let (rows, length, dropout) = (batch.rows(), batch.input.length, self.config.hidden_dropout_prob);
        match &self.head {
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

    fn logits(&self, batch: &Batch, pass: &Pass) -> Result<Tensor> {
        let tape = Tape::idle();
        let scope = Scope::new(&tape, &self.parameters, batch, pass);
        let x = self.head(&scope, &self.hidden(&scope, batch, pass)?, batch)?;
        match &self.head {
            Head::Masked { bias, .. } => {
                let (weight, bias) = (scope.value(self.tables[0]), scope.value(*bias));
                Ok(linear(&tape, &x, &weight, Some(&bias), Layout::OutIn)?.tensor().clone())
            }
            _ => Ok(x.tensor().clone()),
        }
    }

    fn record<'a>(&'a self, tape: &Tape<'a>, batch: &'a Batch, pass: &'a Pass) -> Result<Recorded> {
        let scope = Scope::new(tape, &self.parameters, batch, pass);
        let x = self.head(&scope, &self.hidden(&scope, batch, pass)?, batch)?;
        let weighing = Weighing { label_smoothing: pass.label_smoothing, denominator: pass.denominator };
        let (loss, gradient) = match &self.head {
            Head::Masked { bias, .. } => {
                let (weight, bias) = (scope.value(self.tables[0]), scope.value(*bias));
                return language_loss(tape, x, &weight, Some(&bias), batch, pass);
            }
            Head::Text { .. } | Head::Tokens(_) => cross_entropy(x.tensor(), &batch.targets, weighing)?,
            Head::Answer(_) => {
                // The classes of first and last place are the tokens of the row.
                let places = x.tensor().transpose(1, 2)?.contiguous()?;
                let (loss, gradient) = cross_entropy(&places, &batch.targets, weighing)?;
                (loss, gradient.transpose(1, 2)?.contiguous()?)
            }
            Head::Sentence => pairs(x.tensor(), weighing)?,
        };
        Ok(Recorded { loss, value: x, gradient: Some(gradient) })
    }
}

/// The loss of vectors of which each two in a row belong together: the second of a pair is to be nearest to its first,
/// among the seconds of all pairs.
fn pairs(x: &Tensor, weighing: Weighing) -> Result<(crate::Loss, Tensor)> {
    let (rows, width) = x.dims2()?;
    if rows < 4 || rows % 2 == 1 {
        return Err(Error::Batch(format!(
            "{rows} sentences; pairs need an even number of them, and at least two pairs"
        )));
    }
    let both = x.reshape((rows / 2, 2, width))?;
    let [a, b] = [both.narrow(1, 0, 1)?, both.narrow(1, 1, 1)?];
    let (a, b) = (a.squeeze(1)?.contiguous()?, b.squeeze(1)?.contiguous()?);
    let scores = (a.matmul(&b.t()?)? * SIMILARITY_SCALE)?;
    let targets: Vec<i32> = (0..rows as i32 / 2).collect();
    let (loss, slopes) = cross_entropy(&scores, &targets, weighing)?;
    let slopes = (slopes * SIMILARITY_SCALE)?;
    let gradients = [slopes.matmul(&b)?, slopes.t()?.matmul(&a)?];
    Ok((loss, Tensor::stack(&gradients, 1)?.reshape((rows, width))?))
}

fn layer(parameters: &mut Parameters, config: &BertConfig, prefix: &str, number: usize) -> Result<Layer> {
    let width = config.hidden_size;
    let name = |part: &str| format!("{prefix}encoder.layer.{number}.{part}");
    let linear = |parameters: &mut Parameters, part: &str, sizes| {
        Linear::new(
            parameters,
            &name(part),
            sizes,
            true,
            Layout::OutIn,
            Init::Normal(config.initializer_range),
        )
    };
    let norm = |parameters: &mut Parameters, part: &str| {
        Norm::layer(parameters, &name(part), width, config.layer_norm_eps)
    };
    let attention = Attention {
        projections: Projections::Separate([
            linear(parameters, "attention.self.query", [width, width])?,
            linear(parameters, "attention.self.key", [width, width])?,
            linear(parameters, "attention.self.value", [width, width])?,
        ]),
        out: linear(parameters, "attention.output.dense", [width, width])?,
        heads: config.num_attention_heads,
        kv_heads: config.num_attention_heads,
        scale: ((width / config.num_attention_heads) as f64).sqrt().recip(),
        dropout: config.attention_probs_dropout_prob,
        relative: None,
        place: number,
    };
    let attention_norm = norm(parameters, "attention.output.LayerNorm")?;
    let feed = FeedForward {
        up: linear(parameters, "intermediate.dense", [width, config.intermediate_size])?,
        gate: None,
        down: linear(parameters, "output.dense", [config.intermediate_size, width])?,
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
