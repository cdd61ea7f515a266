//! How long the core itself takes for an event, by the real clock. Nothing simulated depends on it.

use std::time::Instant;

use hdrhistogram::Histogram;
use kernel::core::Event;

/// The longest time that is told apart, in nanoseconds.
const LONGEST_NS: u64 = 10_000_000_000;

/// Times of events.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Ends of steps, with all that the core does before the next step is on its way.
    pub steps: Histogram<u64>,
    /// Calls of programs.
    pub calls: Histogram<u64>,
    /// Of all events together.
    pub total_ns: u64,
    /// How many events there were.
    pub events: u64,
}

impl Default for Probe {
    fn default() -> Self {
        let histogram = || Histogram::new_with_max(LONGEST_NS, 3).expect("three digits are possible");
        Probe { steps: histogram(), calls: histogram(), total_ns: 0, events: 0 }
    }
}

/// What is measured now.
pub struct Stopwatch {
    begin: Instant,
    of: Of,
}

enum Of {
    Step,
    Call,
    Other,
}

impl Stopwatch {
    /// Starts before an event is given to the core.
    pub fn start(event: &Event) -> Stopwatch {
        let of = match event {
            Event::StepDone { .. } => Of::Step,
            Event::Request { .. } => Of::Call,
            _ => Of::Other,
        };
        Stopwatch { begin: Instant::now(), of }
    }
}

impl Probe {
    /// Stops when the core has taken the event in.
    pub fn stop(&mut self, watch: &Stopwatch) {
        let ns = u64::try_from(watch.begin.elapsed().as_nanos()).unwrap_or(LONGEST_NS);
        self.total_ns += ns;
        self.events += 1;
        match watch.of {
            Of::Step => self.steps.saturating_record(ns),
            Of::Call => self.calls.saturating_record(ns),
            Of::Other => {}
        }
    }
}

/// A quantile in microseconds.
pub fn quantile_us(times: &Histogram<u64>, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1000.0
}
