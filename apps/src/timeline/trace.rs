//! Chrome's trace-event format, as Perfetto and `chrome://tracing` read it: a list of events, one in a line, written as
//! they come. Readers of the format take a list without its end, so a file that is cut behind any line can be opened.
//! Times are in microseconds.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

/// A line of the picture: a group, which the format calls a process, and a thread of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Track {
    /// The group.
    pub pid: u64,
    /// The line in it.
    pub tid: u64,
}

#[derive(Serialize)]
struct TraceEvent<'a> {
    name: &'a str,
    ph: &'a str,
    #[serde(flatten)]
    track: Track,
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'a str>,
    #[serde(skip_serializing_if = "Value::is_null")]
    args: Value,
}

impl<'a> TraceEvent<'a> {
    fn new(ph: &'a str, name: &'a str, track: Track, ts: u64, args: Value) -> Self {
        TraceEvent { name, ph, track, ts, dur: None, cat: None, id: None, s: None, args }
    }
}

/// A trace on its way into a file.
#[derive(Debug)]
pub struct Trace<W: Write> {
    out: W,
    events: u64,
}

impl<W: Write> Trace<W> {
    /// Begins a trace.
    ///
    /// # Errors
    ///
    /// Those of the file; so for all others.
    pub fn new(mut out: W) -> io::Result<Trace<W>> {
        out.write_all(b"[")?;
        Ok(Trace { out, events: 0 })
    }

    /// Ends the trace, and gives the file with the number of events in it.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.out.write_all(b"\n]\n")?;
        self.out.flush()?;
        Ok((self.out, self.events))
    }

    /// Names a group. Groups are shown in the order of their numbers.
    pub fn name_group(&mut self, pid: u64, name: &str) -> io::Result<()> {
        let track = Track { pid, tid: 0 };
        self.write(&TraceEvent::new("M", "process_name", track, 0, serde_json::json!({"name": name})))?;
        self.write(&TraceEvent::new(
            "M",
            "process_sort_index",
            track,
            0,
            serde_json::json!({"sort_index": pid}),
        ))
    }

    /// Names a line. Lines are shown in the order of their numbers.
    pub fn name_track(&mut self, track: Track, name: &str) -> io::Result<()> {
        self.write(&TraceEvent::new("M", "thread_name", track, 0, serde_json::json!({"name": name})))?;
        let order = serde_json::json!({"sort_index": track.tid});
        self.write(&TraceEvent::new("M", "thread_sort_index", track, 0, order))
    }

    /// Something that took some time. On one line no two may overlap.
    pub fn slice(&mut self, track: Track, name: &str, (from, to): (u64, u64), args: Value) -> io::Result<()> {
        let dur = Some(to.saturating_sub(from));
        self.write(&TraceEvent { dur, ..TraceEvent::new("X", name, track, from, args) })
    }

    /// Something that took some time beside others of its kind; `id` tells them apart. What took none is not shown.
    pub fn span(&mut self, track: Track, name: &str, id: u64, (from, to): (u64, u64)) -> io::Result<()> {
        if to <= from {
            return Ok(());
        }
        for (ph, ts) in [("b", from), ("e", to)] {
            let event = TraceEvent::new(ph, name, track, ts, Value::Null);
            self.write(&TraceEvent { cat: Some(name), id: Some(id), ..event })?;
        }
        Ok(())
    }

    /// Something that happened at one moment.
    pub fn instant(&mut self, track: Track, name: &str, at: u64, args: Value) -> io::Result<()> {
        self.write(&TraceEvent { s: Some("t"), ..TraceEvent::new("i", name, track, at, args) })
    }

    /// A level from some moment on.
    pub fn level(&mut self, pid: u64, name: &str, at: u64, value: u64) -> io::Result<()> {
        let args = serde_json::json!({"value": value});
        self.write(&TraceEvent::new("C", name, Track { pid, tid: 0 }, at, args))
    }

    fn write(&mut self, event: &TraceEvent<'_>) -> io::Result<()> {
        self.out.write_all(if self.events == 0 { b"\n" } else { b",\n" })?;
        self.events += 1;
        serde_json::to_writer(&mut self.out, event).map_err(io::Error::from)
    }
}
