//! A timeline of what a kernel does, from the events that `subscribe` streams, as a file for
//! [Perfetto](https://ui.perfetto.dev).
//!
//! | group | line | shows |
//! | --- | --- | --- |
//! | models | *model*: steps | each step, with its rows and tokens |
//! | models | *model*: worker | loading, ready, and deaths |
//! | models | *model*: frames free | how many frames have no page |
//! | processes | *name (pid)* | the steps that the process had rows in, and what came to its pages |
//! | processes | waits for frames | each generation that waits until there is memory for it |
//!
//! A process has a line for each model that it uses. Whatever the events are, the file can be read: what they leave
//! open ends with the last of them.

mod trace;

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};
use syscalls::event::{PageChange, ProcessChange, StepRow, WorkerChange};
use syscalls::{ContextId, Event, Pid};

use trace::{Trace, Track};

/// The group of models.
const MODELS: u64 = 1;
/// The group of processes.
const PROCESSES: u64 = 2;

/// Lines of a model: steps, worker.
const LINES_OF_MODEL: u64 = 2;

/// What a worker has been doing, and since when.
#[derive(Clone, Copy, Debug)]
struct Phase {
    name: &'static str,
    since: u64,
}

/// A timeline on its way into a file.
#[derive(Debug)]
pub struct Timeline<W: Write> {
    trace: Trace<W>,
    names: BTreeMap<Pid, String>,
    models: BTreeMap<String, u64>,
    rows: BTreeMap<(Pid, u64), Track>,
    phases: BTreeMap<u64, Phase>,
    /// Generations that wait for frames.
    waits: BTreeMap<ContextId, (u64, Track)>,
    last: u64,
}

impl<W: Write> Timeline<W> {
    /// Begins a timeline.
    ///
    /// # Errors
    ///
    /// Those of the file; so for all others.
    pub fn new(out: W) -> io::Result<Timeline<W>> {
        let mut trace = Trace::new(out)?;
        trace.name_group(MODELS, "models")?;
        trace.name_group(PROCESSES, "processes")?;
        Ok(Timeline {
            trace,
            names: BTreeMap::new(),
            models: BTreeMap::new(),
            rows: BTreeMap::new(),
            phases: BTreeMap::new(),
            waits: BTreeMap::new(),
            last: 0,
        })
    }

    /// Says how a process is called of which there was no event.
    pub fn name(&mut self, pid: Pid, name: &str) {
        self.names.insert(pid, name.to_owned());
    }

    /// Takes an event in. Those that are not of a subscription are not shown.
    pub fn take(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Process { at_us, pid, name, change, status, .. } => {
                self.last = self.last.max(*at_us);
                self.names.insert(*pid, name.clone());
                if *change == ProcessChange::Ended {
                    self.process_ended(*pid, *at_us, *status)
                } else {
                    Ok(())
                }
            }
            Event::Step { at_us, begun_us, elapsed_us, model, number, frames_free, rows } => {
                self.last = self.last.max(*at_us);
                let (line, when) = (self.model(model)?, (*begun_us, *at_us));
                let args = json!({"number": number, "contexts": rows.len(), "elapsed_us": elapsed_us});
                self.trace.slice(line, &step_name(rows), when, args)?;
                self.trace.level(MODELS, &format!("{model}: frames free"), *at_us, *frames_free)?;
                self.step_rows(line.tid, when, rows)
            }
            Event::Page { at_us, model, pid, context, change, tokens } => {
                self.last = self.last.max(*at_us);
                let line = self.model(model)?.tid;
                self.pages(line, *pid, *context, *change, (*at_us, *tokens))
            }
            Event::Worker { at_us, model, incarnation, change, detail } => {
                self.last = self.last.max(*at_us);
                let steps = self.model(model)?;
                self.worker(steps, *change, *at_us, json!({"incarnation": incarnation, "detail": detail}))
            }
            Event::Lost { events } => {
                let line = Track { pid: MODELS, tid: 0 };
                self.trace.instant(line, &format!("{events} events were lost here"), self.last, Value::Null)
            }
            Event::Tokens { .. }
            | Event::Replaying { .. }
            | Event::Slid { .. }
            | Event::Compacted { .. }
            | Event::Progress { .. }
            | Event::Output { .. }
            | Event::Service { .. }
            | Event::Called { .. }
            | Event::Returned { .. }
            | Event::Sampled { .. }
            | Event::Signalled { .. }
            | Event::Held { .. } => Ok(()),
        }
    }

    /// Ends what is open, and gives the file with the number of entries in it.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        for (context, (since, line)) in std::mem::take(&mut self.waits) {
            self.trace.span(line, WAITS, context.0, (since, self.last))?;
        }
        for (tid, phase) in std::mem::take(&mut self.phases) {
            let line = Track { pid: MODELS, tid };
            self.trace.slice(line, phase.name, (phase.since, self.last), Value::Null)?;
        }
        self.trace.finish()
    }

    /// The line of a model's steps.
    fn model(&mut self, name: &str) -> io::Result<Track> {
        if let Some(tid) = self.models.get(name) {
            return Ok(Track { pid: MODELS, tid: *tid });
        }
        let line = Track { pid: MODELS, tid: 1 + LINES_OF_MODEL * self.models.len() as u64 };
        self.models.insert(name.to_owned(), line.tid);
        self.trace.name_track(line, &format!("{name}: steps"))?;
        self.trace.name_track(worker_line(line), &format!("{name}: worker"))?;
        Ok(line)
    }

    /// The line of a process on a model.
    fn row(&mut self, pid: Pid, model: u64) -> io::Result<Track> {
        if let Some(line) = self.rows.get(&(pid, model)) {
            return Ok(*line);
        }
        let line = Track { pid: PROCESSES, tid: 1 + self.rows.len() as u64 };
        self.rows.insert((pid, model), line);
        let name = self.names.get(&pid).map_or("process", String::as_str);
        self.trace.name_track(line, &format!("{name} ({pid})"))?;
        Ok(line)
    }

    fn step_rows(&mut self, model: u64, when: (u64, u64), rows: &[StepRow]) -> io::Result<()> {
        let mut by_process: BTreeMap<Pid, Vec<StepRow>> = BTreeMap::new();
        rows.iter().for_each(|row| by_process.entry(row.pid).or_default().push(*row));
        for (pid, rows) in by_process {
            let line = self.row(pid, model)?;
            let contexts: Vec<ContextId> = rows.iter().map(|r| r.context).collect();
            self.trace.slice(line, &step_name(&rows), when, json!({"contexts": contexts}))?;
        }
        Ok(())
    }

    fn pages(
        &mut self,
        model: u64,
        pid: Pid,
        context: ContextId,
        change: PageChange,
        (at, tokens): (u64, u32),
    ) -> io::Result<()> {
        let line = self.row(pid, model)?;
        let what = match change {
            PageChange::Waits => {
                self.waits.insert(context, (at, line));
                return Ok(());
            }
            PageChange::Mapped => {
                if let Some((since, line)) = self.waits.remove(&context) {
                    self.trace.span(line, WAITS, context.0, (since, at))?;
                }
                if tokens == 0 {
                    return Ok(());
                }
                "shares pages"
            }
            PageChange::Dropped => "pages dropped",
            PageChange::SwappedOut => "swapped out",
            PageChange::SwappedIn => "swapped in",
        };
        self.trace.instant(line, what, at, json!({"context": context, "tokens": tokens}))
    }

    fn process_ended(&mut self, pid: Pid, at: u64, status: Option<u8>) -> io::Result<()> {
        let lines: Vec<Track> = self.rows.range((pid, 0)..=(pid, u64::MAX)).map(|(_, line)| *line).collect();
        for line in lines {
            let waits: Vec<_> = self.waits.extract_if(.., |_, (_, of)| *of == line).collect();
            for (context, (since, _)) in waits {
                self.trace.span(line, WAITS, context.0, (since, at))?;
            }
            self.trace.instant(line, "ends", at, json!({"status": status}))?;
        }
        Ok(())
    }

    fn worker(&mut self, steps: Track, change: WorkerChange, at: u64, args: Value) -> io::Result<()> {
        let line = worker_line(steps);
        if let Some(phase) = self.phases.remove(&line.tid) {
            self.trace.slice(line, phase.name, (phase.since, at), Value::Null)?;
        }
        let phase = |name| Phase { name, since: at };
        match change {
            WorkerChange::Starting => drop(self.phases.insert(line.tid, phase("loading"))),
            WorkerChange::Ready => drop(self.phases.insert(line.tid, phase("ready"))),
            WorkerChange::Died => self.trace.instant(line, "died", at, args)?,
            WorkerChange::Gone => self.trace.instant(line, "gone", at, args)?,
        }
        Ok(())
    }
}

/// The name, and the category, of waits.
const WAITS: &str = "waits for frames";

fn worker_line(steps: Track) -> Track {
    Track { tid: steps.tid + 1, ..steps }
}

/// What rows do, in a few words.
fn step_name(rows: &[StepRow]) -> String {
    let decoding = rows.iter().filter(|r| !r.prefill).count();
    let prefill: u32 = rows.iter().filter(|r| r.prefill).map(|r| r.tokens).sum();
    match (decoding, prefill) {
        (0, 0) => "operations".into(),
        (n, 0) => format!("decode {n}"),
        (0, n) => format!("prefill {n}"),
        (n, tokens) => format!("decode {n}, prefill {tokens}"),
    }
}

#[cfg(test)]
mod tests;
