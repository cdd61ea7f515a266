//! T5's configuration.

use serde::{Deserialize, Serialize};

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
