//! What a run will take, before it begins: `--dry-run`.

use std::fmt;
use std::time::Instant;

use super::compute::{change, learn};
use super::error::RunError;
use super::memory::Memory;
use super::progress::duration;
use super::setup::Setup;

use super::turn::Turn;
use crate::Gradients;
use crate::data::Position;
use crate::spec::DeviceSpec;

/// Steps that are measured; one more is done first, which finds caches cold.
const MEASURED: u64 = 3;

/// What a run will take.
#[derive(Clone, Debug)]
pub struct Expectation {
    pub parameters: usize,
    pub trainable: usize,
    pub vocabulary: u32,
    pub tokens: u64,
    pub validation_tokens: u64,
    pub memory: Memory,
    /// Whose memory that is.
    pub device: DeviceSpec,
    pub steps: u64,
    pub epochs: f64,
    pub tokens_each: u64,
    pub seconds_each: f64,
}

/// Measures a few steps, in the turns that it is given, and forgets them.
///
/// # Errors
///
/// The model refuses its data.
pub fn expect(mut setup: Setup, turn: &mut dyn Turn) -> Result<Expectation, RunError> {
    let mut gradients = Gradients::new(setup.model.parameters())?;
    let mut position = Position::default();
    let (mut seconds, mut tokens) = (0.0, 0);
    for step in 0..=MEASURED {
        let mut batches = Vec::new();
        for _ in 0..setup.spec.accumulate {
            let (batch, next) = setup.train.batch(position, setup.spec.batch);
            position = next;
            batches.push(batch);
        }
        let begun = Instant::now();
        let count = batches.iter().map(|batch: &crate::Batch| batch.input.tokens.len() as u64).sum();
        learn(&mut setup, batches, step, &mut gradients, turn)?;
        change(&mut setup, step, &gradients)?;
        gradients.clear();
        if step > 0 {
            seconds += begun.elapsed().as_secs_f64();
        }
        tokens = count;
    }
    let (parameters, trainable) = setup.model.parameters().counts();
    let examples = setup.train.examples();
    let each = (setup.spec.batch * setup.spec.accumulate) as f64;
    Ok(Expectation {
        parameters,
        trainable,
        vocabulary: setup.tokeniser.size(),
        tokens: examples.tokens(),
        validation_tokens: setup.validation.as_ref().map_or(0, |data| data.examples().tokens()),
        memory: setup.memory,
        device: setup.spec.device,
        steps: setup.steps,
        epochs: setup.steps as f64 * each / examples.count(0) as f64,
        tokens_each: tokens,
        seconds_each: seconds / MEASURED as f64,
    })
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "parameters  {}, of which {} are trained", self.parameters, self.trainable)?;
        writeln!(f, "vocabulary  {} tokens", self.vocabulary)?;
        writeln!(f, "data        {} tokens, and {} for validation", self.tokens, self.validation_tokens)?;
        let of = match self.device {
            DeviceSpec::Cpu => String::new(),
            card => format!(", of {card:?}"),
        };
        writeln!(f, "memory      {}{of}", self.memory)?;
        let (steps, epochs, each) = (self.steps, self.epochs, self.tokens_each);
        writeln!(f, "steps       {steps} of {each} tokens, {epochs:.2} times through the data")?;
        let rate = self.tokens_each as f64 / self.seconds_each;
        let time = duration(self.seconds_each * self.steps as f64);
        write!(f, "time        {time} at {rate:.0} tokens/s, and evaluations")
    }
}
