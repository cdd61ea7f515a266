//! `timeline`: records what the daemon does for some time.

use std::fs::File;
use std::io::{self, LineWriter};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use syscalls::client::blocking::Client;
use syscalls::{Errno, Event, Fault, call};

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};
use crate::terminal::interrupt;
use crate::terminal::output::Output;
use crate::timeline::Timeline;

pub const BUILTIN: Builtin =
    Builtin { name: "timeline", command: || arguments::command::<Args>("timeline"), run: Run::Program(run) };

/// Records what the daemon does, for a picture of it in Perfetto
///
/// The file is in Chrome's trace-event format; open it at https://ui.perfetto.dev or in chrome://tracing. It shows
/// each model's steps, and for each process the steps that it had a part in, its waits for memory, and what came to
/// its pages. It holds no prompts and no text.
///
/// Example: timeline run.json --seconds 30
#[derive(Debug, Parser)]
struct Args {
    /// The file to write; one that is there is replaced
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How long to record; until Ctrl-C if absent
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mut client = args.daemon.connect("timeline")?;
    let file = File::create(&args.file).map_err(|e| unwritable(&args.file, &e))?;
    let unwritable = |e: io::Error| unwritable(&args.file, &e);
    // Line by line, so that the file can be read whatever happens to this program.
    let mut timeline = Timeline::new(LineWriter::new(file)).map_err(unwritable)?;
    let (mut steps, mut lost) = (0, 0);
    let failed = record(&mut client, args.seconds, &mut timeline, |event| match event {
        Event::Step { .. } => steps += 1,
        Event::Lost { events } => lost += events,
        _ => {}
    });
    // Where the daemon has gone, what came until then is a whole file all the same.
    let (_, entries) = timeline.finish().map_err(unwritable)?;
    failed?.map_err(unwritable)?;
    let shown = args.file.display();
    Output::stdout().write(&format!("{shown}: {steps} steps in {entries} entries; open it in Perfetto\n"))?;
    if lost > 0 {
        note!("timeline: {lost} events were lost, because they came faster than they could be written");
    }
    Ok(0)
}

/// Takes events until the time is up or Ctrl-C comes. Inside is the failure to write them.
fn record<W: io::Write>(
    client: &mut Client,
    seconds: Option<u32>,
    timeline: &mut Timeline<W>,
    mut count: impl FnMut(&Event),
) -> Result<io::Result<()>, Failure> {
    let interrupter = client.interrupter();
    interrupt::on_sigint(client.interrupter())?;
    let timeout_ms = seconds.map(|n| Duration::from_secs(n.into()).as_millis() as u64);
    let subscription = client.start(call::Subscribe { kinds: vec![], timeout_ms })?;
    for process in client.ps()? {
        timeline.name(process.pid, &process.name);
    }
    let mut failed = Ok(());
    let end = client.finish(subscription, |event| {
        count(&event);
        if failed.is_ok() {
            failed = timeline.take(&event);
            if failed.is_err() {
                // Where this fails too, the connection is gone and the reply says so.
                let _ = interrupter.interrupt();
            }
        }
    });
    match end {
        Ok(_) | Err(Fault { errno: Errno::EINTR, .. }) => Ok(failed),
        Err(fault) => Err(fault.into()),
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::Message(format!("{} cannot be written: {error}", path.display()))
}
