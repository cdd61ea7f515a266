//! `output`: what the program of a process has printed.

use clap::Parser;
use syscalls::call::Output;
use syscalls::{Pid, Reply};

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::printed::Screen;
use super::{Builtin, Outcome, Run};
use crate::terminal::output;

pub const BUILTIN: Builtin =
    Builtin { name: "output", command: || arguments::command::<Args>("output"), run: Run::Program(run) };

/// Shows what a program that the daemon has started has printed
///
/// The last lines are kept, also of the last programs that have ended. Lines of standard error go to standard error.
#[derive(Debug, Parser)]
struct Args {
    /// Goes on with what is printed until the program ends
    #[arg(long, short)]
    follow: bool,
    /// So many of the last lines
    #[arg(long, short = 'n', value_name = "LINES")]
    lines: Option<u32>,
    /// Prints {"lines":[…],"dropped":…,"ended":…}
    #[arg(long, conflicts_with = "follow")]
    json: bool,
    /// The process, as `ps` lists it
    #[arg(value_name = "PID")]
    pid: Pid,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mut client = args.daemon.connect("output")?;
    let mut screen = Screen::new();
    let call = Output { pid: args.pid, lines: args.lines, follow: args.follow };
    let interrupter = client.interrupter();
    let answered = client.call_with(call, |event| {
        screen.hear(&event);
        if screen.has_failed() {
            // Nobody reads any more. If this fails too, the connection is gone and the reply says so.
            let _ = interrupter.interrupt();
        }
    });
    if screen.has_failed() {
        return screen.end().map(|()| 1).map_err(Failure::Output);
    }
    let reply = match answered? {
        Reply::Output(reply) => reply,
        _ => return Err(Failure::Message("the daemon answered with the reply of another call".into())),
    };
    if args.json {
        output::Output::stdout().write_json(&reply)?;
        return Ok(0);
    }
    reply.lines.iter().for_each(|line| screen.show(line));
    screen.end()?;
    Ok(0)
}
