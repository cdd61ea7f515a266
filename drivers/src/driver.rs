//! What every driver does, and the state of a sequence that it keeps for the kernel.
//!
//! A driver runs one model. It knows sequences, by address-space ids ([`Asid`]) that the kernel hands out, and
//! for each one the KV entries of positions `0..n` and at most one sampler. It knows nothing of processes,
//! priorities or limits: it does what a [`Step`] says, in the order in which it says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::wire::{
    ChatDelta, ChatRequest, DriverFault, ModelDescription, Step, StepDone, TokenizeRequest, Vector,
};
use syscalls::Token;

/// Runs one model.
///
/// # Invariants
///
/// Between two steps a driver holds exactly the KV entries that the steps so far have made and not dropped.
/// A step that fails as a whole changes nothing that the kernel could see: its rows may be sent again. Nor does a row that
/// fails, with one exception: where sequences cannot be cut (`ranges` is false), one whose row failed for another reason
/// than ENOMEM is empty.
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
    fn text(&self) -> Arc<dyn TextCodec>;

    /// By which another thread stops the step that runs; none where a pass cannot be stopped.
    fn withdrawal(&self) -> Option<Arc<Withdrawal>> {
        None
    }

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

/// Which step the kernel has withdrawn. The thread that hears the kernel writes it, and the pass that runs looks at
/// it all the time. Steps are known by their numbers, so one that is done or has yet to come is not mistaken for
/// the one that runs.
#[derive(Debug)]
pub struct Withdrawal {
    running: AtomicU64,
    withdrawn: AtomicU64,
}

impl Withdrawal {
    /// No step has this number.
    const NONE: u64 = u64::MAX;

    /// Withdraws a step: the one that runs, or one that was sent and has not begun.
    pub fn withdraw(&self, number: u64) {
        self.withdrawn.store(number, Ordering::Relaxed);
    }

    /// The driver begins with a step.
    pub fn begin(&self, number: u64) {
        self.running.store(number, Ordering::Relaxed);
    }

    /// The step that the driver began with last.
    pub fn running(&self) -> Option<u64> {
        Some(self.running.load(Ordering::Relaxed)).filter(|number| *number != Self::NONE)
    }

    /// Whether that step is withdrawn.
    pub fn is_withdrawn(&self) -> bool {
        self.running() == Some(self.withdrawn.load(Ordering::Relaxed))
    }
}

impl Default for Withdrawal {
    fn default() -> Self {
        Withdrawal { running: AtomicU64::new(Self::NONE), withdrawn: AtomicU64::new(Self::NONE) }
    }
}
