//! When a run may compute, and when it is to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One forward and backward pass that is about to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MicroStep {
    /// The step that it is part of, from 0 on.
    pub step: u64,
    /// Its number within the step, from 0 on.
    pub number: usize,
    /// Tokens that it computes.
    pub tokens: usize,
}

/// Who grants device time. It is asked before every pass, and may keep the run waiting.
pub trait Turn {
    /// Returns when the pass may be computed.
    fn take(&mut self, next: MicroStep);
}

/// Nobody: the run computes whenever the operating system lets it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Always;

impl Turn for Always {
    fn take(&mut self, _: MicroStep) {}
}

/// A wish that the run stops behind the step that it is at, with a checkpoint. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// Makes the wish, in the name of a signal.
    pub fn by(&self, signal: i32) {
        self.0.store(signal as usize, Ordering::Relaxed);
    }

    /// The signal that wished it.
    pub fn signal(&self) -> Option<i32> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal as i32),
        }
    }

    /// The number itself, for a signal handler to write to.
    pub fn flag(&self) -> Arc<AtomicUsize> {
        self.0.clone()
    }
}
