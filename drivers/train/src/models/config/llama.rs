//! Llama's configuration, which Qwen2 has, too.

use serde::{Deserialize, Serialize};

use super::Activation;
use crate::Result;
use crate::models::rope::RopeScaling;
use crate::ops::rope::Rotation;

/// Hugging Face's `LlamaConfig`, and as far as they have the same fields its `Qwen2Config`.
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
    pub eos_token_id: Option<Ends>,
    /// Of Mistral, how far back a token sees, which is read and not written: rows are no longer than that.
    #[serde(skip_serializing)]
    pub sliding_window: Option<usize>,
    /// Of Qwen2, whether that counts. Its files have one and say that it does not.
    #[serde(skip_serializing)]
    pub use_sliding_window: bool,
}

/// The tokens that end a text: one, or in files of models that talk several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ends {
    One(u32),
    Several(Vec<u32>),
}

impl Ends {
    /// All of them.
    pub fn all(&self) -> &[u32] {
        match self {
            Ends::One(end) => std::slice::from_ref(end),
            Ends::Several(ends) => ends,
        }
    }
}

impl From<u32> for Ends {
    fn from(end: u32) -> Ends {
        Ends::One(end)
    }
}

impl LlamaConfig {
    /// Makes a Llama of what has its form under another name. Within its window a Mistral is one; no row is longer.
    pub(super) fn become_llama(&mut self) {
        self.architectures = LlamaConfig::default().architectures;
        self.use_sliding_window = false;
        let window = self.sliding_window.take().unwrap_or(usize::MAX);
        self.max_position_embeddings = self.max_position_embeddings.min(window);
    }

    /// Makes a Qwen2 of what a file says: what Llama has as a choice, it has not.
    pub(super) fn become_qwen2(&mut self) {
        let counts = std::mem::take(&mut self.use_sliding_window);
        let window = self.sliding_window.take().filter(|_| counts);
        self.architectures = vec!["Qwen2ForCausalLM".into()];
        (self.attention_bias, self.mlp_bias) = (false, false);
        self.max_position_embeddings = self.max_position_embeddings.min(window.unwrap_or(usize::MAX));
    }

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
            eos_token_id: Some(Ends::One(2)),
            sliding_window: None,
            use_sliding_window: false,
        }
    }
}
