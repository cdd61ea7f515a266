//! The buffer of a forward pass.
//!
//! `ggml_gallocr` gives each byte to one operation after another, so the buffer is as large as the widest moment of the
//! graph that `llama_context::sched_reserve` plans for a full ubatch of n tokens over C cells: the mask (n·C, F32, or F16
//! for the fused kernel), which lives throughout, and the largest of
//!
//! - attention: scores n·C·heads in F32 where they are stored, beside nine activations of n·width and the new keys
//!   and values;
//! - a recurrent layer: its activations of n·inner, beside copies of the states of all sequences;
//! - feed-forward: gate, up and their product, 3·n·width, of all experts that a token takes (`experts.rs`), beside seven
//!   activations;
//! - logits: outputs·vocabulary, beside seven activations.
//!
//! A model with sliding windows has a second mask, and its layers with windows have as many cells as the others
//! (`swa_full`); one without attention has neither mask nor scores. The numbers of activations are those with which no
//! model that was looked at takes more than is estimated.

use super::shape::Shape;
use super::{
    BLOCK_SEQUENCES, BLOCK_TOKENS, GRAPH_NUMBER_BYTES, OUTPUTS_MIN, UBATCH_TOKENS, WINDOW_MAX, sequences,
};
use crate::estimate::Compute;
use crate::wire::LoadRequest;

/// Activations of n·width that are there at once beside the scores, and beside anything else.
const ACTIVATIONS_ATTENTION: u64 = 9;
const ACTIVATIONS_OTHER: u64 = 7;

/// Activations of n·inner that a recurrent layer has at once, and copies of all states beside them.
const ACTIVATIONS_RECURRENT: u64 = 6;
const STATES_AT_ONCE: u64 = 2;

/// The largest pass that a graph is planned for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    tokens: u32,
    sequences: u16,
    /// Tokens of it that can have output.
    pub(super) outputs: u32,
}

impl Pass {
    pub(super) fn of(request: &LoadRequest) -> Pass {
        if request.deterministic {
            return Pass { tokens: BLOCK_TOKENS, sequences: BLOCK_SEQUENCES, outputs: BLOCK_TOKENS };
        }
        let sequences = sequences(request);
        Pass { tokens: UBATCH_TOKENS, sequences, outputs: sequences.max(OUTPUTS_MIN).into() }
    }
}

impl Shape {
    /// Over so many cells.
    pub(super) fn compute(&self, cells: u32, pass: Pass, fused: bool) -> Compute {
        let tokens = u64::from(cells.min(pass.tokens));
        let numbers = GRAPH_NUMBER_BYTES;
        let outputs = u64::from(pass.outputs).min(tokens);
        let activation = tokens.saturating_mul(self.width);
        let wide = tokens.saturating_mul(self.feed_forward.numbers(self.width));
        let logits = outputs.saturating_mul(self.vocabulary);
        let beside = activation.saturating_mul(ACTIVATIONS_ATTENTION);
        let attention = beside.saturating_add(tokens.saturating_mul(self.key_value_width));
        let scores = if fused || self.masks == 0 { 0 } else { self.heads };
        Compute {
            mask_token_bytes: self.masks * tokens * if fused { numbers / 2 } else { numbers },
            score_token_bytes: tokens * scores * numbers,
            attention_bytes: attention.saturating_mul(numbers),
            other_bytes: wide
                .max(logits)
                .saturating_add(activation.saturating_mul(ACTIVATIONS_OTHER))
                .max(self.recurrent_numbers(tokens, pass.sequences))
                .saturating_mul(numbers),
        }
    }

    /// The widest moment of a recurrent layer; 0 where there are none.
    fn recurrent_numbers(&self, tokens: u64, sequences: u16) -> u64 {
        if self.state == 0 {
            return 0;
        }
        let activations = tokens.saturating_mul(self.inner).saturating_mul(ACTIVATIONS_RECURRENT);
        let states = self.state.saturating_mul(u64::from(sequences) * STATES_AT_ONCE);
        activations.saturating_add(states)
    }

    /// An encoder has no pool: its texts look at each other, all of a pass at once.
    pub(super) fn encoder_compute(&self) -> Compute {
        let window = self.trained.clamp(UBATCH_TOKENS, WINDOW_MAX);
        let tokens = u64::from(window);
        let activation = tokens.saturating_mul(self.width);
        let scores = tokens * tokens * (self.heads + 1);
        let attention = activation.saturating_mul(ACTIVATIONS_ATTENTION).saturating_add(scores);
        let wide = tokens.saturating_mul(self.feed_forward.ungated_numbers());
        let other = activation.saturating_mul(ACTIVATIONS_OTHER).saturating_add(wide);
        let other_bytes = attention.max(other).saturating_mul(GRAPH_NUMBER_BYTES);
        Compute { other_bytes, ..Compute::default() }
    }
}
