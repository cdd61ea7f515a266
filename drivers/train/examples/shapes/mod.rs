//! The models that speed is measured with, in the form of GPT-2.

use train::ModelConfig;
use train::models::config::Gpt2Config;

/// Vocabulary, layers, heads, width, length and rows.
pub type Sizes = [usize; 6];

/// nanoGPT's small CPU configuration, its larger one with fewer rows, and one with a vocabulary of 8,192.
pub const SHAPES: [(&str, Sizes); 3] = [
    ("nano", [65, 4, 4, 128, 64, 12]),
    ("mid", [65, 6, 6, 384, 256, 8]),
    ("vocabulary", [8192, 4, 4, 256, 256, 8]),
];

/// The model, without dropout.
pub fn config([vocabulary, layers, heads, width, length, _]: Sizes) -> ModelConfig {
    ModelConfig::Gpt2(Gpt2Config {
        vocab_size: vocabulary,
        n_layer: layers,
        n_head: heads,
        n_embd: width,
        n_positions: length,
        resid_pdrop: 0.0,
        embd_pdrop: 0.0,
        attn_pdrop: 0.0,
        ..Gpt2Config::default()
    })
}
