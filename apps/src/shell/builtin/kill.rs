//! `kill`: a signal to processes.

use std::ffi::OsString;
use std::io::Write;

use clap::Parser;
use nix::sys::signal;
use syscalls::call::{Kill, KillGroup, Signal};
use syscalls::{Call, Pid};

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};
use crate::shell::Shell;
use crate::shell::job::State;

pub const BUILTIN: Builtin = Builtin {
    name: "kill",
    command: || arguments::command::<Args>("kill"),
    run: Run::Either { in_shell: is_for_jobs, shell: kill_jobs, program: run },
};

/// Sends a signal to processes
///
/// INT ends the calls that run, TERM asks the process to end, KILL ends it; STOP holds it after the step that
/// runs, CONT lets it go on. A program that the daemon has started gets the signal too. `kill -INT 7` is the same as
/// `kill -s INT 7`, and `kill --group a/b` reaches all processes of a group. In the shell, `kill %1` sends the
/// signal to a job's programs, and `kill $!` to those of the last one that was put into the background; the numbers of
/// `ps` are meant by `llmasos kill` in any case.
#[derive(Debug, Parser)]
struct Args {
    /// The signal
    #[arg(short, long, value_name = "SIGNAL", default_value = "TERM", ignore_case = true,
          value_parser = arguments::signal())]
    signal: Signal,
    /// All processes of this group and of those in it, as `groups` lists them: from the root on with a slash before it,
    /// else inside the user's own
    #[arg(short, long, value_name = "GROUP")]
    group: Vec<String>,
    /// The processes, as `ps` lists them
    #[arg(required_unless_present = "group", value_name = "PID")]
    pids: Vec<Pid>,
    #[command(flatten)]
    daemon: Daemon,
}

/// The arguments for jobs of the shell.
#[derive(Debug, Parser)]
struct JobArgs {
    /// The signal
    #[arg(short, long, value_name = "SIGNAL", default_value = "TERM", ignore_case = true,
          value_parser = arguments::signal())]
    signal: Signal,
    /// The jobs, as `jobs` lists them
    #[arg(required = true, value_name = "%JOB")]
    jobs: Vec<OsString>,
}

fn is_for_jobs(shell: &Shell, args: &[OsString]) -> bool {
    shell.jobs.are_meant(args)
}

fn kill_jobs(shell: &mut Shell, invocation: &Invocation, _: &mut dyn Write) -> Outcome {
    let args: JobArgs = invocation.parse_from(&with_option(&invocation.args))?;
    for name in args.jobs {
        let id = shell.jobs.meant(&name)?;
        let Some(job) = shell.jobs.get_mut(id) else { continue };
        job.signal(of_system(args.signal))
            .and_then(|()| {
                // A stopped program acts on no signal but these until it goes on.
                let acts = matches!(args.signal, Signal::Stop | Signal::Kill);
                if acts || job.state() != State::Stopped { Ok(()) } else { job.go_on() }
            })
            .map_err(|error| Failure::Message(format!("job {id} cannot be sent a signal: {error}")))?;
    }
    Ok(0)
}

/// The operating system's own signal of this name.
fn of_system(signal: Signal) -> signal::Signal {
    match signal {
        Signal::Int => signal::SIGINT,
        Signal::Term => signal::SIGTERM,
        Signal::Kill => signal::SIGKILL,
        Signal::Stop => signal::SIGSTOP,
        Signal::Cont => signal::SIGCONT,
        Signal::Xcpu => signal::SIGXCPU,
    }
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse_from(&with_option(&invocation.args))?;
    let mut client = args.daemon.connect("kill")?;
    let mut status = 0;
    let signal = args.signal;
    let groups = args.group.into_iter().map(|group| KillGroup { group, signal }.into());
    let processes = args.pids.into_iter().map(|pid| Kill { pid, signal }.into());
    for call in groups.chain(processes).collect::<Vec<Call>>() {
        if let Err(fault) = client.call(call) {
            note!("kill: {}", fault.message);
            status = 1;
        }
    }
    Ok(status)
}

/// Makes `-INT`, `-SIGINT` and `-2` the value of an option.
fn with_option(args: &[OsString]) -> Vec<OsString> {
    let mut args = args.to_vec();
    for i in 0..args.len() {
        let Some(text) = args[i].to_str() else { continue };
        if i > 0 && matches!(args[i - 1].to_str(), Some("-s" | "--signal")) {
            args[i] = without_sig(text).into();
        } else if let Some(name) = text.strip_prefix('-').filter(|n| is_signal(without_sig(n))) {
            args[i] = format!("--signal={}", without_sig(name)).into();
        }
    }
    args
}

fn without_sig(name: &str) -> &str {
    name.strip_prefix("SIG").unwrap_or(name)
}

/// Looks like a signal. An unknown name must reach the parser of values, which lists the known ones.
fn is_signal(name: &str) -> bool {
    name.len() > 1 && name.chars().all(|c| c.is_ascii_uppercase())
        || !name.is_empty() && name.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expect: &str) {
        let args: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let args = with_option(&args);
        let args: Vec<&str> = args.iter().map(|a| a.to_str().expect("UTF-8")).collect();
        assert_eq!(args.join(" "), expect);
    }

    #[test]
    fn signal_as_option_is_understood_in_all_forms() {
        check("-INT 7", "--signal=INT 7");
        check("-SIGKILL 7 8", "--signal=KILL 7 8");
        check("-9 7", "--signal=9 7");
        check("-s SIGSTOP 7", "-s STOP 7");
        check("-s INT 7", "-s INT 7");
        check("--json 7", "--json 7");
        check("-HUP 7", "--signal=HUP 7");
    }
}
