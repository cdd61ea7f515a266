//! The configuration of the encoder-decoder in its original form.

use serde::{Deserialize, Serialize};

use super::Activation;

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
