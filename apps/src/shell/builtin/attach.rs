//! `attach`: reads what a detached process generates.

use clap::Parser;
use syscalls::call::Exit;
use syscalls::client::blocking::Client;
use syscalls::reply::{CallInfo, Finish, GeneratedReply};
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
    let (mut shown, mut failed) = (String::new(), None);
    let result = client.follow(pid, call.ticket, |event| {
        if let (Event::Tokens { text, .. }, false, None) = (event, json, &failed) {
            failed = output.write(&text).err();
            shown.push_str(&text);
        }
    });
    if let Some(error) = failed {
        return Err(Failure::Output(error));
    }
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
