//! `ps`: what runs.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Parser;
use nix::unistd::{Uid, User};
use syscalls::call::{Lifetime, Ps};
use syscalls::reply::{ProcessInfo, ProcessState};
use syscalls::{Pid, Reply};

use super::arguments::{self, Daemon, Invocation, name_of};
use super::failure::Failure;
use super::listing::Listing;
use super::{Builtin, Outcome, Run};
use crate::terminal::table::Align;
use crate::terminal::units;

pub const BUILTIN: Builtin =
    Builtin { name: "ps", command: || arguments::command::<Args>("ps"), run: Run::Program(run) };

/// Lists processes
///
/// STATE is new, idle, ready, running, blocked, stopped or zombie. LASTS has a d for a process that outlives its connection,
/// a p for one that outlives the daemon too, and a capital letter while no connection has it. NI is the nice value, CTX the number of contexts,
/// TOKENS what they hold, FRAMES the device memory that they map, OOM how much that is in the way where memory is
/// short. EVAL and GEN count tokens evaluated and generated, TIME is the model's time that the process has had.
#[derive(Debug, Parser)]
struct Args {
    /// Prints {"processes":[…]} with every field
    #[arg(long)]
    json: bool,
    /// Lists those too that ended with the last daemon, as dead
    #[arg(long, short)]
    all: bool,
    /// Shows children below their parents
    #[arg(long, short)]
    tree: bool,
    #[command(flatten)]
    daemon: Daemon,
}

const LISTING: Listing<15> = Listing {
    field: "processes",
    columns: [
        ("PID", Align::Right),
        ("PPID", Align::Right),
        ("USER", Align::Left),
        ("STATE", Align::Left),
        ("LASTS", Align::Left),
        ("CLASS", Align::Left),
        ("NI", Align::Right),
        ("CTX", Align::Right),
        ("TOKENS", Align::Right),
        ("FRAMES", Align::Right),
        ("OOM", Align::Right),
        ("EVAL", Align::Right),
        ("GEN", Align::Right),
        ("TIME", Align::Right),
        ("NAME", Align::Left),
    ],
};

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let processes = match args.daemon.connect("ps")?.call(Ps { all: args.all })? {
        Reply::Processes(processes) => processes,
        _ => return Err(Failure::Message("the daemon answered with the reply of another call".into())),
    };
    LISTING.print(args.json, &processes, || {
        let all = if args.tree { tree(&processes) } else { processes.iter().map(|p| (p, 0)).collect() };
        let mut users = BTreeMap::new();
        all.into_iter().map(|(process, depth)| cells(process, depth, &mut users)).collect()
    })?;
    Ok(0)
}

fn cells(process: &ProcessInfo, depth: usize, users: &mut BTreeMap<u32, String>) -> [String; 15] {
    let user = users.entry(process.uid).or_insert_with(|| user_name(process.uid));
    [
        process.pid.to_string(),
        process.parent.to_string(),
        user.clone(),
        state(process),
        lasts(process).into(),
        name_of(process.class),
        process.nice.to_string(),
        process.contexts.to_string(),
        process.context_tokens.to_string(),
        process.frames.to_string(),
        process.oom_score.to_string(),
        process.prompt_tokens_evaluated.to_string(),
        process.tokens_generated.to_string(),
        units::duration(Duration::from_micros(process.service_us)),
        format!("{}{}", "  ".repeat(depth), process.name),
    ]
}

fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        // A user of another container, or a directory service that does not answer.
        Ok(None) | Err(_) => uid.to_string(),
    }
}

fn state(process: &ProcessInfo) -> String {
    let state = name_of(process.state);
    match (process.state, &process.waits_for, process.status) {
        (ProcessState::Blocked, Some(what), _) => format!("{state} ({what})"),
        (ProcessState::Zombie, _, Some(status)) => format!("{state} ({status})"),
        _ => state,
    }
}

/// What it outlives, and whether it has to do so now.
fn lasts(process: &ProcessInfo) -> &'static str {
    match (process.lifetime, process.detached) {
        (Lifetime::Connection, _) => "-",
        (Lifetime::Detached, false) => "d",
        (Lifetime::Detached, true) => "D",
        (Lifetime::Persistent, false) => "p",
        (Lifetime::Persistent, true) => "P",
    }
}

/// Children below their parents, with their depth. What has no parent in the list stands at the top.
fn tree(processes: &[ProcessInfo]) -> Vec<(&ProcessInfo, usize)> {
    let known = |pid: Pid| processes.iter().any(|p| p.pid == pid);
    let mut children: BTreeMap<Pid, Vec<&ProcessInfo>> = BTreeMap::new();
    let mut stack = Vec::new();
    for process in processes.iter().rev() {
        if process.parent != process.pid && known(process.parent) {
            children.entry(process.parent).or_default().push(process);
        } else {
            stack.push((process, 0));
        }
    }
    let mut rows = Vec::new();
    while let Some((process, depth)) = stack.pop() {
        rows.push((process, depth));
        stack.extend(children.remove(&process.pid).unwrap_or_default().into_iter().map(|c| (c, depth + 1)));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use syscalls::call::Class;

    fn process(pid: u32, parent: u32) -> ProcessInfo {
        ProcessInfo {
            pid: Pid(pid),
            parent: Pid(parent),
            uid: 0,
            os_pid: 0,
            name: String::new(),
            state: ProcessState::Idle,
            waits_for: None,
            class: Class::Normal,
            nice: 0,
            contexts: 0,
            context_tokens: 0,
            frames: 0,
            oom_score: 0,
            prompt_tokens_evaluated: 0,
            tokens_generated: 0,
            service_us: 0,
            group: String::new(),
            expected_idle_us: None,
            lifetime: Lifetime::Connection,
            detached: false,
            caps: Vec::new(),
            age_ms: 0,
            status: None,
        }
    }

    #[test]
    fn tree_puts_children_below_parents_in_order() {
        let processes = [process(2, 1), process(3, 1), process(4, 2), process(5, 4), process(6, 2)];
        let rows: Vec<(u32, usize)> = tree(&processes).iter().map(|(p, depth)| (p.pid.0, *depth)).collect();
        assert_eq!(rows, [(2, 0), (4, 1), (5, 2), (6, 1), (3, 0)]);
    }

    #[test]
    fn state_says_what_a_process_waits_for() {
        let mut blocked = process(2, 1);
        blocked.state = ProcessState::Blocked;
        blocked.waits_for = Some("frames".into());
        assert_eq!(state(&blocked), "blocked (frames)");
    }
}
