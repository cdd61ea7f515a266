//! What is measured of a run, each under its name, and how runs become one row.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use harness::bench::report::{median, quantile};
use serde::Serialize;

use crate::system::{Answer, Counters, System};

/// Names of what is measured. Times are in seconds unless the name says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Prompt tokens evaluated, those included that were evaluated before and lost.
    Evaluated,
    /// Prompt tokens that were there already.
    Shared,
    /// Those of them that were evaluated again after their pages were taken.
    Recomputed,
    /// The most cells in use at once.
    CellsUsed,
    /// Cells of the pool.
    CellsTotal,
    SwapOutBytes,
    SwapInBytes,
    Wall,
    FirstP50,
    FirstP95,
    GapP50,
    GapP95,
    GapMax,
    TokensPerSecond,
    /// Requests that were answered in full.
    Complete,
    Requests,
    /// Answers that are not what the same process says alone.
    Differ,
    /// How many tokens of those were the same before the first that was not.
    DifferFrom,
    /// Answers that differ by more than a near tie can explain.
    Wrong,
    /// How much less likely the other token was than the likeliest one, at the worst, as a difference of logarithms.
    PartedBy,
    /// Answers that were compared.
    Compared,
    /// Prompt tokens per second of one stream.
    Prefill,
    /// Tokens per second while all streams generate.
    Decode,
    /// The work that somebody disturbed took so much longer, as a fraction.
    Loss,
    /// The worst gap while somebody disturbed, as a multiple of the gap without.
    GapRatio,
    /// The worst gap while nobody did, as a multiple of the same.
    GapRatioAlone,
    /// From a long prompt to its first token.
    LongFirst,
    /// Generated tokens of complete answers per second.
    Goodput,
    ForkMs,
    ForkEvaluated,
    /// Jain's index over what the clients got.
    Jain,
    /// What the first of two clients got of both clients' service.
    ServiceShare,
    /// How far apart what two clients got was, as time of the device.
    ServiceApart,
}

/// The figures of a run, or the medians of several.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<Figure, f64>);

impl Figures {
    /// One of them.
    pub fn get(&self, figure: Figure) -> Option<f64> {
        self.0.get(&figure).copied()
    }

    /// Sets one; what is no number was not measured.
    pub fn set(&mut self, figure: Figure, value: f64) {
        if value.is_finite() {
            self.0.insert(figure, value);
        }
    }

    /// As [`Figures::set`].
    #[must_use]
    pub fn with(mut self, figure: Figure, value: f64) -> Figures {
        self.set(figure, value);
        self
    }

    /// The median of each figure over runs.
    pub fn medians(runs: &[Figures]) -> Figures {
        let names: BTreeSet<Figure> = runs.iter().flat_map(|run| run.0.keys().copied()).collect();
        let of =
            |figure: &Figure| median(&runs.iter().filter_map(|run| run.get(*figure)).collect::<Vec<_>>());
        Figures(names.iter().map(|figure| (*figure, of(figure))).collect())
    }

    /// What all requests of a run together came to, from `begun` to the last of them.
    pub fn of(answers: &[Answer], begun: Instant) -> Figures {
        let mut figures = Figures::default();
        let end = answers.iter().map(|a| a.done).max().unwrap_or(begun);
        let wall = end.duration_since(begun).as_secs_f64();
        let generated: usize = answers.iter().map(|a| a.tokens.len()).sum();
        let firsts: Vec<f64> = answers.iter().filter_map(Answer::first_s).collect();
        let gaps: Vec<f64> = answers.iter().flat_map(Answer::gaps_s).map(|(_, gap)| gap).collect();
        figures.set(Figure::Evaluated, answers.iter().map(|a| f64::from(a.evaluated)).sum());
        figures.set(Figure::Shared, answers.iter().map(|a| f64::from(a.shared)).sum());
        figures.set(Figure::Wall, wall);
        figures.set(Figure::FirstP50, quantile(&firsts, 0.5));
        figures.set(Figure::FirstP95, quantile(&firsts, 0.95));
        figures.set(Figure::GapP50, quantile(&gaps, 0.5));
        figures.set(Figure::GapP95, quantile(&gaps, 0.95));
        figures.set(Figure::GapMax, quantile(&gaps, 1.0));
        figures.set(Figure::TokensPerSecond, generated as f64 / wall);
        figures.set(Figure::Complete, answers.iter().filter(|a| a.complete).count() as f64);
        figures.set(Figure::Requests, answers.len() as f64);
        figures
    }

    /// Adds what the side itself has counted between two moments.
    pub fn count(&mut self, system: &dyn System, before: Option<Counters>, after: Option<Counters>) {
        self.set(Figure::CellsTotal, system.cells() as f64);
        let (Some(before), Some(after)) = (before, after) else { return };
        let recomputed = (after.recomputed - before.recomputed) as f64;
        // The daemon counts apart what the server counts as one.
        self.set(Figure::Evaluated, (after.evaluated - before.evaluated) as f64 + recomputed);
        self.set(Figure::Recomputed, recomputed);
        self.set(Figure::Shared, (after.shared - before.shared) as f64);
        self.set(Figure::SwapOutBytes, (after.swap_out_bytes - before.swap_out_bytes) as f64);
        self.set(Figure::SwapInBytes, (after.swap_in_bytes - before.swap_in_bytes) as f64);
        self.set(Figure::CellsUsed, after.cells_used as f64);
    }
}

/// Tokens per second from the moment at which all answers have begun to the end of the first one: what streams get
/// while all of them generate.
pub fn decode_rate(answers: &[Answer]) -> f64 {
    let from = answers.iter().filter_map(|a| a.times.first()).max();
    let to = answers.iter().filter_map(|a| a.times.last()).min();
    let (Some(from), Some(to)) = (from, to) else { return f64::NAN };
    let within = |time: &&Instant| *time > from && *time <= to;
    let tokens: usize = answers.iter().map(|a| a.times.iter().filter(within).count()).sum();
    tokens as f64 / to.duration_since(*from).as_secs_f64()
}
