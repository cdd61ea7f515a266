//! Recordings of traces: a file of JSON lines that `trace -o` writes and `replay` reads.
//!
//! The first line is the [`Header`], then come the events of the trace as the daemon sent them, and the last line is
//! the [`End`]. A file without that was torn while it was written. The seed of a generation stands in its reply.
//! Prompts and texts are in the events, so the file is for its owner alone.

mod read;

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use syscalls::Event;
use syscalls::call::Attention;
use syscalls::limits::ABI_VERSION;
use syscalls::reply::ModelInfo;

pub use read::{Recording, Refused, read};

/// The version of the file's form.
pub const VERSION: u32 = 1;

/// The largest file that is read, in bytes: about a million events.
pub const BYTES_MAX: u64 = 512 << 20;

/// What was recorded, and on what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the form.
    pub recording: u32,
    /// The version of the interface that its events are of.
    pub abi: u32,
    /// The daemon's release.
    pub daemon: String,
    /// What the trace was told to follow.
    pub settings: Settings,
    /// The models that were mounted when it began.
    pub models: Vec<RecordedModel>,
}

/// What a trace was told to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Children too.
    pub follow: bool,
    /// Each token and step too.
    pub tokens: bool,
}

/// A model that was mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedModel {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: String,
    /// Of its file.
    pub fingerprint: String,
    /// Tokens that a context could hold.
    pub context_tokens: u32,
    /// The attention kernel that ran.
    pub attention: Attention,
    /// Where it ran.
    pub device: String,
    /// Threads of its worker.
    pub threads: u32,
}

/// The last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How many events stand before it.
    pub events: u64,
    /// How many more there were, that came faster than they could be written.
    pub lost: u64,
}

/// The last line as it is written.
#[derive(Serialize, Deserialize)]
struct EndLine {
    end: End,
}

impl Header {
    /// The header of a recording that begins now.
    pub fn new(daemon: &str, models: &[ModelInfo], settings: Settings) -> Header {
        let model = |model: &ModelInfo| RecordedModel {
            name: model.name.clone(),
            path: model.path.clone(),
            fingerprint: model.fingerprint.clone(),
            context_tokens: model.context_tokens,
            attention: model.attention,
            device: model.device.clone(),
            threads: model.threads,
        };
        let models = models.iter().map(model).collect();
        Header { recording: VERSION, abi: ABI_VERSION, daemon: daemon.to_owned(), settings, models }
    }
}

/// Writes a recording.
pub struct Recorder<W: Write> {
    out: W,
    end: End,
    calls: u64,
}

impl<W: Write> Recorder<W> {
    /// Begins one.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn new(mut out: W, header: &Header) -> io::Result<Self> {
        line(&mut out, header)?;
        Ok(Recorder { out, end: End { events: 0, lost: 0 }, calls: 0 })
    }

    /// Writes an event.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn take(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Lost { events } => self.end.lost += events,
            Event::Called { .. } => self.calls += 1,
            _ => {}
        }
        self.end.events += 1;
        line(&mut self.out, event)
    }

    /// Ends it, and gives the writer back with how many calls there were and how many events were lost.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<(W, u64, u64)> {
        line(&mut self.out, &EndLine { end: self.end })?;
        self.out.flush()?;
        Ok((self.out, self.calls, self.end.lost))
    }
}

fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
