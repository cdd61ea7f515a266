//! `wait`: until something has ended: jobs of the shell, or processes of the daemon.

use std::ffi::OsString;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use syscalls::client::blocking::Client;
use syscalls::{Errno, Fault, Pid, Reply, call};

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};
use crate::shell::Shell;

pub const BUILTIN: Builtin = Builtin {
    name: "wait",
    command: || arguments::command::<Args>("wait"),
    run: Run::Either { in_shell: is_for_jobs, shell: wait_for_jobs, program: run },
};

/// Between two looks at a process that is nobody's child here.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits until processes have ended
///
/// In the shell, `wait` alone waits for all background jobs, and `wait %N` or `wait $!` for one. The exit status is that
/// of the last one, where it is known: a process of another program leaves none, and counts as 0.
#[derive(Debug, Parser)]
struct Args {
    /// The processes, as `ps` lists them
    #[arg(required = true, value_name = "PID")]
    pids: Vec<Pid>,
    /// Gives up after this long
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    daemon: Daemon,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

fn is_for_jobs(shell: &Shell, args: &[OsString]) -> bool {
    args.is_empty() || shell.jobs.are_meant(args)
}

fn wait_for_jobs(shell: &mut Shell, invocation: &Invocation, _: &mut dyn Write) -> Outcome {
    if invocation.args.is_empty() {
        return Ok(shell.jobs_wait_all());
    }
    let mut status = 0;
    for name in &invocation.args {
        let id = shell.jobs.meant(name)?;
        status = shell.job_wait(id);
    }
    Ok(status)
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let deadline = args.timeout.and_then(deadline_in);
    let mut client = args.daemon.connect("wait")?;
    let mut status = 0;
    for pid in args.pids {
        status = end_of(&mut client, pid, deadline)?;
    }
    Ok(status)
}

/// When a time limit is over; none where that is beyond what the clock can say.
fn deadline_in(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// Waits for one process, and gives its status.
fn end_of(client: &mut Client, pid: Pid, deadline: Option<Instant>) -> Result<u8, Failure> {
    let left = |deadline: Instant| {
        let left = deadline.saturating_duration_since(Instant::now());
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    };
    match client.call(call::Wait { pid: Some(pid), timeout_ms: deadline.map(left) }) {
        Ok(Reply::Waited { status, .. }) => Ok(status),
        Ok(_) => Err(Failure::Message("the daemon answered with the reply of another call".into())),
        // Nobody's child here: its end can be seen, but not reaped.
        Err(Fault { errno: Errno::ECHILD, .. }) => seen_end_of(client, pid, deadline),
        Err(Fault { errno: Errno::ETIMEDOUT, .. }) => Err(still_there(pid)),
        Err(fault) => Err(fault.into()),
    }
}

fn seen_end_of(client: &mut Client, pid: Pid, deadline: Option<Instant>) -> Result<u8, Failure> {
    let mut seen = false;
    loop {
        match client.ps()?.iter().find(|p| p.pid == pid).map(|p| p.status) {
            None if seen => return Ok(0),
            None => return Err(Failure::Message(format!("there is no process {pid}; `ps` lists them"))),
            Some(Some(status)) => return Ok(status),
            Some(None) if deadline.is_some_and(|d| Instant::now() >= d) => return Err(still_there(pid)),
            Some(None) => seen = true,
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn still_there(pid: Pid) -> Failure {
    Failure::Message(format!("process {pid} has not ended within the time limit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limit_beyond_the_clock_is_none() {
        let limit = |text| deadline_in(seconds(text).expect("a number of seconds")).is_some();
        assert_eq!(["0", "60", "1e19"].map(limit), [true, true, false]);
    }
}
