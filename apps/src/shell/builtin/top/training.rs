//! How a run of the trainer goes on, by its log. Which one a process has is seen by what it has open: the system shows that to
//! its user alone, and nobody has to be asked.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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

/// The runs that were looked at, by the process of the system that each is.
#[derive(Debug, Default)]
pub(super) struct Runs(HashMap<u32, Followed>);

impl Runs {
    /// Forgets those of other processes.
    pub(super) fn keep(&mut self, is_there: impl Fn(u32) -> bool) {
        self.0.retain(|os_pid, _| is_there(*os_pid));
    }

    /// Two lines about the run that a process is, if it is one. What was read of its log before is not read again.
    pub(super) fn of(&mut self, process: &ProcessInfo) -> Option<String> {
        let log = log_of(process.os_pid)?;
        let folder = log.parent()?.display().to_string();
        let followed = self.0.entry(process.os_pid).or_default();
        followed.read_on(&log).ok()?;
        followed.told().map(|about| format!("{} {folder}: {about}", process.pid))
    }
}

fn log_of(os_pid: u32) -> Option<PathBuf> {
    let open = fs::read_dir(format!("/proc/{os_pid}/fd")).ok()?;
    let mut files = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    files.find(|file| file.ends_with("log.jsonl") && file.with_file_name("spec.ron").is_file())
}

/// A log that is read as it grows.
#[derive(Debug, Default)]
struct Followed {
    /// The number of its file: a run that goes on begins another one under the same name.
    inode: u64,
    /// Bytes that were read, up to the end of a line.
    read: u64,
    losses: Vec<f64>,
    last: Option<Entry>,
    validation: Option<f64>,
}

impl Followed {
    /// Takes in what came since the last time.
    fn read_on(&mut self, log: &Path) -> io::Result<()> {
        let mut file = File::open(log)?;
        let about = file.metadata()?;
        if about.ino() != self.inode || about.len() < self.read {
            *self = Followed { inode: about.ino(), ..Followed::default() };
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut more = Vec::new();
        file.read_to_end(&mut more)?;
        // The last line may be half written, up to the middle of a character.
        let whole = more.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        let lines = more[..whole].split(|byte| *byte == b'\n');
        lines.filter_map(|line| serde_json::from_slice(line).ok()).for_each(|entry| self.take(entry));
        Ok(())
    }

    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Step { loss, .. } => {
                self.losses.push(loss);
                self.last = Some(entry);
            }
            Entry::Evaluation { loss } => self.validation = Some(loss),
            Entry::Other => {}
        }
    }

    fn told(&self) -> Option<String> {
        let Some(Entry::Step { step, steps, loss, tokens_per_s, eta_s }) = &self.last else { return None };
        let validation = self.validation.map(|loss| format!(", validation {loss:.3}")).unwrap_or_default();
        let figures =
            format!("step {step} of {steps}, loss {loss:.3}{validation}, {tokens_per_s:.0} tokens/s");
        Some(format!("{figures}, {} left\n{}\n", duration(*eta_s), curve(&self.losses, WIDTH)))
    }
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn curve_goes_from_the_greatest_to_the_least() {
        assert_eq!(curve(&[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 8), "█▇▆▅▄▃▂▁");
        assert_eq!(curve(&[4.0, 2.0, 1.0, 1.0], 2), "█▁");
        assert_eq!(curve(&[1.0, 1.0, f64::NAN], 8), "▁▁");
        assert_eq!(curve(&[], 8), "");
    }

    fn step(step: u64, loss: f64) -> String {
        format!(
            "{{\"event\":\"step\",\"step\":{step},\"steps\":100,\"loss\":{loss:?},\"tokens_per_s\":640.0,\"eta_s\":75.0}}\n"
        )
    }

    #[test]
    fn log_is_told_in_two_lines_and_read_on_from_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log.jsonl");
        let evaluation = "{\"event\":\"evaluation\",\"step\":1,\"loss\":3.5}\n";
        let half = step(2, 2.0);
        let (begun, rest) = half.split_at(20);
        fs::write(&log, step(1, 4.0) + "{\"event\":\"checkpoint\",\"step\":1}\n" + evaluation + begun)
            .unwrap();
        let mut followed = Followed::default();
        assert_eq!(followed.told(), None);
        followed.read_on(&log).unwrap();
        let first = followed.told().unwrap();
        assert!(first.starts_with("step 1 of 100, loss 4.000, validation 3.500"), "{first}");
        let read = followed.read;
        let mut file = File::options().append(true).open(&log).unwrap();
        io::Write::write_all(&mut file, rest.as_bytes()).unwrap();
        followed.read_on(&log).unwrap();
        let wanted = "step 2 of 100, loss 2.000, validation 3.500, 640 tokens/s, 1 min 15 s left\n█▁\n";
        assert_eq!(followed.told().as_deref(), Some(wanted));
        assert_eq!(followed.read - read, half.len() as u64, "nothing is read twice");
        // A text that the model wrote, of which a part of a character is there.
        let sample = "{\"event\":\"sample\",\"step\":2,\"text\":\"今";
        io::Write::write_all(&mut file, (step(3, 1.0) + sample).as_bytes().split_last().unwrap().1).unwrap();
        followed.read_on(&log).unwrap();
        assert!(followed.told().unwrap().starts_with("step 3 of 100, loss 1.000"));
        // A run that goes on writes another file.
        fs::rename(&log, folder.path().join("old")).unwrap();
        fs::write(&log, step(7, 1.0)).unwrap();
        followed.read_on(&log).unwrap();
        assert!(followed.told().unwrap().starts_with("step 7 of 100, loss 1.000, 640"));
    }
}
