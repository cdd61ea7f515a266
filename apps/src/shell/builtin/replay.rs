//! `replay`: makes the calls of a recording again, and says where the answers differ.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use clap::Parser;
use serde_json::json;
use syscalls::client::blocking::Client;
use syscalls::client::hello;

use super::arguments::{self, Daemon, Invocation};
use super::failure::{Failure, unreadable};
use super::{Builtin, Outcome, Run};
use crate::recording::{self, BYTES_MAX, Recording};
use crate::replay::{Counts, Difference, Models, Verdict, replay, wanted};
use crate::shell::locate;
use crate::terminal::clean::clean;
use crate::terminal::output::Output;

pub const BUILTIN: Builtin =
    Builtin { name: "replay", command: || arguments::command::<Args>("replay"), run: Run::Program(run) };

/// Makes the calls of a recording again, and says where the answers differ first
///
/// `trace -o FILE` makes recordings. Calls on contexts are made again, with the seeds that they had, on the model of the
/// same file; calls that ask about the system or change it are left out. The exit status is 0 where all answers are the
/// same, and 1 where one is not. A model that is not mounted `--deterministic` may choose otherwise where two tokens
/// are about as likely.
#[derive(Debug, Parser)]
struct Args {
    /// Replays on the kernel's core and a simulated model in a process of its own, without a daemon and without time
    #[arg(long, conflicts_with = "socket")]
    sim: bool,
    /// Prints one object: identical, calls, tokens, left_out, or what differs
    #[arg(long)]
    json: bool,
    /// The recording
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let recording = read(&args.file)?;
    let unfit = |e: &dyn std::fmt::Display| Failure::Message(format!("{} {e}", args.file.display()));
    let wanted = wanted(&recording).map_err(|e| unfit(&e))?;
    let (mut client, simulation) = match args.sim {
        true => {
            let (client, child) = simulate()?;
            (client, Some(child))
        }
        false => (args.daemon.connect("replay")?, None),
    };
    let models = match args.sim {
        true => Models::of_simulation(&mut client, &wanted),
        false => Models::of_daemon(&mut client, &wanted),
    };
    let verdict =
        models.map_err(|e| unfit(&e)).and_then(|models| Ok(replay(&mut client, &recording, &models)?));
    // The simulation ends with its connection.
    drop(client);
    if let Some(mut child) = simulation {
        child.wait()?;
    }
    show(&verdict?, args.json)
}

fn show(verdict: &Verdict, json: bool) -> Outcome {
    let mut output = Output::stdout();
    match verdict {
        Verdict::Identical(counts) if json => output.write_json(
            &json!({"identical": true, "calls": counts.calls, "tokens": counts.tokens, "left_out": counts.left_out}),
        )?,
        Verdict::Identical(counts) => output.write(&identical(counts))?,
        Verdict::Differs(at) if json => output.write_json(
            &json!({"identical": false, "call": at.call, "about": at.about, "what": at.what, "before": at.before}),
        )?,
        Verdict::Differs(at) => output.write(&differs(at))?,
    }
    Ok(u8::from(matches!(verdict, Verdict::Differs(_))))
}

fn identical(counts: &Counts) -> String {
    let mut text = format!("identical: {} calls, {} tokens\n", counts.calls, counts.tokens);
    if !counts.left_out.is_empty() {
        let left_out: Vec<String> = counts.left_out.iter().map(|(name, n)| format!("{name} {n}")).collect();
        text.push_str(&format!("left out: {}\n", left_out.join(", ")));
    }
    text
}

fn differs(at: &Difference) -> String {
    let mut text = format!("differs: call {}, {}: {}\n", at.call, at.about, clean(&at.what));
    if let Some(before) = &at.before {
        text.push_str(&format!("  before it:{}\n", clean(before)));
    }
    text
}

/// Reads a recording of a bounded size.
fn read(path: &Path) -> Result<Recording, Failure> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| unreadable(path, &e))?;
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| unreadable(path, &e))?;
    let path = path.display();
    if bytes.len() as u64 > BYTES_MAX {
        return Err(Failure::Message(format!(
            "{path} is longer than {BYTES_MAX} bytes; record less at once"
        )));
    }
    let text = String::from_utf8(bytes)
        .map_err(|e| Failure::Message(format!("{path} is no recording: it is not UTF-8 ({e})")))?;
    recording::read(&text).map_err(|refused| Failure::Message(format!("{path} {refused}")))
}

/// Starts a simulation, and connects to it as a program does to a daemon.
fn simulate() -> Result<(Client, Child), Failure> {
    let failed = |e: std::io::Error| Failure::Message(format!("the simulation cannot be started: {e}"));
    let (own, other) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new(locate::sibling("llmasos"));
    let child = command.arg("simulation").stdin(OwnedFd::from(other)).spawn().map_err(failed)?;
    // The command has a copy of the other end, without which the end of the simulation is the connection's.
    drop(command);
    Ok((Client::over(own, hello("replay"))?, child))
}
