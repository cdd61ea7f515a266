//! What every driver does, and the state of a sequence that it keeps for the kernel.
//!
//! A driver runs one model. It knows sequences, by address-space ids ([`Asid`]) that the kernel hands out, and
//! for each one the KV entries of positions `0..n` and at most one sampler. It knows nothing of processes,
//! priorities or limits: it does what a [`Step`] says, in the order in which it says so.

use crate::wire::{
    ChatDelta, ChatRequest, DriverFault, ModelDescription, Step, StepDone, TokenizeRequest, Vector,
};
use syscalls::Token;

/// Runs one model.
///
/// # Invariants
///
/// Between two steps a driver holds exactly the KV entries that the steps so far have made and not dropped.
/// A step that fails as a whole changes nothing that the kernel could see: its rows may be sent again.
pub trait Driver: Send {
    /// What was loaded.
    fn description(&self) -> &ModelDescription;

    /// Runs the operations of a step, then one batched forward pass over its rows, then the samplers.
    ///
    /// # Errors
    ///
    /// The whole step failed and no row was computed. Failures of single rows come in [`StepDone`].
    fn step(&mut self, step: &Step) -> Result<StepDone, DriverFault>;

    /// The vocabulary and the template, for another thread to use while a step runs.
    fn text(&self) -> std::sync::Arc<dyn TextCodec>;

    /// One vector of length 1 for each token list, pooled as the model was trained to be.
    ///
    /// # Errors
    ///
    /// ENOSYS where the model has no use as an encoder, ENOSPC where a text is longer than its window.
    fn embed(&mut self, texts: &[Vec<Token>]) -> Result<Vec<Vector>, DriverFault>;
}

/// Text to tokens and back. Shared with the thread that answers while a step runs.
pub trait TextCodec: Send + Sync {
    /// Text to tokens.
    ///
    /// # Errors
    ///
    /// EILSEQ, with the first character that the vocabulary cannot express.
    fn tokenize(&self, request: &TokenizeRequest) -> Result<Vec<Token>, DriverFault>;

    /// The bytes of tokens, one after another. Not always UTF-8.
    ///
    /// # Errors
    ///
    /// EINVAL for a token that is not in the vocabulary.
    fn detokenize(&self, tokens: &[Token]) -> Result<Vec<u8>, DriverFault>;

    /// Puts a whole conversation into the model's template and compares it with what the context holds.
    ///
    /// # Errors
    ///
    /// ENOSYS without a template, EINVAL where the template refuses the messages.
    fn chat(&self, request: &ChatRequest) -> Result<ChatDelta, DriverFault>;
}
