//! `kill`: a signal to processes.

use std::ffi::OsString;

use clap::Parser;
use syscalls::Pid;
use syscalls::call::Signal;

use super::arguments::{self, Daemon, Invocation};
use super::{Builtin, Outcome, Run};

pub const BUILTIN: Builtin =
    Builtin { name: "kill", command: || arguments::command::<Args>("kill"), run: Run::Program(run) };

/// Sends a signal to processes
///
/// INT ends the calls that run, TERM asks the process to end, KILL ends it; STOP holds it after the step that
/// runs, CONT lets it go on. `kill -INT 7` is the same as `kill -s INT 7`.
#[derive(Debug, Parser)]
struct Args {
    /// The signal
    #[arg(short, long, value_name = "SIGNAL", default_value = "TERM", ignore_case = true,
          value_parser = arguments::signal())]
    signal: Signal,
    /// The processes, as `ps` lists them
    #[arg(required = true, value_name = "PID")]
    pids: Vec<Pid>,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse_from(&with_option(&invocation.args))?;
    let mut client = args.daemon.connect("kill")?;
    let mut status = 0;
    for pid in args.pids {
        if let Err(fault) = client.kill(pid, args.signal) {
            eprintln!("kill: {}", fault.message);
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
