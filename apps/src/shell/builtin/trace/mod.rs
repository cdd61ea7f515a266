//! `trace`: what a process asks of the kernel.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, BufWriter};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use syscalls::client::blocking::Client;
use syscalls::event::ProcessChange;
use syscalls::reply::Frame;
use syscalls::{CallId, Errno, Event, Fault, Pid, call};

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};
use crate::recording::{Header, Recorder, Settings};
use crate::terminal::interrupt;

mod held;
mod lines;

use held::Held;
use lines::{Lines, Stream};

pub const BUILTIN: Builtin =
    Builtin { name: "trace", command: || arguments::command::<Args>("trace"), run: Run::Program(run) };

/// Between two looks at whether the program has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks without an event after the program's end, before its processes are not waited for any longer.
const LOOKS_AFTER_END: u32 = 20;

/// The mode of a recording: it has prompts in it.
const OWN_MODE: u32 = 0o600;

/// Shows the calls of a process as it makes them, with results, errors and times
///
/// As strace: `trace PID` watches a process of one's own until it ends or Ctrl-C, and `trace -- PROGRAM ARGS` starts a
/// program and shows on standard error what it asks for. Long texts are cut. The traced process is never slowed: where
/// it is faster than its trace can be written, events are left out, and their number is shown.
///
/// With -o the trace goes to a file instead, whole, which `replay` reads. It has prompts in it and is for its owner
/// alone.
#[derive(Debug, Parser)]
struct Args {
    /// Children too
    #[arg(long, short)]
    follow: bool,
    /// Each token and each step too
    #[arg(long, short)]
    tokens: bool,
    /// Records to this file, for `replay`; one that is there is replaced
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The process, as `ps` lists it
    #[arg(value_name = "PID", required_unless_present_any = ["program", "held"], conflicts_with = "program")]
    pid: Option<Pid>,
    /// A program to start and trace, with its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
    /// Stops until it is told to go on, and is the program then
    #[arg(long, hide = true, requires = "program")]
    held: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// Where the trace goes.
enum Sink {
    Lines(Lines),
    File(Recorder<BufWriter<File>>),
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    if args.held {
        return Err(held::become_program(&args.program));
    }
    let mut client = args.daemon.connect("trace")?;
    let sink = sink(&args, &mut client)?;
    match args.pid {
        Some(pid) => attached(client, &args, pid, sink),
        None => started(client, &args, sink),
    }
}

fn sink(args: &Args, client: &mut Client) -> Result<Sink, Failure> {
    let Some(path) = &args.output else {
        let stream = if args.pid.is_some() { Stream::Output } else { Stream::Error };
        return Ok(Sink::Lines(Lines::new(stream, args.follow)));
    };
    let settings = Settings { follow: args.follow, tokens: args.tokens };
    let header = Header::new(&client.daemon().daemon.clone(), &client.models()?, settings);
    let recorder = own_file(path).and_then(|file| Recorder::new(BufWriter::new(file), &header));
    Ok(Sink::File(recorder.map_err(|e| unwritable(path, &e))?))
}

/// A file for its owner alone, also where it was there before.
fn own_file(path: &Path) -> io::Result<File> {
    let file = File::options().write(true).create(true).truncate(true).mode(OWN_MODE).open(path)?;
    if file.metadata()?.is_file() {
        file.set_permissions(Permissions::from_mode(OWN_MODE))?;
    }
    Ok(file)
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::Message(format!("{} cannot be written: {error}", path.display()))
}

fn call(args: &Args, pid: Option<Pid>, os_pid: Option<u32>) -> call::Trace {
    call::Trace { pid, os_pid, follow: args.follow, tokens: args.tokens, whole: args.output.is_some() }
}

/// Traces a process until it ends, or Ctrl-C comes.
fn attached(mut client: Client, args: &Args, pid: Pid, mut sink: Sink) -> Outcome {
    let interrupter = client.interrupter();
    interrupt::on_sigint(client.interrupter())?;
    let id = client.start(call(args, Some(pid), None))?;
    let mut failed = None;
    let end = client.finish(id, |event| {
        if failed.is_none() {
            failed = sink.take(&event).err();
            if failed.is_some() {
                // Where this fails too, the connection is gone and the reply says so.
                let _ = interrupter.interrupt();
            }
        }
    });
    end_of(args, sink, failed)?;
    match end {
        Ok(_) | Err(Fault { errno: Errno::EINTR, .. }) => Ok(0),
        Err(fault) => Err(fault.into()),
    }
}

/// Starts a program, and traces what it says hello as until it has ended.
fn started(mut client: Client, args: &Args, mut sink: Sink) -> Outcome {
    let mut held = Held::start(&args.program, &args.daemon.path())?;
    let id = client.start(call(args, None, Some(held.os_pid())))?;
    // The trace runs when a later call has been answered.
    client.sysinfo()?;
    // Ctrl-C is for the program; the trace ends when that has.
    held::ignore_sigint()?;
    held.go_on()?;
    client.set_timeout(Some(LOOK_EVERY))?;
    let failed = watch(&mut client, id, &mut held, &mut sink)?;
    end_of(args, sink, failed)?;
    Ok(held.status()?)
}

/// Takes events until the program and its processes have ended. Inside is the failure to write them.
fn watch(
    client: &mut Client,
    id: CallId,
    held: &mut Held,
    sink: &mut Sink,
) -> Result<Option<io::Error>, Failure> {
    let (mut alive, mut quiet, mut failed, mut ending) = (BTreeSet::new(), 0, None, false);
    loop {
        match client.next_frame() {
            Ok(Frame::Event(of, event)) if of == id => {
                quiet = 0;
                if let Event::Process { pid, change, .. } = &event {
                    match change {
                        ProcessChange::Started => drop(alive.insert(*pid)),
                        ProcessChange::Ended => drop(alive.remove(pid)),
                    }
                }
                if failed.is_none() {
                    failed = sink.take(&event).err();
                }
            }
            Ok(Frame::Reply(of, Ok(_) | Err(Fault { errno: Errno::EINTR, .. }))) if of == id => {
                return Ok(failed);
            }
            Ok(Frame::Reply(of, Err(fault))) if of == id => return Err(fault.into()),
            Ok(_) => {}
            Err(Fault { errno: Errno::ETIMEDOUT, .. }) => {
                quiet += 1;
                let over = held.has_ended()? && (alive.is_empty() || quiet > LOOKS_AFTER_END);
                if over && !ending {
                    ending = true;
                    client.interrupter().interrupt()?;
                }
            }
            Err(fault) => return Err(fault.into()),
        }
    }
}

impl Sink {
    fn take(&mut self, event: &Event) -> io::Result<()> {
        match self {
            Sink::Lines(lines) => lines.take(event),
            Sink::File(recorder) => recorder.take(event),
        }
    }
}

/// Ends the trace, and tells what is in a recording.
fn end_of(args: &Args, sink: Sink, failed: Option<io::Error>) -> Result<(), Failure> {
    let path = args.output.as_deref();
    let failure = |e: io::Error| match path {
        Some(path) => unwritable(path, &e),
        None => Failure::Output(e),
    };
    if let Some(error) = failed {
        return Err(failure(error));
    }
    match sink {
        Sink::Lines(lines) => lines.finish().map_err(failure)?,
        Sink::File(recorder) => {
            let (_, calls, lost) = recorder.finish().map_err(failure)?;
            let shown = path.unwrap_or(Path::new("")).display();
            note!("trace: {shown}: {calls} calls");
            if lost > 0 {
                note!(
                    "trace: {lost} events lost, because they came faster than they could be written; the recording cannot be replayed"
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn recording_in_a_file_that_others_could_read_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recording");
        std::fs::write(&path, "of another time").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let file = own_file(&path).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, OWN_MODE);
        assert_eq!(file.metadata().unwrap().len(), 0);
        assert!(own_file(Path::new("/dev/null")).is_ok(), "what is no file stays as it is");
    }
}
