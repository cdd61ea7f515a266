//! Configurations, as Hugging Face's `config.json` has them. Fields that training has no use for are not kept.

mod bert;
mod gpt2;
mod llama;
mod marian;
mod t5;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use bert::{BertConfig, Problem};
pub use gpt2::Gpt2Config;
pub use llama::{Ends, LlamaConfig, RopeParameters};
pub use marian::MarianConfig;
pub use t5::{T5Config, T5FeedForward};

use crate::{Error, Result};

/// The configuration of a model, by its `model_type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type", rename_all = "lowercase")]
pub enum ModelConfig {
    /// GPT in the form of GPT-2.
    Gpt2(Gpt2Config),
    /// GPT in the form of Llama. Mistral has the same form, and becomes a Llama.
    #[serde(alias = "mistral")]
    Llama(LlamaConfig),
    /// Llama's form with biases on queries, keys and values, and there alone.
    Qwen2(LlamaConfig),
    /// BERT.
    Bert(BertConfig),
    /// The encoder-decoder Transformer in its original form.
    Marian(MarianConfig),
    /// The encoder-decoder Transformer in the form of T5.
    T5(T5Config),
}

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it is no JSON, or describes no model of this library, such as one of its kinds that computes something else.
    pub fn from_json(text: &str) -> Result<Self> {
        let mut config: ModelConfig = serde_json::from_str(text)?;
        check_usual(&serde_json::from_str(text)?)?;
        match &mut config {
            ModelConfig::Llama(llama) => llama.become_llama(),
            ModelConfig::Qwen2(qwen) => qwen.become_qwen2(),
            _ => {}
        }
        config.check()?;
        Ok(config)
    }

    /// Writes a `config.json`. Classes stand in it by their names, too, as programs of the Hugging Face family look for them.
    ///
    /// # Errors
    /// None in practice: all fields have a form in JSON.
    pub fn to_json(&self) -> Result<String> {
        let ModelConfig::Bert(BertConfig { id2label: Some(names), .. }) = self else {
            return Ok(serde_json::to_string_pretty(self)?);
        };
        let mut tree = serde_json::to_value(self)?;
        tree["label2id"] = names.iter().map(|(number, name)| (name.clone(), json!(number))).collect();
        Ok(serde_json::to_string_pretty(&tree)?)
    }

    /// How many token ids there are.
    pub fn vocabulary(&self) -> usize {
        match self {
            ModelConfig::Gpt2(c) => c.vocab_size,
            ModelConfig::Llama(c) | ModelConfig::Qwen2(c) => c.vocab_size,
            ModelConfig::Bert(c) => c.vocab_size,
            ModelConfig::Marian(c) => c.vocab_size,
            ModelConfig::T5(c) => c.vocab_size,
        }
    }

    /// Numbers for each token between layers.
    pub fn width(&self) -> usize {
        match self {
            ModelConfig::Gpt2(c) => c.n_embd,
            ModelConfig::Llama(c) | ModelConfig::Qwen2(c) => c.hidden_size,
            ModelConfig::Bert(c) => c.hidden_size,
            ModelConfig::Marian(c) => c.d_model,
            ModelConfig::T5(c) => c.d_model,
        }
    }

    /// How many tokens a row can have; T5 has no limit.
    pub fn positions(&self) -> usize {
        match self {
            ModelConfig::Gpt2(c) => c.n_positions,
            ModelConfig::Llama(c) | ModelConfig::Qwen2(c) => c.max_position_embeddings,
            ModelConfig::Bert(c) => c.max_position_embeddings,
            ModelConfig::Marian(c) => c.max_position_embeddings,
            ModelConfig::T5(_) => usize::MAX,
        }
    }

    /// Whether a parameter is of the head, which a model for another task has anew.
    pub fn is_head(&self, name: &str) -> bool {
        let heads: &[&str] = match self {
            ModelConfig::Bert(_) => &["cls.", "classifier.", "qa_outputs.", "bert.pooler."],
            _ => &["lm_head.", "final_logits_bias"],
        };
        heads.iter().any(|head| name.starts_with(head))
    }

    /// The tokens that end a text.
    pub fn ends(&self) -> &[u32] {
        match self {
            ModelConfig::Gpt2(c) => c.eos_token_id.as_slice(),
            ModelConfig::Llama(c) | ModelConfig::Qwen2(c) => c.eos_token_id.as_ref().map_or(&[], Ends::all),
            ModelConfig::Bert(_) => &[],
            ModelConfig::Marian(c) => c.eos_token_id.as_slice(),
            ModelConfig::T5(c) => c.eos_token_id.as_slice(),
        }
    }

    /// Whether the sizes go together.
    ///
    /// # Errors
    /// [`Error::Config`] with the first ones that do not.
    pub fn check(&self) -> Result<()> {
        let heads = |name: &str, width: usize, heads: usize| match heads > 0 && width.is_multiple_of(heads) {
            true => Ok(()),
            false => {
                Err(Error::Config(format!("{name}: a width of {width} is not divided by {heads} heads")))
            }
        };
        self.check_dropouts()?;
        match self {
            ModelConfig::Gpt2(c) => heads("gpt2", c.n_embd, c.n_head),
            ModelConfig::Llama(c) | ModelConfig::Qwen2(c) => {
                if c.head_dim.is_none() {
                    heads("llama", c.hidden_size, c.num_attention_heads)?;
                }
                c.rotation()?;
                heads("llama, heads that share keys", c.num_attention_heads, c.kv_heads())?;
                match c.head_size().is_multiple_of(2) {
                    true => Ok(()),
                    false => Err(Error::Config(format!(
                        "llama: heads of {} have no halves to rotate",
                        c.head_size()
                    ))),
                }
            }
            ModelConfig::Bert(c) => heads("bert", c.hidden_size, c.num_attention_heads),
            ModelConfig::Marian(c) => {
                heads("marian, encoder", c.d_model, c.encoder_attention_heads)?;
                heads("marian, decoder", c.d_model, c.decoder_attention_heads)
            }
            ModelConfig::T5(c) => match c.num_heads > 0 && c.d_kv > 0 {
                true => Ok(()),
                false => Err(Error::Config(format!("t5: {} heads of {}", c.num_heads, c.d_kv))),
            },
        }
    }
}

impl ModelConfig {
    /// What is not dropped is divided by its share, which must not be nothing.
    fn check_dropouts(&self) -> Result<()> {
        match self.dropouts().into_iter().find(|(_, share)| !(0.0..1.0).contains(share)) {
            Some((name, share)) => {
                Err(Error::Config(format!("`{name}` is {share}; it must be from 0 on, below 1")))
            }
            None => Ok(()),
        }
    }

    /// Whether anything is dropped while it is trained.
    pub fn drops(&self) -> bool {
        self.dropouts().iter().any(|(_, share)| *share > 0.0)
    }

    /// Shares that are dropped, by their names.
    fn dropouts(&self) -> Vec<(&'static str, f64)> {
        match self {
            ModelConfig::Gpt2(c) => {
                vec![
                    ("resid_pdrop", c.resid_pdrop),
                    ("embd_pdrop", c.embd_pdrop),
                    ("attn_pdrop", c.attn_pdrop),
                ]
            }
            ModelConfig::Llama(c) | ModelConfig::Qwen2(c) => vec![("attention_dropout", c.attention_dropout)],
            ModelConfig::Bert(c) => vec![
                ("hidden_dropout_prob", c.hidden_dropout_prob),
                ("attention_probs_dropout_prob", c.attention_probs_dropout_prob),
            ],
            ModelConfig::Marian(c) => vec![
                ("dropout", c.dropout),
                ("attention_dropout", c.attention_dropout),
                ("activation_dropout", c.activation_dropout),
            ],
            ModelConfig::T5(c) => vec![("dropout_rate", c.dropout_rate)],
        }
    }
}

/// Refuses a file in which a field says that the model computes what none does here: with its weights another one would
/// come of it, and nobody would see that.
fn check_usual(file: &Value) -> Result<()> {
    let usual = match file["model_type"].as_str() {
        Some("gpt2") => vec![
            ("scale_attn_weights", json!(true)),
            ("scale_attn_by_inverse_layer_idx", json!(false)),
            ("add_cross_attention", json!(false)),
        ],
        Some("bert") => vec![("position_embedding_type", json!("absolute")), ("is_decoder", json!(false))],
        _ => Vec::new(),
    };
    for (field, usual) in usual {
        let found = &file[field];
        if !found.is_null() && *found != usual {
            return Err(Error::Config(format!(
                "`{field}` is {found}, and models here compute as where it is {usual}"
            )));
        }
    }
    Ok(())
}

/// What a feed-forward layer does between its two products, by Hugging Face's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// GELU by the error function.
    #[default]
    #[serde(rename = "gelu")]
    Gelu,
    /// GELU by the hyperbolic tangent.
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh")]
    GeluTanh,
    /// max(x, 0)
    #[serde(rename = "relu")]
    Relu,
    /// x · sigmoid(x)
    #[serde(rename = "silu", alias = "swish")]
    Silu,
    /// The hyperbolic tangent.
    #[serde(rename = "tanh")]
    Tanh,
}
