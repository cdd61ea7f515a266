//! `inspect`: one process in full.

use std::fmt::Write;
use std::time::Duration;

use clap::Parser;
use syscalls::Pid;
use syscalls::call::Limit;
use syscalls::reply::{ContextView, InspectReply, LimitInfo, PageTable, PastCall, Sharer};

use super::arguments::{self, Daemon, Invocation, name_of};
use super::ps::column;
use super::{Builtin, Outcome, Run};
use crate::terminal::clean::clean;
use crate::terminal::output::Output;
use crate::terminal::table::{Align, Table};
use crate::terminal::units;

pub const BUILTIN: Builtin =
    Builtin { name: "inspect", command: || arguments::command::<Args>("inspect"), run: Run::Program(run) };

/// Shows one process: state, waits, page tables, limits and last calls
///
/// Of each context, PAGES are those that its tokens take: RESIDENT in device memory (SHARED of them with others, whom
/// `with` names), in SWAP (host memory and disk), or MISSING, which are computed when they are needed. Prompts and texts
/// are not shown. A process is shown to its user and to the administrator.
#[derive(Debug, Parser)]
struct Args {
    /// Prints one object with everything
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
    let inspected = args.daemon.connect("inspect")?.inspect(args.pid)?;
    let mut output = Output::stdout();
    if args.json {
        output.write_json(&inspected)?;
    } else {
        output.write(&shown(&inspected))?;
    }
    Ok(0)
}

/// Laid out as `systemctl status` does it: a headline, fields by name, then lists.
fn shown(of: &InspectReply) -> String {
    let process = &of.process;
    let mut text = format!("● {} - process {} of user {}\n", clean(&process.name), process.pid, process.uid);
    field(&mut text, "State", &states(of));
    for wait in &of.waits {
        let about = wait.context.map(|id| format!(" on context {id}")).unwrap_or_default();
        let gives_up = wait.gives_up_us.map(|us| format!(", gives up in {}", micros(us))).unwrap_or_default();
        let (call, what, since) = (&wait.call, clean(&wait.waits_for), micros(wait.for_us));
        field(&mut text, "Waits", &format!("{call}{about} for {what}, for {since}{gives_up}"));
    }
    field(&mut text, "Parent", &parent(of));
    field(&mut text, "Class", &format!("{}, nice {}", name_of(process.class), process.nice));
    field(&mut text, "Group", if process.group.is_empty() { "-" } else { &process.group });
    field(&mut text, "Lifetime", &lifetime(of));
    let stats = &of.stats;
    let service = format!("{} in {} steps", micros(process.service_us), stats.steps);
    field(&mut text, "Service", &service);
    let tokens = format!(
        "{} evaluated, {} shared, {} computed again, {} generated",
        stats.prompt_tokens_evaluated,
        stats.prompt_tokens_shared,
        stats.tokens_recomputed,
        stats.tokens_generated
    );
    field(&mut text, "Tokens", &tokens);
    let memory = format!("{} frames, oom score {}", process.frames, process.oom_score);
    field(&mut text, "Memory", &memory);
    if let Some(us) = process.expected_idle_us {
        field(&mut text, "Idle", &format!("usually {} between generations", micros(us)));
    }
    if of.messages > 0 {
        field(&mut text, "Messages", &format!("{} wait", of.messages));
    }
    field(&mut text, "Signals", &signals(of));
    section(&mut text, "Contexts", &contexts(&of.contexts));
    section(&mut text, "Limits", &limits(&of.limits));
    section(&mut text, "Last calls", &calls(of));
    text
}

fn field(text: &mut String, name: &str, value: &str) {
    writeln!(text, "{name:>12}: {value}").expect("a string takes everything");
}

/// A table below its heading; nothing where it has no rows.
fn section(text: &mut String, heading: &str, table: &str) {
    if !table.is_empty() {
        writeln!(text, "\n{heading}:").expect("a string takes everything");
        table.lines().for_each(|line| {
            writeln!(text, "  {line}").expect("a string takes everything");
        });
    }
}

fn states(of: &InspectReply) -> String {
    let age = units::duration(Duration::from_millis(of.process.age_ms));
    format!("{}; {age} old", clean(&column::state(&of.process)))
}

fn parent(of: &InspectReply) -> String {
    let parent = of.process.parent;
    let os_pid = of.process.os_pid;
    let os = if os_pid == 0 { String::new() } else { format!(", the system's process {os_pid}") };
    let children: Vec<String> = of.children.iter().map(ToString::to_string).collect();
    match children.len() {
        0 => format!("{parent}{os}"),
        _ => format!("{parent}{os}; children {}", children.join(", ")),
    }
}

fn lifetime(of: &InspectReply) -> String {
    let now = if of.process.detached { ", detached" } else { "" };
    format!("{}{now}", name_of(of.process.lifetime))
}

fn signals(of: &InspectReply) -> String {
    let shown = |s: &syscalls::reply::PendingSignal| match s.in_us {
        0 => format!("{} holds it", name_of(s.signal)),
        us => format!("{} in {}", name_of(s.signal), micros(us)),
    };
    let all: Vec<String> = of.signals.iter().map(shown).collect();
    if all.is_empty() { "none pending".into() } else { all.join(", ") }
}

fn contexts(contexts: &[ContextView]) -> String {
    if contexts.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("CONTEXT", Align::Right),
        ("MODEL", Align::Left),
        ("STATE", Align::Left),
        ("TOKENS", Align::Right),
        ("PAGES", Align::Right),
        ("RESIDENT", Align::Right),
        ("SHARED", Align::Left),
        ("SWAP", Align::Right),
        ("MISSING", Align::Right),
    ]);
    for view in contexts {
        let PageTable { total, resident, swapped_host, swapped_disk, missing, .. } = view.pages;
        table.row([
            view.context.to_string(),
            view.model.clone(),
            name_of(view.state),
            format!("{}/{}", view.length, view.tokens_max),
            total.to_string(),
            resident.to_string(),
            shared(view),
            format!("{swapped_host}+{swapped_disk}"),
            missing.to_string(),
        ]);
    }
    table.show()
}

/// How many pages others have too, and who.
fn shared(view: &ContextView) -> String {
    let who = |sharer: &Sharer| match sharer.pid {
        Some(pid) => format!("{pid}: {}", sharer.pages),
        None => format!("kept: {}", sharer.pages),
    };
    match view.shared_with.as_slice() {
        [] => view.pages.shared.to_string(),
        sharers => {
            let who: Vec<String> = sharers.iter().map(who).collect();
            format!("{} (with {})", view.pages.shared, who.join(", "))
        }
    }
}

fn limits(limits: &[LimitInfo]) -> String {
    if limits.is_empty() {
        return String::new();
    }
    let columns =
        [("LIMIT", Align::Left), ("USED", Align::Right), ("MOST", Align::Right), ("THEN", Align::Left)];
    let mut table = Table::new(&columns);
    for limit in limits {
        let amount = |value: u64| match limit.limit {
            Limit::ServiceUs => micros(value),
            _ => value.to_string(),
        };
        // Of a rate nothing is used up; what is left of it says something only where there is one.
        let used = match (limit.limit, limit.most) {
            (Limit::TokensPerSecond, None) => "-".into(),
            (Limit::TokensPerSecond, Some(_)) => format!("{} left", limit.used),
            _ => amount(limit.used),
        };
        let then = limit.then.map_or_else(String::new, name_of);
        table.row([name_of(limit.limit), used, limit.most.map_or("-".into(), amount), then]);
    }
    table.show()
}

fn calls(of: &InspectReply) -> String {
    if of.calls.is_empty() {
        return String::new();
    }
    let columns =
        [("CALL", Align::Left), ("AGO", Align::Right), ("TOOK", Align::Right), ("RESULT", Align::Left)];
    let mut table = Table::new(&columns);
    for call in &of.calls {
        table.row(past(call, of.at_us));
    }
    table.show()
}

fn past(call: &PastCall, at_us: u64) -> [String; 4] {
    let result = call.errno.map_or("ok".to_owned(), |errno| errno.to_string());
    [call.call.clone(), micros(at_us.saturating_sub(call.at_us)), micros(call.took_us), result]
}

fn micros(us: u64) -> String {
    units::duration(Duration::from_micros(us))
}
