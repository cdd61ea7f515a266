//! `log.jsonl`: what happened, one JSON object on each line.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::error::RunError;

/// How old an entry may become before others can read it. They follow the log of a run that computes.
const FLUSH_EVERY: Duration = Duration::from_millis(250);

/// Something that happened in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Entry {
    /// Steps were done; the loss is the mean since the last entry of this kind.
    Step {
        step: u64,
        steps: u64,
        loss: f64,
        rate: f64,
        norm: f64,
        tokens: u64,
        tokens_per_s: f64,
        eta_s: f64,
    },
    /// The model was evaluated.
    Evaluation {
        step: u64,
        loss: f64,
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
    file: BufWriter<File>,
    flushed: Instant,
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
        let text = fs::read_to_string(&path).unwrap_or_default();
        // The last line may be cut by a crash.
        let entries = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
        let kept: Vec<Entry> = entries
            .filter(|entry| entry.step() <= step && step > 0 && !matches!(entry, Entry::End { .. }))
            .collect();
        let partial = run.join(".log.jsonl");
        let file = File::create(&partial).map_err(RunError::io(&partial))?;
        let mut log = Log {
            path,
            file: BufWriter::new(file),
            flushed: Instant::now(),
            curve: Vec::new(),
            evaluations: Vec::new(),
        };
        kept.iter().try_for_each(|entry| log.write(entry))?;
        log.flush()?;
        fs::rename(&partial, &log.path).map_err(RunError::io(&log.path))?;
        Ok(log)
    }

    /// Adds an entry, and hands all to the system where that was not done for a while.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&mut self, entry: &Entry) -> Result<(), RunError> {
        match entry {
            Entry::Step { step, loss, .. } => self.curve.push((*step, *loss)),
            Entry::Evaluation { step, loss, .. } => self.evaluations.push((*step, *loss)),
            _ => {}
        }
        let mut line = serde_json::to_string(entry).expect("entries are numbers and text");
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(RunError::io(&self.path))?;
        match self.flushed.elapsed() < FLUSH_EVERY {
            true => Ok(()),
            false => self.flush(),
        }
    }

    /// Hands all entries to the system.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn flush(&mut self) -> Result<(), RunError> {
        self.flushed = Instant::now();
        self.file.flush().map_err(RunError::io(&self.path))
    }
}
