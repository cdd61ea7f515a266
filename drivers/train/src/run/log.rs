//! `log.jsonl`: what happened, one JSON object on each line.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::error::RunError;
use super::patient::PatientFile;

/// Something that happened in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Entry {
    /// Steps were done; the loss is the mean since the last entry of this kind.
    Step {
        step: u64,
        steps: u64,
        #[serde(deserialize_with = "number")]
        loss: f64,
        rate: f64,
        norm: f64,
        tokens: u64,
        tokens_per_s: f64,
        eta_s: f64,
        /// Batches since then that were not ready when the step wanted them.
        #[serde(default)]
        waited: u64,
    },
    /// The model was evaluated.
    Evaluation {
        step: u64,
        #[serde(deserialize_with = "number")]
        loss: f64,
        #[serde(deserialize_with = "number")]
        perplexity: f64,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        accuracy: Option<f64>,
        best: bool,
    },
    /// The model wrote a text.
    Sample { step: u64, text: String },
    /// A checkpoint was written, or could not be.
    Checkpoint {
        step: u64,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        error: Option<String>,
    },
    /// The run is over.
    End { step: u64, reason: String },
}

/// A number that JSON may have as null, because it is none.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}

impl Entry {
    /// The step that it is about.
    pub fn step(&self) -> u64 {
        match self {
            Entry::Step { step, .. }
            | Entry::Evaluation { step, .. }
            | Entry::Sample { step, .. }
            | Entry::Checkpoint { step, .. }
            | Entry::End { step, .. } => *step,
        }
    }
}

/// The log of a run.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: PatientFile,
    /// Losses by step, for the curve.
    pub curve: Vec<(u64, f64)>,
    /// Losses of evaluations by step.
    pub evaluations: Vec<(u64, f64)>,
}

impl Log {
    /// Opens the log of a run that is at `step`. Entries of later steps are taken out: these steps are done again.
    ///
    /// # Errors
    ///
    /// The file cannot be read or written.
    pub fn open(run: &Path, step: u64) -> Result<Log, RunError> {
        let path = run.join("log.jsonl");
        let text = fs::read(&path).unwrap_or_default();
        // The last line may be cut by a crash, within a character, too.
        let lines = text.split(|byte| *byte == b'\n');
        let entries = lines.filter_map(|line| serde_json::from_slice::<Entry>(line).ok());
        let kept: Vec<Entry> = entries
            .filter(|entry| entry.step() <= step && step > 0 && !matches!(entry, Entry::End { .. }))
            .collect();
        let partial = run.join(".log.jsonl");
        let file = File::create(&partial).map_err(RunError::io(&partial))?;
        let mut log = Log { path, file: PatientFile::new(file), curve: Vec::new(), evaluations: Vec::new() };
        for entry in &kept {
            log.write(entry);
            log.flush()?;
        }
        fs::rename(&partial, &log.path).map_err(RunError::io(&log.path))?;
        Ok(log)
    }

    /// Adds an entry.
    pub fn write(&mut self, entry: &Entry) {
        match entry {
            Entry::Step { step, loss, .. } => self.curve.push((*step, *loss)),
            Entry::Evaluation { step, loss, .. } => self.evaluations.push((*step, *loss)),
            _ => {}
        }
        let mut line = serde_json::to_string(entry).expect("entries are numbers and text");
        line.push('\n');
        self.file.put(line.as_bytes());
    }

    /// Hands all entries to the system.
    ///
    /// # Errors
    ///
    /// The file cannot be written; what it did not take waits.
    pub fn flush(&mut self) -> Result<(), RunError> {
        self.file.flush().map_err(RunError::io(&self.path))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn log_that_a_crash_has_cut_within_a_character_keeps_what_is_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let mut log = Log::open(folder.path(), 0).unwrap();
        [1, 2].iter().for_each(|step| log.write(&Entry::Sample { step: *step, text: "今天".into() }));
        log.flush().unwrap();
        let whole = fs::read(&path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        // Behind the text stand its last quote, a brace and the end of the line.
        fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        drop(Log::open(folder.path(), 2).unwrap());
        assert!(fs::read(&path).unwrap() == whole[..first]);
    }

    #[test]
    fn entry_whose_number_is_none_is_kept_when_a_run_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let loss = |step: u64, loss: f64| Entry::Evaluation {
            step,
            loss,
            perplexity: loss.exp(),
            accuracy: None,
            best: false,
        };
        let mut log = Log::open(folder.path(), 0).unwrap();
        [loss(1, 2.0), loss(2, f64::NAN), loss(3, f64::INFINITY), loss(9, 1.0)]
            .iter()
            .for_each(|e| log.write(e));
        log.flush().unwrap();
        let before = fs::read_to_string(&path).unwrap();
        assert!(before.contains("null"), "{before}");
        drop(Log::open(folder.path(), 3).unwrap());
        let lines: Vec<&str> = before.lines().take(3).collect();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().collect::<Vec<_>>(), lines);
    }
}
