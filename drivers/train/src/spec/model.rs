//! The model of a specification, and the configuration that comes of it when the vocabulary is known.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::SpecError;
use super::optimiser::below_one;
use crate::ModelConfig;
use crate::data::Task;
use crate::import::Pretrained;
use crate::models::config::{BertConfig, Ends, Gpt2Config, LlamaConfig, MarianConfig, Problem, T5Config};
use crate::token::{Family, Special, Tokeniser};

/// Which model is trained. What is left out has the value of nanoGPT's small configuration for CPUs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ModelSpec {
    /// A decoder in the form of GPT-2.
    Gpt(Sizes),
    /// A decoder in the form of Llama: RMSNorm, rotary positions, SwiGLU.
    Llama {
        #[serde(default = "Sizes::layers_default")]
        layers: usize,
        #[serde(default = "Sizes::heads_default")]
        heads: usize,
        /// Heads that share keys and values; as many as heads where it is not said.
        #[serde(default)]
        kv_heads: Option<usize>,
        #[serde(default = "Sizes::width_default")]
        width: usize,
        /// 8/3 of the width, rounded up to a multiple of 32, where it is not said.
        #[serde(default)]
        inner: Option<usize>,
        #[serde(default = "Sizes::context_default")]
        context: usize,
        #[serde(default)]
        dropout: f64,
        #[serde(default)]
        vocabulary: Option<u32>,
    },
    /// An encoder.
    Bert(Sizes),
    /// An encoder-decoder in its original form.
    Transformer(Sizes),
    /// An encoder-decoder in the form of T5: relative positions, norms before the layers, no biases.
    T5(Sizes),
    /// One that was trained before: a folder in the Hugging Face layout, or a GGUF whose weights are not quantised.
    Pretrained(PathBuf),
}

/// Blocks of a model: more than any has.
const LAYERS_MAX: usize = 10_000;

/// A width, or a number of heads: more than any model has.
const SIZE_MAX: usize = 1 << 20;

/// Tokens of a row: more than any model reads.
const CONTEXT_MAX: usize = 1 << 24;

/// The sizes of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Blocks; of an encoder-decoder, on each side.
    #[serde(default = "Sizes::layers_default")]
    pub layers: usize,
    #[serde(default = "Sizes::heads_default")]
    pub heads: usize,
    #[serde(default = "Sizes::width_default")]
    pub width: usize,
    /// Width of the feed-forward layers; four times the width where it is not said.
    #[serde(default)]
    pub inner: Option<usize>,
    /// Tokens of a row.
    #[serde(default = "Sizes::context_default")]
    pub context: usize,
    #[serde(default)]
    pub dropout: f64,
    /// Rows of the embedding table; as many as the tokeniser has tokens where it is not said.
    #[serde(default)]
    pub vocabulary: Option<u32>,
}

impl Sizes {
    fn layers_default() -> usize {
        4
    }

    fn heads_default() -> usize {
        4
    }

    fn width_default() -> usize {
        128
    }

    fn context_default() -> usize {
        64
    }

    fn inner(&self) -> usize {
        self.inner.unwrap_or(4 * self.width)
    }
}

impl ModelSpec {
    /// What kind of vocabulary it takes.
    ///
    /// # Errors
    ///
    /// The folder of a trained model cannot be read.
    pub fn family(&self) -> Result<Family, SpecError> {
        Ok(match self {
            ModelSpec::Gpt(_) | ModelSpec::Llama { .. } => Family::Decoder,
            ModelSpec::Bert(_) => Family::Encoder,
            ModelSpec::Transformer(_) | ModelSpec::T5(_) => Family::EncoderDecoder,
            ModelSpec::Pretrained(_) => match self.pretrained()?.expect("it is one") {
                ModelConfig::Gpt2(_) | ModelConfig::Llama(_) | ModelConfig::Qwen2(_) => Family::Decoder,
                ModelConfig::Bert(_) => Family::Encoder,
                ModelConfig::Marian(_) | ModelConfig::T5(_) => Family::EncoderDecoder,
            },
        })
    }

    /// The configuration of a model that was trained before.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is no model that is known here.
    pub fn pretrained(&self) -> Result<Option<ModelConfig>, SpecError> {
        let ModelSpec::Pretrained(path) = self else { return Ok(None) };
        Ok(Some(Pretrained::open(path)?.config()?))
    }

    /// The classes that a model which was trained before for a task tells apart, in its order; none of another model.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is no model that is known here.
    pub fn classes(&self, task: &Task) -> Result<Vec<String>, SpecError> {
        Ok(self.pretrained()?.map(|config| classes_of(&config, task)).unwrap_or_default())
    }

    /// Whether its sizes can be meant.
    ///
    /// # Errors
    ///
    /// The first that cannot, with its range.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        let count = |field, value: usize, most: usize| match (1..=most).contains(&value) {
            true => Ok(()),
            false => Err(SpecError::Range {
                field,
                value: value.to_string(),
                range: format!("within 1 and {most}"),
            }),
        };
        let (layers, heads, width, inner, context, dropout) = match self {
            ModelSpec::Gpt(sizes)
            | ModelSpec::Bert(sizes)
            | ModelSpec::Transformer(sizes)
            | ModelSpec::T5(sizes) => {
                (sizes.layers, sizes.heads, sizes.width, sizes.inner, sizes.context, sizes.dropout)
            }
            ModelSpec::Llama { layers, heads, kv_heads, width, inner, context, dropout, .. } => {
                count("model.kv_heads", kv_heads.unwrap_or(1), SIZE_MAX)?;
                (*layers, *heads, *width, *inner, *context, *dropout)
            }
            ModelSpec::Pretrained(_) => return Ok(()),
        };
        count("model.layers", layers, LAYERS_MAX)?;
        count("model.heads", heads, SIZE_MAX)?;
        count("model.width", width, SIZE_MAX)?;
        count("model.inner", inner.unwrap_or(1), SIZE_MAX)?;
        count("model.context", context, CONTEXT_MAX)?;
        below_one("model.dropout", dropout)
    }

    /// How many tokens a row can have; `usize::MAX` where there is no limit.
    ///
    /// # Errors
    ///
    /// The folder of a trained model cannot be read.
    pub fn positions(&self) -> Result<usize, SpecError> {
        match self {
            ModelSpec::T5(_) => Ok(usize::MAX),
            ModelSpec::Pretrained(_) => Ok(self.pretrained()?.expect("it is one").positions()),
            _ => self.context(),
        }
    }

    /// Tokens of a row where the specification does not say.
    ///
    /// # Errors
    ///
    /// The folder of a trained model cannot be read.
    pub fn context(&self) -> Result<usize, SpecError> {
        /// Rows for models without a limit of their own.
        const UNLIMITED: usize = 512;
        /// Rows for models that read much more than is trained at a time, as in transformers' `run_clm.py`.
        const LONG: usize = 1024;
        Ok(match self {
            ModelSpec::Gpt(sizes)
            | ModelSpec::Bert(sizes)
            | ModelSpec::Transformer(sizes)
            | ModelSpec::T5(sizes) => sizes.context,
            ModelSpec::Llama { context, .. } => *context,
            ModelSpec::Pretrained(_) => {
                let positions = self.pretrained()?.expect("it is one").positions();
                if positions == usize::MAX { UNLIMITED } else { positions.min(LONG) }
            }
        })
    }

    fn vocabulary(&self) -> Option<u32> {
        match self {
            ModelSpec::Gpt(sizes)
            | ModelSpec::Bert(sizes)
            | ModelSpec::Transformer(sizes)
            | ModelSpec::T5(sizes) => sizes.vocabulary,
            ModelSpec::Llama { vocabulary, .. } => *vocabulary,
            ModelSpec::Pretrained(_) => None,
        }
    }

    /// The configuration for a vocabulary and a task. `labels` are the classes, where there are some.
    ///
    /// # Errors
    ///
    /// Sizes that do not go together, or a vocabulary that does not fit.
    pub fn config(
        &self,
        tokeniser: &Tokeniser,
        task: &Task,
        labels: &[String],
    ) -> Result<ModelConfig, SpecError> {
        let vocabulary = self.vocabulary().unwrap_or(tokeniser.size()) as usize;
        let find = |special| tokeniser.find(special);
        let mut config = self.sized(vocabulary, find(Special::End), find(Special::Pad))?;
        give_head(&mut config, task, labels);
        config.check().map_err(|error| SpecError::Unfit(error.to_string()))?;
        let (model, tokens) = (config.vocabulary(), tokeniser.size() as usize);
        if tokens > model {
            return Err(SpecError::Unfit(format!(
                "the vocabulary has {tokens} tokens and the model has rows for {model}; give the model \
                 `vocabulary: {tokens}`, or another tokeniser"
            )));
        }
        Ok(config)
    }

    /// The configuration for a vocabulary of this size, before anything is known of the task.
    fn sized(&self, vocabulary: usize, end: Option<u32>, pad: Option<u32>) -> Result<ModelConfig, SpecError> {
        Ok(match self {
            ModelSpec::Gpt(sizes) => ModelConfig::Gpt2(Gpt2Config {
                vocab_size: vocabulary,
                n_positions: sizes.context,
                n_embd: sizes.width,
                n_layer: sizes.layers,
                n_head: sizes.heads,
                n_inner: sizes.inner,
                resid_pdrop: sizes.dropout,
                embd_pdrop: sizes.dropout,
                attn_pdrop: sizes.dropout,
                bos_token_id: end,
                eos_token_id: end,
                ..Gpt2Config::default()
            }),
            ModelSpec::Llama { layers, heads, kv_heads, width, inner, context, dropout, .. } => {
                ModelConfig::Llama(LlamaConfig {
                    vocab_size: vocabulary,
                    hidden_size: *width,
                    intermediate_size: inner.unwrap_or((8 * width).div_ceil(3).next_multiple_of(32)),
                    num_hidden_layers: *layers,
                    num_attention_heads: *heads,
                    num_key_value_heads: *kv_heads,
                    max_position_embeddings: *context,
                    attention_dropout: *dropout,
                    tie_word_embeddings: true,
                    bos_token_id: end,
                    eos_token_id: end.map(Ends::One),
                    ..LlamaConfig::default()
                })
            }
            ModelSpec::Bert(sizes) => ModelConfig::Bert(BertConfig {
                vocab_size: vocabulary,
                hidden_size: sizes.width,
                num_hidden_layers: sizes.layers,
                num_attention_heads: sizes.heads,
                intermediate_size: sizes.inner(),
                hidden_dropout_prob: sizes.dropout,
                attention_probs_dropout_prob: sizes.dropout,
                max_position_embeddings: sizes.context,
                pad_token_id: pad,
                ..BertConfig::default()
            }),
            ModelSpec::Transformer(sizes) => ModelConfig::Marian(MarianConfig {
                vocab_size: vocabulary,
                d_model: sizes.width,
                encoder_layers: sizes.layers,
                decoder_layers: sizes.layers,
                encoder_attention_heads: sizes.heads,
                decoder_attention_heads: sizes.heads,
                encoder_ffn_dim: sizes.inner(),
                decoder_ffn_dim: sizes.inner(),
                dropout: sizes.dropout,
                max_position_embeddings: sizes.context,
                pad_token_id: pad,
                eos_token_id: end,
                decoder_start_token_id: pad,
                ..MarianConfig::default()
            }),
            ModelSpec::T5(sizes) => ModelConfig::T5(T5Config {
                vocab_size: vocabulary,
                d_model: sizes.width,
                d_kv: sizes.width / sizes.heads.max(1),
                d_ff: sizes.inner(),
                num_layers: sizes.layers,
                num_heads: sizes.heads,
                dropout_rate: sizes.dropout,
                pad_token_id: pad,
                eos_token_id: end,
                decoder_start_token_id: pad,
                ..T5Config::default()
            }),
            ModelSpec::Pretrained(_) => self.pretrained()?.expect("it is one"),
        })
    }
}

/// The classes of a model whose head is one for a task, in their order.
pub fn classes_of(config: &ModelConfig, task: &Task) -> Vec<String> {
    let ModelConfig::Bert(bert) = config else { return Vec::new() };
    let names = bert.id2label.iter().filter(|_| head_for(task) == Some(bert.architecture()));
    let numbered = |names: &&BTreeMap<u32, String>| names.keys().copied().eq(0..names.len() as u32);
    names.filter(numbered).flat_map(BTreeMap::values).cloned().collect()
}

/// The head of an encoder that is not for guessing tokens.
fn head_for(task: &Task) -> Option<&'static str> {
    match task {
        Task::Classify { .. } | Task::Label { .. } | Task::Rate { .. } => {
            Some("BertForSequenceClassification")
        }
        Task::Tag { .. } => Some("BertForTokenClassification"),
        Task::Answer { .. } => Some("BertForQuestionAnswering"),
        Task::Similar { .. } | Task::Compare { .. } => Some("BertModel"),
        Task::NextToken { .. } | Task::Masked { .. } | Task::Continue { .. } | Task::Translate { .. } => None,
    }
}

/// Gives an encoder the head for a task. One for the same task is kept.
fn give_head(config: &mut ModelConfig, task: &Task, labels: &[String]) {
    let ModelConfig::Bert(bert) = config else { return };
    let head = match head_for(task) {
        Some(head) => head,
        None if bert.guesses() => return,
        None => "BertForMaskedLM",
    };
    bert.architectures = vec![head.into()];
    bert.id2label = (!labels.is_empty()).then(|| (0..).zip(labels.iter().cloned()).collect());
    bert.problem_type = match task {
        Task::Label { .. } => Some(Problem::Classes),
        Task::Rate { .. } => Some(Problem::Number),
        _ => None,
    };
    if matches!(task, Task::Rate { .. }) {
        // What transformers calls the only output.
        bert.id2label = Some([(0, "LABEL_0".to_owned())].into());
    }
}
