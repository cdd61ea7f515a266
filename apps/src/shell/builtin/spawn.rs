//! `spawn`: a program that the daemon starts as a process.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use syscalls::call::{Class, Restart, RestartRules, ServiceStart, Signal, Spawn, Transient};
use syscalls::client::blocking::{Client, Interrupter};
use syscalls::limits::{NICE_MAX, NICE_MIN, SERVICE_STARTS_MAX};
use syscalls::{Pid, Reply, call};

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::printed::Screen;
use super::{Builtin, Outcome, Run};
use crate::terminal::output::Output;

pub const BUILTIN: Builtin =
    Builtin { name: "spawn", command: || arguments::command::<Args>("spawn"), run: Run::Program(run) };

/// Has the daemon start a program, as a process in the jail
///
/// Shows what it prints until it ends, and ends with its status; Ctrl-C and TERM are passed on to it. With --detach it
/// prints the process's number and leaves it; `output` shows what it prints. With --restart it becomes a transient
/// service, which is started again when it has ended (`service`).
#[derive(Debug, Parser)]
struct Args {
    /// What `ps`, or `service`, shows; the program's name if absent
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The scheduling class
    #[arg(short, long, value_parser = arguments::class())]
    class: Option<Class>,
    /// From -20 (most) to 19 (least)
    #[arg(long, value_name = "N", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i8).range(i64::from(NICE_MIN)..=i64::from(NICE_MAX)))]
    nice: Option<i8>,
    /// A group inside the user's own, such as a/b
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// A file or folder that it may read, beside those of the system; may be given often
    #[arg(long, value_name = "PATH", conflicts_with = "restart")]
    read: Vec<PathBuf>,
    /// Leaves it when it runs
    #[arg(short, long, conflicts_with = "restart")]
    detach: bool,
    /// When it is started again: on-failure, always or never
    #[arg(long, value_name = "WHEN", value_parser = restart())]
    restart: Option<Restart>,
    /// So many starts within ten seconds; with one more it has failed
    #[arg(long, value_name = "STARTS", requires = "restart",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(SERVICE_STARTS_MAX)))]
    restart_limit: Option<u32>,
    /// The program and its arguments
    #[arg(required = true, value_name = "PROGRAM", trailing_var_arg = true)]
    argv: Vec<OsString>,
    #[command(flatten)]
    daemon: Daemon,
}

fn restart() -> impl TypedValueParser<Value = Restart> {
    PossibleValuesParser::new(["on-failure", "always", "never"]).map(|word| match word.as_str() {
        "always" => Restart::Always,
        "never" => Restart::Never,
        _ => Restart::OnFailure,
    })
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let text = |word: &OsString| {
        let not_text = || Failure::Usage(format!("{} is no UTF-8, which arguments must be", word.display()));
        word.to_str().map(str::to_owned).ok_or_else(not_text)
    };
    let argv: Vec<String> = args.argv.iter().map(text).collect::<Result<_, _>>()?;
    let file = Path::new(&argv[0]).file_name().map(|name| name.to_string_lossy().into_owned());
    let name = args.name.clone().or(file).unwrap_or_else(|| argv[0].clone());
    let mut client = args.daemon.connect("spawn")?;
    match args.restart {
        Some(restart) => serve(&mut client, &args, name, argv, restart),
        None => start(&mut client, &args, name, argv),
    }
}

/// Makes a service of a program.
fn serve(client: &mut Client, args: &Args, name: String, argv: Vec<String>, restart: Restart) -> Outcome {
    let standard = RestartRules::default();
    let start_limit_burst = args.restart_limit.unwrap_or(standard.start_limit_burst);
    let transient = Transient {
        argv,
        class: args.class,
        nice: args.nice,
        group: args.group.clone(),
        restart,
        rules: RestartRules { start_limit_burst, ..standard },
    };
    match client.call(ServiceStart { name, transient: Some(transient) })? {
        Reply::Service(service) => {
            Output::stdout().write(&format!("{}\n", super::service::line(&service)))?
        }
        _ => return Err(Failure::Message("the daemon answered with the reply of another call".into())),
    }
    Ok(0)
}

/// Starts a program, and stays with it unless it is to be left. It is asked to end when nobody reads what it prints.
fn start(client: &mut Client, args: &Args, name: String, argv: Vec<String>) -> Outcome {
    let (class, nice, group) = (args.class, args.nice, args.group.clone());
    let read = args.read.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?;
    let pid = match client.call(Spawn { name, class, nice, group, lifetime: None, caps: None, argv, read })? {
        Reply::Spawned { pid } => pid,
        _ => return Err(Failure::Message("the daemon answered with the reply of another call".into())),
    };
    if args.detach {
        Output::stdout().write(&format!("{pid}\n"))?;
        return Ok(0);
    }
    let interrupter = client.interrupter();
    pass_signals_on(interrupter.clone(), pid)?;
    let (mut screen, mut told) = (Screen::new(), false);
    let follow = call::Output { pid, lines: None, follow: true };
    let answered = client.call_with(follow, |event| {
        screen.hear(&event);
        if screen.has_failed() && !told {
            told = true;
            // Nobody reads, as the system tells a program that writes into a pipe itself. If this fails too, the connection
            // is gone and the reply says so.
            let _ = interrupter.signal(pid, Signal::Term);
        }
    });
    // Of one that has ended already, the reply alone has the lines.
    if let Reply::Output(reply) = answered? {
        reply.lines.iter().for_each(|line| screen.show(line));
    }
    let (_, status) = client.wait(Some(pid))?;
    screen.end()?;
    Ok(status)
}

/// A path as the daemon takes it, which has no folder of its own.
fn absolute(path: &Path) -> Result<String, Failure> {
    let path = std::path::absolute(path)?;
    let not_text = || Failure::Usage(format!("{} is no UTF-8, which paths must be", path.display()));
    path.to_str().map(str::to_owned).ok_or_else(not_text)
}

/// From now on SIGINT and SIGTERM go to a process instead of ending this one, which ends with it.
fn pass_signals_on(interrupter: Interrupter, pid: Pid) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let signal = if signal == SIGINT { Signal::Int } else { Signal::Term };
            // A connection that is gone is noticed by whoever waits for a reply.
            let _ = interrupter.signal(pid, signal);
        }
    })?;
    Ok(())
}
