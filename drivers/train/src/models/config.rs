//! Configurations, as Hugging Face's `config.json` has them. Fields that training has no use for are not kept.

use serde::{Deserialize, Serialize};

use super::rope::RopeScaling;
use crate::ops::rope::Rotation;
use crate::{Error, Result};

/// The configuration of a model, by its `model_type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type", rename_all = "lowercase")]
pub enum ModelConfig {
    /// GPT in the form of GPT-2.
    Gpt2(Gpt2Config),
    /// GPT in the form of Llama.
    Llama(LlamaConfig),
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
    /// If it is no JSON, or describes no model of this library.
    pub fn from_json(text: &str) -> Result<Self> {
        let config: ModelConfig = serde_json::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// Writes a `config.json`.
    ///
    /// # Errors
    /// None in practice: all fields have a form in JSON.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// How many token ids there are.
    pub fn vocabulary(&self) -> usize {
        match self {
            ModelConfig::Gpt2(c) => c.vocab_size,
            ModelConfig::Llama(c) => c.vocab_size,
            ModelConfig::Bert(c) => c.vocab_size,
            ModelConfig::Marian(c) => c.vocab_size,
            ModelConfig::T5(c) => c.vocab_size,
        }
    }

    /// Numbers for each token between layers.
    pub fn width(&self) -> usize {
        match self {
            ModelConfig::Gpt2(c) => c.n_embd,
            ModelConfig::Llama(c) => c.hidden_size,
            ModelConfig::Bert(c) => c.hidden_size,
            ModelConfig::Marian(c) => c.d_model,
            ModelConfig::T5(c) => c.d_model,
        }
    }

    /// How many tokens a row can have; T5 has no limit.
    pub fn positions(&self) -> usize {
        match self {
            ModelConfig::Gpt2(c) => c.n_positions,
            ModelConfig::Llama(c) => c.max_position_embeddings,
            ModelConfig::Bert(c) => c.max_position_embeddings,
            ModelConfig::Marian(c) => c.max_position_embeddings,
            ModelConfig::T5(_) => usize::MAX,
        }
    }

    /// The token that ends a text, where there is one.
    pub fn end(&self) -> Option<u32> {
        match self {
            ModelConfig::Gpt2(c) => c.eos_token_id,
            ModelConfig::Llama(c) => c.eos_token_id,
            ModelConfig::Bert(_) => None,
            ModelConfig::Marian(c) => c.eos_token_id,
            ModelConfig::T5(c) => c.eos_token_id,
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
        match self {
            ModelConfig::Gpt2(c) => heads("gpt2", c.n_embd, c.n_head),
            ModelConfig::Llama(c) => {
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

/// Hugging Face's `GPT2Config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpt2Config {
    pub architectures: Vec<String>,
    pub vocab_size: usize,
    pub n_positions: usize,
    pub n_embd: usize,
    pub n_layer: usize,
    pub n_head: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_inner: Option<usize>,
    pub activation_function: Activation,
    pub resid_pdrop: f64,
    pub embd_pdrop: f64,
    pub attn_pdrop: f64,
    pub layer_norm_epsilon: f64,
    pub initializer_range: f64,
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    pub eos_token_id: Option<u32>,
}

impl Default for Gpt2Config {
    fn default() -> Self {
        Gpt2Config {
            architectures: vec!["GPT2LMHeadModel".into()],
            vocab_size: 50_257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: Activation::GeluTanh,
            resid_pdrop: 0.1,
            embd_pdrop: 0.1,
            attn_pdrop: 0.1,
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            tie_word_embeddings: true,
            bos_token_id: None,
            eos_token_id: None,
        }
    }
}

/// Hugging Face's `LlamaConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LlamaConfig {
    pub architectures: Vec<String>,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    pub hidden_act: Activation,
    pub max_position_embeddings: usize,
    pub initializer_range: f64,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    /// The same in files of transformers 5, where it goes before `rope_theta`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_parameters: Option<Box<RopeParameters>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Box<RopeScaling>>,
    pub attention_dropout: f64,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    pub eos_token_id: Option<u32>,
}

impl LlamaConfig {
    /// Heads of keys and values.
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// The base of rotary positions.
    pub fn theta(&self) -> f64 {
        self.rope_parameters.as_ref().map_or(self.rope_theta, |rope| rope.rope_theta)
    }

    /// How positions are scaled; `None` where they are not.
    pub fn scaling(&self) -> Option<&RopeScaling> {
        let newer = self.rope_parameters.as_ref().map(|rope| &rope.scaling);
        newer.or(self.rope_scaling.as_deref()).filter(|scaling| scaling.kind() != "default")
    }

    /// How positions turn heads.
    ///
    /// # Errors
    /// A scaling that is not known, or lacks a number.
    pub fn rotation(&self) -> Result<Rotation> {
        let (size, theta) = (self.head_size(), self.theta());
        match self.scaling() {
            Some(scaling) => scaling.rotation(size, theta, self.max_position_embeddings),
            None => Ok(Rotation::plain(size, theta)),
        }
    }

    /// Width of a head.
    pub fn head_size(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }
}

/// How positions turn heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RopeParameters {
    pub rope_theta: f64,
    #[serde(flatten)]
    pub scaling: RopeScaling,
}

impl Default for RopeParameters {
    fn default() -> Self {
        RopeParameters { rope_theta: 10_000.0, scaling: RopeScaling::default() }
    }
}

impl Default for LlamaConfig {
    fn default() -> Self {
        LlamaConfig {
            architectures: vec!["LlamaForCausalLM".into()],
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            hidden_act: Activation::Silu,
            max_position_embeddings: 2048,
            initializer_range: 0.02,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_parameters: None,
            rope_scaling: None,
            attention_dropout: 0.0,
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: false,
            bos_token_id: Some(1),
            eos_token_id: Some(2),
        }
    }
}

/// Hugging Face's `BertConfig`. `architectures` says which head the model has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    pub architectures: Vec<String>,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub initializer_range: f64,
    pub layer_norm_eps: f64,
    pub pad_token_id: Option<u32>,
    /// Names of the classes by number, for classifiers; there are as many classes.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "by_number")]
    pub id2label: Option<std::collections::BTreeMap<u32, String>>,
    /// What a classifier of texts learns; one class of each where it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem_type: Option<Problem>,
}

/// What a classifier of texts learns, by Hugging Face's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Problem {
    /// One class of each.
    #[serde(rename = "single_label_classification")]
    Class,
    /// Any number of classes of each.
    #[serde(rename = "multi_label_classification")]
    Classes,
    /// A number of each.
    #[serde(rename = "regression")]
    Number,
}

/// Names by number, whose numbers are strings in JSON: inside of an enum serde does not turn them back by itself.
fn by_number<'de, D>(
    from: D,
) -> std::result::Result<Option<std::collections::BTreeMap<u32, String>>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let names = Option::<std::collections::BTreeMap<String, String>>::deserialize(from)?;
    let number = |(number, name): (String, String)| match number.parse::<u32>() {
        Ok(number) => Ok((number, name)),
        Err(error) => Err(serde::de::Error::custom(format!("label {number}: {error}"))),
    };
    names.map(|names| names.into_iter().map(number).collect::<std::result::Result<_, D::Error>>()).transpose()
}

impl BertConfig {
    /// The first of its architectures, by which it has its head; it guesses tokens where none is named.
    pub fn architecture(&self) -> &str {
        self.architectures.first().map_or("BertForMaskedLM", String::as_str)
    }

    /// Whether it guesses tokens.
    pub fn guesses(&self) -> bool {
        ["BertForMaskedLM", "BertForPreTraining"].contains(&self.architecture())
    }

    /// How many classes a classifier has.
    pub fn classes(&self) -> usize {
        self.id2label.as_ref().map_or(2, std::collections::BTreeMap::len)
    }
}

impl Default for BertConfig {
    fn default() -> Self {
        BertConfig {
            architectures: vec!["BertForMaskedLM".into()],
            vocab_size: 30_522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: Some(0),
            id2label: None,
            problem_type: None,
        }
    }
}

/// Hugging Face's `MarianConfig`: the Transformer of "Attention is all you need", with sinusoidal positions and norms
/// after the sums. With `relu` it is the paper's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MarianConfig {
    pub architectures: Vec<String>,
    pub vocab_size: usize,
    pub d_model: usize,
    pub encoder_layers: usize,
    pub decoder_layers: usize,
    pub encoder_attention_heads: usize,
    pub decoder_attention_heads: usize,
    pub encoder_ffn_dim: usize,
    pub decoder_ffn_dim: usize,
    pub activation_function: Activation,
    pub dropout: f64,
    pub attention_dropout: f64,
    pub activation_dropout: f64,
    pub max_position_embeddings: usize,
    pub scale_embedding: bool,
    pub init_std: f64,
    pub tie_word_embeddings: bool,
    pub share_encoder_decoder_embeddings: bool,
    pub is_encoder_decoder: bool,
    pub pad_token_id: Option<u32>,
    pub eos_token_id: Option<u32>,
    pub decoder_start_token_id: Option<u32>,
}

impl Default for MarianConfig {
    fn default() -> Self {
        MarianConfig {
            architectures: vec!["MarianMTModel".into()],
            vocab_size: 58_101,
            d_model: 512,
            encoder_layers: 6,
            decoder_layers: 6,
            encoder_attention_heads: 8,
            decoder_attention_heads: 8,
            encoder_ffn_dim: 2048,
            decoder_ffn_dim: 2048,
            activation_function: Activation::Relu,
            dropout: 0.1,
            attention_dropout: 0.0,
            activation_dropout: 0.0,
            max_position_embeddings: 1024,
            scale_embedding: true,
            init_std: 0.02,
            tie_word_embeddings: true,
            share_encoder_decoder_embeddings: true,
            is_encoder_decoder: true,
            pad_token_id: Some(0),
            eos_token_id: Some(1),
            decoder_start_token_id: Some(0),
        }
    }
}

/// T5's feed-forward layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum T5FeedForward {
    /// Two products with a ReLU between: T5 as it was published.
    #[default]
    #[serde(rename = "relu")]
    Relu,
    /// GELU of one product times another: T5 1.1 and its successors.
    #[serde(rename = "gated-gelu")]
    GatedGelu,
    /// SiLU of one product times another.
    #[serde(rename = "gated-silu")]
    GatedSilu,
}

/// Hugging Face's `T5Config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct T5Config {
    pub architectures: Vec<String>,
    pub vocab_size: usize,
    pub d_model: usize,
    pub d_kv: usize,
    pub d_ff: usize,
    pub num_layers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_decoder_layers: Option<usize>,
    pub num_heads: usize,
    pub relative_attention_num_buckets: usize,
    pub relative_attention_max_distance: usize,
    pub dropout_rate: f64,
    pub layer_norm_epsilon: f64,
    pub initializer_factor: f64,
    pub feed_forward_proj: T5FeedForward,
    pub tie_word_embeddings: bool,
    /// Whether the output layer reads scaled numbers; in files of transformers before 5 that is said by
    /// `tie_word_embeddings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_decoder_outputs: Option<bool>,
    pub is_encoder_decoder: bool,
    pub pad_token_id: Option<u32>,
    pub eos_token_id: Option<u32>,
    pub decoder_start_token_id: Option<u32>,
}

impl Default for T5Config {
    fn default() -> Self {
        T5Config {
            architectures: vec!["T5ForConditionalGeneration".into()],
            vocab_size: 32_128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_decoder_layers: None,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            dropout_rate: 0.1,
            layer_norm_epsilon: 1e-6,
            initializer_factor: 1.0,
            feed_forward_proj: T5FeedForward::Relu,
            tie_word_embeddings: true,
            scale_decoder_outputs: None,
            is_encoder_decoder: true,
            pad_token_id: Some(0),
            eos_token_id: Some(1),
            decoder_start_token_id: Some(0),
        }
    }
}
