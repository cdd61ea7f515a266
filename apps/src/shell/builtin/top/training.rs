//! How a run of the trainer goes on, by its log. Which one a process has is seen by what it has open: the system shows that to
//! its user alone, and nobody has to be asked.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use syscalls::reply::ProcessInfo;

/// Characters of the curve.
const WIDTH: usize = 60;

/// What columns of the curve are drawn with, from the least loss to the greatest.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The entries of a log that are about the loss; the trainer's `run/log.rs` has all of them.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Entry {
    Step {
        step: u64,
        steps: u64,
        loss: f64,
        tokens_per_s: f64,
        eta_s: f64,
    },
    Evaluation {
        loss: f64,
    },
    #[serde(other)]
    Other,
}

/// Two lines about the run that a process is, if it is one.
pub(super) fn of(process: &ProcessInfo) -> Option<String> {
    let log = log_of(process.os_pid)?;
    let folder = log.parent()?.display().to_string();
    about(&fs::read_to_string(&log).ok()?).map(|about| format!("{} {folder}: {about}", process.pid))
}

fn log_of(os_pid: u32) -> Option<PathBuf> {
    let open = fs::read_dir(format!("/proc/{os_pid}/fd")).ok()?;
    let mut files = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    files.find(|file| file.ends_with("log.jsonl") && file.with_file_name("spec.ron").is_file())
}

fn about(log: &str) -> Option<String> {
    let (mut losses, mut last, mut validation) = (Vec::new(), None, None);
    // The last line may be half written.
    for entry in log.lines().filter_map(|line| serde_json::from_str(line).ok()) {
        match entry {
            Entry::Step { loss, .. } => {
                losses.push(loss);
                last = Some(entry);
            }
            Entry::Evaluation { loss } => validation = Some(loss),
            Entry::Other => {}
        }
    }
    let Some(Entry::Step { step, steps, loss, tokens_per_s, eta_s }) = last else { return None };
    let validation = validation.map(|loss| format!(", validation {loss:.3}")).unwrap_or_default();
    let figures = format!("step {step} of {steps}, loss {loss:.3}{validation}, {tokens_per_s:.0} tokens/s");
    Some(format!("{figures}, {} left\n{}\n", duration(eta_s), curve(&losses, WIDTH)))
}

/// Numbers as columns, each the mean of those that fall on it.
fn curve(numbers: &[f64], width: usize) -> String {
    let numbers: Vec<f64> = numbers.iter().copied().filter(|number| number.is_finite()).collect();
    let width = width.min(numbers.len());
    let column = |at: usize| {
        let part = &numbers[at * numbers.len() / width..(at + 1) * numbers.len() / width];
        part.iter().sum::<f64>() / part.len() as f64
    };
    let columns: Vec<f64> = (0..width).map(column).collect();
    let least = columns.iter().copied().fold(f64::INFINITY, f64::min);
    let range = columns.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least;
    let height = |number: f64| match range > 0.0 {
        true => ((number - least) / range * (BLOCKS.len() - 1) as f64).round() as usize,
        false => 0,
    };
    columns.into_iter().map(|number| BLOCKS[height(number)]).collect()
}

fn duration(seconds: f64) -> String {
    let seconds = if seconds.is_finite() { seconds.clamp(0.0, 1e9) as u64 } else { 0 };
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curve_goes_from_the_greatest_to_the_least() {
        assert_eq!(curve(&[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 8), "█▇▆▅▄▃▂▁");
        assert_eq!(curve(&[4.0, 2.0, 1.0, 1.0], 2), "█▁");
        assert_eq!(curve(&[1.0, 1.0, f64::NAN], 8), "▁▁");
        assert_eq!(curve(&[], 8), "");
    }

    #[test]
    fn log_is_told_in_two_lines() {
        let log = r#"{"event":"step","step":1,"steps":100,"loss":4.0,"rate":0.1,"norm":1.0,"tokens":64,"tokens_per_s":640.0,"eta_s":75.0}
{"event":"checkpoint","step":1}
{"event":"evaluation","step":1,"loss":3.5,"perplexity":33.1,"best":true}
{"event":"step","step":2,"steps":100,"loss":2.0,"rate":0.1,"norm":1.0,"tokens":128,"tokens_per_s":640.0,"eta_s":75.0}
{"event":"step","st"#;
        let wanted = "step 2 of 100, loss 2.000, validation 3.500, 640 tokens/s, 1 min 15 s left\n█▁\n";
        assert_eq!(about(log).as_deref(), Some(wanted));
        assert_eq!(about(""), None);
    }
}
