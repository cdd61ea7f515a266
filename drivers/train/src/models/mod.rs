//! The models: GPT in the forms of GPT-2 and Llama, BERT, and the encoder-decoder Transformer.

pub mod config;

pub use config::ModelConfig;
