//! `attach`: reads what a detached process generates.

use clap::Parser;
use syscalls::call::{Exit, Follow};
use syscalls::client::blocking::Client;
use syscalls::reply::{CallInfo, Finish, Frame, GeneratedReply};
use syscalls::{Event, Pid, Reply};

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};
use crate::terminal::output::Output;

pub const BUILTIN: Builtin =
    Builtin { name: "attach", command: || arguments::command::<Args>("attach"), run: Run::Program(run) };

/// Reads what a detached process generates
///
/// Prints the text of each of its generations from the beginning: of those that have ended since somebody last
/// looked, and of the one that runs, as it comes. What was read to its end is not kept any longer. The process goes on
/// when this command ends, whether by itself or by Ctrl-C.
#[derive(Debug, Parser)]
struct Args {
    /// Takes the process from the program that has it
    #[arg(long)]
    force: bool,
    /// Ends the process when everything has been read
    #[arg(long)]
    end: bool,
    /// Prints one object for each call, with its reply
    #[arg(long)]
    json: bool,
    /// The process, as `ps` lists it
    #[arg(value_name = "PID")]
    pid: Pid,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mut client = args.daemon.connect("attach")?;
    let attached = client.attach(args.pid, args.force)?;
    let mut output = Output::stdout();
    let mut status = 0;
    for call in &attached.calls {
        match read(&mut client, args.pid, call, args.json, &mut output)? {
            Ok(()) => {}
            Err(trouble) => {
                note!("attach: {} {}: {trouble}", call.call, call.ticket);
                status = 1;
            }
        }
    }
    if args.end {
        let id = client.start_as(args.pid, Exit { status: 0 })?;
        client.finish(id, |_| {})?;
    }
    Ok(status)
}

/// Reads one call to its end, and shows it. The inner error is the call's own.
fn read(
    client: &mut Client,
    pid: Pid,
    call: &CallInfo,
    json: bool,
    output: &mut Output,
) -> Result<Result<(), String>, Failure> {
    client.start_as(pid, Follow { call: call.ticket, replay: true })?;
    let mut shown = String::new();
    let result = loop {
        match client.next_frame()? {
            // Where nobody reads any more this command ends at once, and not with the call, which is another process's.
            Frame::Event(_, Event::Tokens { text, .. }) if !json => {
                output.write(&text)?;
                shown.push_str(&text);
            }
            Frame::Event(..) => {}
            Frame::Reply(_, result) => break result,
        }
    };
    let reply = match result {
        Ok(reply) => reply,
        Err(fault) => return Ok(Err(fault.message)),
    };
    if json {
        output.write_json(&reply)?;
        return Ok(Ok(()));
    }
    let Reply::Generated(GeneratedReply { text, finish, .. }) = reply else { return Ok(Ok(())) };
    // Of one that had ended, or that does not stream, the reply alone has the text.
    output.write(text.strip_prefix(&shown).unwrap_or_default())?;
    output.end()?;
    Ok(match finish {
        Finish::Interrupted => Err("it was interrupted".into()),
        _ => Ok(()),
    })
}
