//! What a person sees while a run goes on: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::log::Entry;

/// The progress of a run.
pub struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
}

impl Progress {
    /// Shows a run that is at `step` of `steps`. `quiet` shows nothing.
    pub fn new(step: u64, steps: u64, quiet: bool) -> Progress {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {wide_msg}");
            let bar = ProgressBar::new(steps).with_position(step);
            bar.set_style(style.expect("the template is right"));
            bar
        });
        Progress { bar, quiet }
    }

    /// Shows what happened.
    pub fn show(&self, entry: &Entry) {
        if self.quiet {
            return;
        }
        match (entry, &self.bar) {
            (Entry::Step { step, loss, tokens_per_s, eta_s, .. }, Some(bar)) => {
                bar.set_position(*step);
                let left = duration(*eta_s);
                bar.set_message(format!("loss {loss:.4}  {tokens_per_s:.0} tokens/s  {left} left"));
            }
            (Entry::Step { .. }, None) => {}
            (entry, Some(bar)) => bar.println(line(entry)),
            (entry, None) => eprintln!("{}", line(entry)),
        }
    }

    /// Says something that is no part of the run's log.
    pub fn say(&self, what: &str) {
        match &self.bar {
            _ if self.quiet => {}
            Some(bar) => bar.println(what),
            None => eprintln!("{what}"),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// An entry as a line for people.
fn line(entry: &Entry) -> String {
    match entry {
        Entry::Step { step, loss, .. } => format!("step {step}: loss {loss:.4}"),
        Entry::Evaluation { step, loss, perplexity, accuracy, best } => {
            let accuracy =
                accuracy.map(|share| format!(", {:.1} % right", 100.0 * share)).unwrap_or_default();
            let best = if *best { ", the best so far" } else { "" };
            format!("step {step}: validation loss {loss:.4}, perplexity {perplexity:.2}{accuracy}{best}")
        }
        Entry::Sample { step, text } => format!("step {step}: {}", shown(text)),
        Entry::Checkpoint { step, error: None } => format!("step {step}: checkpoint"),
        Entry::Checkpoint { step, error: Some(error) } => format!("step {step}: {error}"),
        Entry::End { step, reason } => format!("step {step}: {reason}"),
    }
}

/// A text without what would move the terminal's cursor.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A time in the largest two units.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".into();
    }
    let seconds = Duration::from_secs_f64(seconds.min(1e9)).as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest} s"),
        (0, _) => format!("{minutes} min {rest} s"),
        _ => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_units() {
        assert_eq!([duration(7.9), duration(61.0), duration(7322.0)], ["7 s", "1 min 1 s", "2 h 2 min"]);
        assert_eq!(duration(f64::NAN), "?");
    }

    #[test]
    fn text_of_a_model_moves_no_cursor() {
        assert!(!line(&Entry::Sample { step: 1, text: "a\u{1b}[2J".into() }).contains('\u{1b}'));
    }
}
