//! Vectors for texts, in a context of their own: an encoder has no KV pool, and a decoder that pools must not mix
//! its texts with the sequences of the kernel.

use std::sync::Arc;

use drivers::wire::{DriverFault, Vector};
use llama_cpp_sys_2 as sys;
use syscalls::call::Attention;
use syscalls::{Errno, Token};

use super::batch::Output;
use super::context::{Context, ContextSettings, UBATCH_TOKENS};
use super::model::Model;

/// The largest text. It is one graph, whose memory grows with the square of this.
pub const WINDOW_MAX: u32 = drivers::gguf::estimate::WINDOW_MAX;

/// Texts in one pass.
const TEXTS_PER_PASS: u16 = 64;

/// How a model makes vectors of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// It is an encoder alone: it keeps no KV entries and generates nothing.
    pub encoder: bool,
    /// It says how the vectors of a text's tokens become one.
    pub pools: bool,
    /// Tokens of the longest text.
    pub window: u32,
}

impl Abilities {
    /// Looks at a context that is as small as can be.
    ///
    /// # Errors
    ///
    /// ENOMEM where even that does not fit.
    pub fn of(model: &Arc<Model>) -> Result<Abilities, DriverFault> {
        // SAFETY: the model is loaded.
        let trained = unsafe { sys::llama_model_n_ctx_train(model.raw()) }.max(1) as u32;
        let context = Context::new(model, &settings(32, 1, 1))?;
        let (encoder, pooling) = (!context.has_memory(), context.pooling());
        let pools = pooling != sys::LLAMA_POOLING_TYPE_NONE && pooling != sys::LLAMA_POOLING_TYPE_RANK;
        Ok(Abilities { encoder, pools, window: trained.min(WINDOW_MAX) })
    }
}

fn settings(tokens: u32, texts: u16, threads: u32) -> ContextSettings {
    ContextSettings {
        tokens,
        batch_tokens: tokens,
        ubatch_tokens: tokens,
        sequences: texts,
        outputs: tokens,
        threads,
        attention: Attention::Plain,
        embeddings: true,
    }
}

/// Turns texts into vectors.
pub struct Embedder {
    context: Context,
    window: u32,
    batch_tokens: u32,
    texts_per_pass: u16,
}

impl Embedder {
    /// Sets up the context.
    ///
    /// # Errors
    ///
    /// ENOMEM where there is no memory for it.
    pub fn new(model: &Arc<Model>, window: u32, threads: u32) -> Result<Embedder, DriverFault> {
        let batch_tokens = window.max(UBATCH_TOKENS);
        let context = Context::new(model, &settings(batch_tokens, TEXTS_PER_PASS, threads))?;
        Ok(Embedder { context, window, batch_tokens, texts_per_pass: TEXTS_PER_PASS })
    }

    /// Gives each text a pass of its own, so that its vector depends on nothing else.
    pub fn one_at_a_time(&mut self) {
        self.texts_per_pass = 1;
    }

    /// One vector of length 1 for each text.
    ///
    /// # Errors
    ///
    /// ENOSPC for a text longer than the window, EINVAL for an empty one, EIO where llama.cpp fails.
    pub fn embed(&mut self, texts: &[Vec<Token>]) -> Result<Vec<Vector>, DriverFault> {
        self.check(texts)?;
        let mut vectors = Vec::with_capacity(texts.len());
        let mut rest = texts;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.fitting(rest));
            self.pass(now, &mut vectors)?;
            rest = later;
        }
        Ok(vectors)
    }

    fn check(&self, texts: &[Vec<Token>]) -> Result<(), DriverFault> {
        for (at, text) in texts.iter().enumerate() {
            if text.is_empty() {
                return Err(DriverFault::new(Errno::EINVAL, format!("text {} of the call is empty", at + 1)));
            }
            if text.len() > self.window as usize {
                let message = format!(
                    "text {} has {} tokens and the model's window {}; split it",
                    at + 1,
                    text.len(),
                    self.window
                );
                return Err(DriverFault::new(Errno::ENOSPC, message));
            }
        }
        Ok(())
    }

    /// How many of these texts go into one pass: at least one.
    fn fitting(&self, texts: &[Vec<Token>]) -> usize {
        let mut tokens = 0;
        let fits = |text: &&Vec<Token>| {
            tokens += text.len();
            tokens <= self.batch_tokens as usize
        };
        texts.iter().take(usize::from(self.texts_per_pass)).take_while(fits).count()
    }

    fn pass(&mut self, texts: &[Vec<Token>], vectors: &mut Vec<Vector>) -> Result<(), DriverFault> {
        if self.context.has_memory() {
            self.context.clear();
        }
        let batch = self.context.batch();
        batch.clear();
        for (sequence, text) in texts.iter().enumerate() {
            batch.add(sequence as u16, 0, text, Output::All);
        }
        let failed =
            |what: String| DriverFault::new(Errno::EIO, format!("the model cannot embed the text: {what}"));
        self.context.decode().map_err(|error| failed(format!("{error:?}")))?;
        for sequence in 0..texts.len() as u16 {
            let vector = self.context.vector(sequence).ok_or_else(|| failed("it gave no vector".into()))?;
            let vector = normalised(vector);
            if !vector.iter().all(|number| number.is_finite()) {
                return Err(failed("its output is not a number".into()));
            }
            vectors.push(vector);
        }
        Ok(())
    }
}

fn normalised(vector: &[f32]) -> Vector {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length == 0.0 {
        return vector.to_vec();
    }
    vector.iter().map(|x| (f64::from(*x) / length) as f32).collect()
}
