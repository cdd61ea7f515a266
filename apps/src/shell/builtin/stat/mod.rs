//! `stat`: counters.

mod prometheus;

use std::time::Duration;

use clap::Parser;
use syscalls::client::blocking::Client;
use syscalls::reply::Stats;
use syscalls::{Errno, Fault, Pid};

use super::arguments::{self, Daemon, Invocation};
use super::{Builtin, Outcome, Run};
use crate::terminal::output::Output;
use crate::terminal::units;

pub const BUILTIN: Builtin =
    Builtin { name: "stat", command: || arguments::command::<Args>("stat"), run: Run::Program(run) };

/// Shows counters since the daemon's start, of the system, of one model or of one process
#[derive(Debug, Parser)]
struct Args {
    /// Only this model
    #[arg(long, short, value_name = "NAME")]
    model: Option<String>,
    /// Only this process
    #[arg(long, short, value_name = "PID", conflicts_with = "model")]
    pid: Option<Pid>,
    /// Prints one object with a number for each counter
    #[arg(long)]
    json: bool,
    /// Prints all, of the system and of each model, in Prometheus' text format
    #[arg(long, conflicts_with_all = ["json", "model", "pid"])]
    prometheus: bool,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mut client = args.daemon.connect("stat")?;
    let stats = client.stat(args.pid, args.model.as_deref())?;
    let mut output = Output::stdout();
    if args.prometheus {
        output.write(&prometheus::text(&levels(&mut client, stats)?))?;
        return Ok(0);
    }
    if args.json {
        output.write_json(&stats)?
    } else {
        output.write(&table(&stats))?
    }
    Ok(0)
}

fn levels(client: &mut Client, stats: Stats) -> Result<prometheus::Levels, Fault> {
    let processes = client.ps()?;
    let mut models = Vec::new();
    for model in client.models()? {
        match client.stat(None, Some(&model.name)) {
            Ok(stats) => models.push((model, stats)),
            // It was unmounted since it was listed.
            Err(fault) if fault.errno == Errno::ENOENT => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(prometheus::Levels { stats, processes, models })
}

/// Lines for people, each with the counter's name in JSON.
fn table(stats: &Stats) -> String {
    let time = |us: u64| units::duration(Duration::from_micros(us));
    let rows: [(&str, String); 23] = [
        ("uptime_ms", time(stats.uptime_ms.saturating_mul(1000))),
        ("processes", stats.processes.to_string()),
        ("contexts", stats.contexts.to_string()),
        ("calls", stats.calls.to_string()),
        ("steps", stats.steps.to_string()),
        ("step_us", time(stats.step_us)),
        ("steps_withdrawn", stats.steps_withdrawn.to_string()),
        ("prompt_tokens_evaluated", stats.prompt_tokens_evaluated.to_string()),
        ("prompt_tokens_shared", stats.prompt_tokens_shared.to_string()),
        ("tokens_generated", stats.tokens_generated.to_string()),
        ("tokens_recomputed", stats.tokens_recomputed.to_string()),
        ("tokens_drafted", stats.tokens_drafted.to_string()),
        ("tokens_accepted", stats.tokens_accepted.to_string()),
        ("frames_total", stats.frames_total.to_string()),
        ("frames_free", stats.frames_free.to_string()),
        ("frames_cached", stats.frames_cached.to_string()),
        ("pages_host", stats.pages_host.to_string()),
        ("pages_disk", stats.pages_disk.to_string()),
        ("swap_out_bytes", units::bytes(stats.swap_out_bytes)),
        ("swap_in_bytes", units::bytes(stats.swap_in_bytes)),
        ("refaults", stats.refaults.to_string()),
        ("pages_corrupted", stats.pages_corrupted.to_string()),
        ("worker_restarts", stats.worker_restarts.to_string()),
    ];
    rows.iter().map(|(name, value)| format!("{name:<24}{value:>12}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_line() {
        let serde_json::Value::Object(fields) = serde_json::json!(Stats::default()) else {
            panic!("stats are an object")
        };
        let table = table(&Stats::default());
        for field in fields.keys() {
            assert!(
                table.lines().any(|l| l.starts_with(&format!("{field} "))),
                "{field} is not shown:\n{table}"
            );
        }
    }
}
