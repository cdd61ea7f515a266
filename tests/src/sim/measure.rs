//! What a run comes to.
//!
//! | measure | meaning |
//! | --- | --- |
//! | time to first token | from the moment at which a client has something to ask until the first token of the answer |
//! | time between tokens | from one token of an answer to the next |
//! | throughput | generated tokens for each second from the first arrival to the last answer |
//! | fairness | Jain's index of what clients were given while they waited: each one's share of device time, as the kernel charges it, for each second in which it had unanswered work. 1 is equal, 1/n is one for all |

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use syscalls::call::Class;
use syscalls::reply::Stats;

/// The longest latency that is told apart: a week, in microseconds.
const LONGEST_US: u64 = 7 * 24 * 3600 * 1_000_000;

/// Latencies of some answers, in microseconds.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// Times to the first token.
    pub first: Histogram<u64>,
    /// Times between tokens.
    pub between: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = || Histogram::new_with_max(LONGEST_US, 3).expect("three digits are possible");
        Latencies { first: histogram(), between: histogram() }
    }
}

/// How long a client has had unanswered work.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    open: u32,
    since: u64,
    us: u64,
}

/// What is measured while a run goes on.
#[derive(Clone, Debug, Default)]
pub struct Measure {
    /// Of everybody.
    pub all: Latencies,
    /// Of each class.
    pub by_class: BTreeMap<Class, Latencies>,
    /// Generated tokens in each second.
    pub tokens_by_second: Vec<u32>,
    waiting: Vec<Waiting>,
    begin: Option<u64>,
    end: u64,
}

impl Measure {
    /// A client has something to ask.
    pub fn asks(&mut self, client: usize, now: u64) {
        self.begin.get_or_insert(now);
        if self.waiting.len() <= client {
            self.waiting.resize(client + 1, Waiting::default());
        }
        let waiting = &mut self.waiting[client];
        if waiting.open == 0 {
            waiting.since = now;
        }
        waiting.open += 1;
    }

    /// A client has its answer, or has given up.
    pub fn answered(&mut self, client: usize, now: u64) {
        let Some(waiting) = self.waiting.get_mut(client) else { return };
        waiting.open = waiting.open.saturating_sub(1);
        if waiting.open == 0 {
            waiting.us += now - waiting.since;
        }
        self.end = self.end.max(now);
    }

    /// Whether a client has unanswered work.
    pub fn waits(&self, client: usize) -> bool {
        self.waiting.get(client).is_some_and(|waiting| waiting.open > 0)
    }

    /// Tokens have come, this long after the client asked or after the ones before.
    pub fn tokens(&mut self, class: Class, first: bool, us: u64, tokens: u64, now: u64) {
        let of_class = self.by_class.entry(class).or_default();
        for latencies in [&mut self.all, of_class] {
            if first {
                latencies.first.saturating_record(us);
            } else {
                latencies.between.saturating_record(us);
            }
            // Those that came in one event came at once.
            latencies.between.saturating_record_n(0, tokens.saturating_sub(1));
        }
        let second = (now / 1_000_000) as usize;
        if self.tokens_by_second.len() <= second {
            self.tokens_by_second.resize(second + 1, 0);
        }
        self.tokens_by_second[second] += tokens as u32;
    }

    /// From the first arrival to the last answer, in seconds.
    pub fn seconds(&self) -> f64 {
        self.end.saturating_sub(self.begin.unwrap_or_default()).max(1) as f64 / 1e6
    }

    /// Jain's index of clients' device time, in microseconds, for each second in which they waited.
    pub fn fairness(&self, service_us: &[u64]) -> f64 {
        let rates: Vec<f64> = (self.waiting.iter().zip(service_us))
            .filter(|(waiting, _)| waiting.us > 0)
            .map(|(waiting, service)| *service as f64 / waiting.us as f64)
            .collect();
        jain(&rates)
    }
}

/// Jain's index: the square of the sum over n times the sum of squares.
pub fn jain(values: &[f64]) -> f64 {
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(s, q), v| (s + v, q + v * v));
    if squares == 0.0 { 1.0 } else { sum * sum / (values.len() as f64 * squares) }
}

/// What a whole run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The policy.
    pub policy: String,
    /// Latencies and throughput.
    pub measure: Measure,
    /// The kernel's counters at the end.
    pub stats: Stats,
    /// Jain's index.
    pub fairness: f64,
    /// Answers that came whole.
    pub answers: u64,
    /// Answers that ended with a fault, by its name.
    pub failed: BTreeMap<String, u64>,
    /// Answers that nobody waits for any more, because the client has gone away.
    pub abandoned: u64,
    /// Calls that were refused for now and made again later.
    pub refused: u64,
    /// Workers that died.
    pub deaths: u64,
    /// Faults that have struck, those deaths among them.
    pub faults: u64,
    /// A digest of each answer's tokens, by task, copy and turn.
    pub texts: BTreeMap<(u32, u32, u32), u64>,
}

impl Report {
    /// Generated tokens a second.
    pub fn throughput(&self) -> f64 {
        self.stats.tokens_generated as f64 / self.measure.seconds()
    }
}

/// The table of several runs of one load, as Markdown; classes have lines of their own where there are several.
pub fn table(reports: &[Report]) -> String {
    let mut out = String::from(
        "| policy | answers | tokens/s | first token p50 · p95 · p99, s | between tokens p50 · p95 · p99, ms | Jain | prompt tokens evaluated · shared | recomputed | swapped out · in, MiB | failed |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for report in reports {
        let s = &report.stats;
        let mib = |bytes: u64| bytes >> 20;
        out.push_str(&format!(
            "| {} | {} | {:.1} | {} | {} | {:.3} | {} · {} | {} | {} · {} | {} |\n",
            report.policy,
            report.answers,
            report.throughput(),
            quantiles(&report.measure.all.first, 1e6, 2),
            quantiles(&report.measure.all.between, 1e3, 1),
            report.fairness,
            s.prompt_tokens_evaluated,
            s.prompt_tokens_shared,
            s.tokens_recomputed,
            mib(s.swap_out_bytes),
            mib(s.swap_in_bytes),
            report.failed.values().sum::<u64>(),
        ));
        if report.measure.by_class.len() > 1 {
            report
                .measure
                .by_class
                .iter()
                .for_each(|(class, of)| out.push_str(&class_line(report, *class, of)));
        }
    }
    out
}

fn class_line(report: &Report, class: Class, latencies: &Latencies) -> String {
    format!(
        "| {}, {} | {} | | {} | {} | | | | | |\n",
        report.policy,
        format!("{class:?}").to_lowercase(),
        latencies.first.len(),
        quantiles(&latencies.first, 1e6, 2),
        quantiles(&latencies.between, 1e3, 1),
    )
}

fn quantiles(times: &Histogram<u64>, unit: f64, digits: usize) -> String {
    [0.5, 0.95, 0.99].map(|q| format!("{:.digits$}", times.value_at_quantile(q) as f64 / unit)).join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fairness_counts_what_clients_got_while_they_waited() {
        assert!((jain(&[3.0, 3.0, 3.0]) - 1.0).abs() < 1e-12);
        assert!((jain(&[1.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-12);
        let mut measure = Measure::default();
        measure.asks(0, 0);
        measure.asks(1, 0);
        measure.asks(1, 10);
        measure.answered(0, 100);
        measure.answered(1, 50);
        measure.answered(1, 200);
        // The same rate for both: 0.5 of the time in which each waited.
        assert!((measure.fairness(&[50, 100]) - 1.0).abs() < 1e-12);
        assert!(measure.fairness(&[100, 100]) < 0.95);
    }
}
