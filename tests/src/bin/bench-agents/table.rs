//! The tables on standard output, and the file of results.

use std::path::Path;

use anyhow::{Context, Result};
use harness::bench::report::number;
use serde::Serialize;
use serde_json::json;

use crate::cases::{Case, Rows, Verdict, ratio, verdict};
use crate::figures::{Figure, Figures};
use crate::side::Side;

/// Bytes of a mebibyte.
const MIB: f64 = 1024.0 * 1024.0;

/// All that was measured of a case.
pub struct Measured<'a> {
    pub case: &'a dyn Case,
    pub preset: &'a str,
    /// Each row with its runs; without any where it could not be measured.
    pub runs: Vec<(Side, Vec<Figures>)>,
    pub troubles: Vec<String>,
}

impl Measured<'_> {
    /// The medians of the rows that were measured.
    pub fn rows(&self) -> Rows {
        let measured = self.runs.iter().filter(|(_, runs)| !runs.is_empty());
        Rows { rows: measured.map(|(side, runs)| (side.clone(), Figures::medians(runs))).collect() }
    }

    /// Whether each run has come to figures.
    pub fn is_whole(&self) -> bool {
        let mut ours = self.runs.iter().filter(|(side, _)| side.is_ours());
        self.troubles.is_empty() && ours.all(|(_, runs)| !runs.is_empty())
    }

    /// What it must reach, and whether it does.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let answered = self.case.is_answered().then(|| self.answered());
        answered.into_iter().chain(self.case.verdicts(&self.rows())).collect()
    }

    /// Whether we have answered every request of each run: of less work all other figures would be better.
    fn answered(&self) -> Verdict {
        let ours = self.runs.iter().filter(|(side, _)| side.is_ours()).flat_map(|(_, runs)| runs);
        let shares = ours.filter_map(|run| ratio(run.get(Figure::Complete), run.get(Figure::Requests)));
        let least = shares.reduce(f64::min).map(|share| share * 100.0);
        verdict("answers all requests in full".into(), least, " %", |share| share >= 100.0)
    }

    /// Prints the case: a table of its rows, and one of its targets.
    pub fn print(&self) {
        println!("\n### {} on {}: {}\n", self.case.name(), self.preset, self.case.title());
        println!(
            "| side | prompt tokens evaluated | of them again | shared | cells used / of | MiB swapped out / in | wall s | \
             first token p50 / p95 s | gap p50 / p95 / max ms | tokens/s | complete | also | llmasos is better by | \
             differs from alone |"
        );
        println!("| --- |{}", " ---: |".repeat(13));
        let rows = self.rows();
        let compared = self.case.compared_by();
        for (side, figures) in &rows.rows {
            println!("| {} |{}", side.label, cells(figures, side, rows.ours(compared.0), compared));
        }
        println!("\n| {} must reach | measured | |\n| --- | ---: | --- |", self.case.name());
        for verdict in self.verdicts() {
            let met = verdict.met.map_or("–", |met| if met { "pass" } else { "fail" });
            println!("| {} | {} | {met} |", verdict.target, verdict.measured);
        }
        self.troubles.iter().for_each(|trouble| println!("\nnot measured: {trouble}"));
    }

    fn json(&self) -> serde_json::Value {
        let rows = self.runs.iter().map(
            |(side, runs)| json!({ "side": side.label, "runs": runs, "median": Figures::medians(runs) }),
        );
        let verdicts = self.verdicts().into_iter().map(
            |verdict| json!({ "target": verdict.target, "measured": verdict.measured, "met": verdict.met }),
        );
        json!({
            "model": self.preset,
            "case": self.case.name(),
            "title": self.case.title(),
            "rows": rows.collect::<Vec<_>>(),
            "targets": verdicts.collect::<Vec<_>>(),
            "troubles": self.troubles,
        })
    }
}

/// What a run of the bench was made with.
#[derive(Clone, Debug, Serialize)]
pub struct Setup {
    pub machine: String,
    pub threads: u32,
    pub weights: String,
    pub quick: bool,
    pub seed: u64,
}

/// Writes everything to a file.
///
/// # Errors
///
/// Those of the file.
pub fn write(path: &Path, setup: &Setup, measured: &[Measured<'_>]) -> Result<()> {
    let cases: Vec<_> = measured.iter().map(Measured::json).collect();
    let text = serde_json::to_string_pretty(&json!({ "setup": setup, "cases": cases }))?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// The cells of a row behind its name.
fn cells(figures: &Figures, side: &Side, ours: Option<f64>, compared: (Figure, bool)) -> String {
    use Figure::*;
    let columns = [
        whole(figures, Evaluated),
        whole(figures, Recomputed),
        whole(figures, Shared),
        joined(figures, &[CellsUsed, CellsTotal], 1.0),
        joined(figures, &[SwapOutBytes, SwapInBytes], MIB.recip()),
        joined(figures, &[Wall], 1.0),
        joined(figures, &[FirstP50, FirstP95], 1.0),
        joined(figures, &[GapP50, GapP95, GapMax], 1e3),
        joined(figures, &[TokensPerSecond], 1.0),
        joined(figures, &[Complete, Requests], 1.0),
        also(figures),
        better_by(figures, side, ours, compared),
        differs(figures),
    ];
    columns.map(|column| format!(" {column} |")).concat()
}

fn whole(figures: &Figures, figure: Figure) -> String {
    figures.get(figure).map_or("–".into(), |value| format!("{value:.0}"))
}

/// Several figures in one cell, in a unit of which `scale` make one of the figure's own.
fn joined(figures: &Figures, names: &[Figure], scale: f64) -> String {
    let shown = |name: &Figure| figures.get(*name).map_or("–".into(), |value| shortest(value * scale));
    let all: Vec<String> = names.iter().map(shown).collect();
    if all.iter().all(|cell| cell == "–") { "–".into() } else { all.join(" / ") }
}

/// Figures that only some cases have.
fn also(figures: &Figures) -> String {
    use Figure::*;
    let names = [
        (Prefill, "prefill", " t/s", 1.0),
        (Decode, "decode", " t/s", 1.0),
        (Loss, "work longer by", " %", 100.0),
        (GapRatio, "worst gap", " × normal", 1.0),
        (GapRatioAlone, "without the prompt", " × normal", 1.0),
        (LongFirst, "long prompt", " s", 1.0),
        (Goodput, "goodput", " t/s", 1.0),
        (ForkMs, "fork", " ms", 1.0),
        (Jain, "Jain", "", 1.0),
        (ServiceShare, "slower client gets", " %", 100.0),
        (ServiceApart, "service apart by", " s", 1.0),
    ];
    let shown = names.into_iter().filter_map(|(figure, name, unit, scale)| {
        Some(format!("{name} {}{unit}", shortest(figures.get(figure)? * scale)))
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// How many answers differ, of how many that were compared, from which token on, and how many of them by more than
/// a near tie.
fn differs(figures: &Figures) -> String {
    let from = figures.get(Figure::DifferFrom).map(|same| format!(" from token {:.0} on", same + 1.0));
    let wrong = figures.get(Figure::Wrong).filter(|wrong| *wrong > 0.0).map(|n| format!(", {n:.0} WRONG"));
    let differ = joined(figures, &[Figure::Differ, Figure::Compared], 1.0);
    let by = figures.get(Figure::PartedBy).map(|by| format!(" by {by:.3} nats"));
    differ + &from.unwrap_or_default() + &by.unwrap_or_default() + &wrong.unwrap_or_default()
}

fn better_by(figures: &Figures, side: &Side, ours: Option<f64>, (figure, less): (Figure, bool)) -> String {
    match (ours, figures.get(figure)) {
        (Some(ours), Some(theirs)) if !side.is_ours() => {
            format!("{:.2} ×", if less { theirs / ours } else { ours / theirs })
        }
        _ => "–".into(),
    }
}

/// A number without digits that say nothing.
fn shortest(value: f64) -> String {
    match value {
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        _ if value.abs() < 1.0 => format!("{value:.3}"),
        _ => number(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    #[test]
    fn case_that_was_not_measured_is_not_whole() {
        let all = cases::all(true);
        let whole = |figures: &[Figures], troubles: &[&str]| {
            let runs = vec![(Side::llmasos(64), figures.to_vec())];
            let troubles = troubles.iter().map(|&trouble| trouble.to_owned()).collect();
            Measured { case: all[0].as_ref(), preset: "30m", runs, troubles }.is_whole()
        };
        assert!(whole(&[Figures::default()], &[]));
        assert!(!whole(&[Figures::default()], &["llama-server: it did not answer"]));
        assert!(!whole(&[], &[]));
    }

    #[test]
    fn case_with_a_request_that_was_not_answered_does_not_pass() {
        let all = cases::all(true);
        let met = |complete: &[f64]| {
            let run = |complete: &f64| {
                Figures::default().with(Figure::Complete, *complete).with(Figure::Requests, 8.0)
            };
            let runs = vec![(Side::llmasos(64), complete.iter().map(run).collect())];
            let measured = Measured { case: all[0].as_ref(), preset: "30m", runs, troubles: vec![] };
            measured.verdicts()[0].met
        };
        assert_eq!(met(&[8.0, 8.0]), Some(true));
        assert_eq!(met(&[8.0, 7.0, 8.0]), Some(false), "the median alone would hide it");
        assert_eq!(met(&[]), None);
    }
}
