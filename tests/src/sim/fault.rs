//! What goes wrong, by chance and by a seed of its own, so that the same load meets no faults, or these.

use drivers::wire::Step;

use super::chance::Chance;

/// How often things go wrong; nothing does by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FaultRates {
    /// Probability that a worker dies in a step.
    pub death: f64,
    /// Probability that a client stops reading when it asks for a generation, for up to five seconds.
    pub slow_reader: f64,
    /// Probability that a client goes away, with all that it waits for, within a second of asking.
    pub disconnect: f64,
}

/// Rows of a step in which a worker may die. The kernel lets a context that is under suspicion run alone, and takes
/// it for the culprit if the worker dies then: a fault that struck there would not be chance.
const ROWS_MIN: usize = 2;

/// The faults of one run.
#[derive(Clone, Debug)]
pub struct Faults {
    rates: FaultRates,
    workers: Chance,
    clients: Chance,
    /// How many have struck.
    struck: u64,
}

impl Faults {
    /// Faults at these rates.
    pub fn new(rates: FaultRates, seed: u64) -> Faults {
        Faults { rates, workers: Chance::of(seed, 100), clients: Chance::of(seed, 101), struck: 0 }
    }

    /// How many faults have struck.
    pub fn struck(&self) -> u64 {
        self.struck
    }

    /// How far a worker gets in a step before it dies of it, as a share of the step's time; none if it survives.
    pub fn death(&mut self, step: &Step) -> Option<f64> {
        let dies = step.rows.len() >= ROWS_MIN && self.workers.happens(self.rates.death);
        self.struck += u64::from(dies);
        dies.then(|| self.workers.fraction())
    }

    /// For how many microseconds a client does not read, if it does not.
    pub fn slow_reader_us(&mut self) -> Option<u64> {
        let slow = self.clients.happens(self.rates.slow_reader);
        self.struck += u64::from(slow);
        slow.then(|| 1 + self.clients.below(5_000_000))
    }

    /// After how many microseconds a client goes away, if it does.
    pub fn disconnect_us(&mut self) -> Option<u64> {
        let goes = self.clients.happens(self.rates.disconnect);
        self.struck += u64::from(goes);
        goes.then(|| self.clients.below(1_000_000))
    }
}
