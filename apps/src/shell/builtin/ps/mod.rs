//! `ps`: what runs.

use std::collections::{BTreeMap, BTreeSet};

use clap::Parser;
use serde_json::{Map, Value};
use syscalls::call::Ps;
use syscalls::reply::ProcessInfo;
use syscalls::{Pid, Reply};

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};
use crate::terminal::output::Output;
use crate::terminal::table::Table;

pub mod column;

use column::{Column, ColumnParser, SortKey, SortParser, Users};

pub const BUILTIN: Builtin =
    Builtin { name: "ps", command: || arguments::command::<Args>("ps"), run: Run::Program(run) };

/// Lists processes
///
/// STATE is new, idle, ready, running, blocked, stopped or zombie. LASTS has a d for a process that outlives its connection,
/// a p for one that outlives the daemon too, and a capital letter while no connection has it. NI is the nice value, CTX the number of contexts,
/// TOKENS what they hold, FRAMES the device memory that they map, OOM how much that is in the way where memory is
/// short. EVAL and GEN count tokens evaluated and generated, TIME is the model's time that the process has had.
///
/// Example: ps --columns pid,state,time,name --sort -time,pid
#[derive(Debug, Parser)]
struct Args {
    /// Prints {"processes":[…]} with every field, or with those of --columns
    #[arg(long)]
    json: bool,
    /// Lists those too that ended with the last daemon, as dead
    #[arg(long, short)]
    all: bool,
    /// Shows children below their parents
    #[arg(long, short)]
    tree: bool,
    /// Shows these columns, by their names or by their fields in --json
    #[arg(long, short = 'o', value_name = "COLUMN,…", value_delimiter = ',', value_parser = ColumnParser)]
    columns: Vec<&'static Column>,
    /// Sorts by these columns, with - before one for the largest first; with --tree, children among each other
    #[arg(long, short, value_name = "[-]COLUMN,…", value_delimiter = ',', allow_hyphen_values = true,
          value_parser = SortParser)]
    sort: Vec<SortKey>,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mut processes = match args.daemon.connect("ps")?.call(Ps { all: args.all })? {
        Reply::Processes(processes) => processes,
        _ => return Err(Failure::Message("the daemon answered with the reply of another call".into())),
    };
    let mut users = Users::default();
    column::sort(&mut processes, &args.sort, &mut users);
    let rows = if args.tree { tree(&processes) } else { processes.iter().map(|p| (p, 0)).collect() };
    let mut output = Output::stdout();
    if args.json {
        output.write_json(&json(&rows, &args.columns)?)?;
    } else {
        output.write(&table(&rows, &args.columns, &mut users))?;
    }
    Ok(0)
}

/// The object that `--json` prints.
fn json(rows: &[(&ProcessInfo, usize)], columns: &[&Column]) -> Result<Value, Failure> {
    let chosen = |process: &ProcessInfo| -> serde_json::Result<Value> {
        let whole = serde_json::to_value(process)?;
        if columns.is_empty() {
            return Ok(whole);
        }
        // A field that a process does not have is null, so that every object has the same fields.
        let field = |c: &&Column| (c.field.to_owned(), whole.get(c.field).cloned().unwrap_or(Value::Null));
        Ok(Value::Object(columns.iter().map(field).collect()))
    };
    let processes: serde_json::Result<Vec<Value>> = rows.iter().map(|(process, _)| chosen(process)).collect();
    let processes = processes.map_err(|e| Failure::Message(format!("a process has no JSON form: {e}")))?;
    Ok(Value::Object(Map::from_iter([("processes".to_owned(), Value::Array(processes))])))
}

fn table(rows: &[(&ProcessInfo, usize)], columns: &[&'static Column], users: &mut Users) -> String {
    let columns: Vec<&Column> = match columns {
        [] => column::ALL[..column::DEFAULT].iter().collect(),
        chosen => chosen.to_vec(),
    };
    let headings: Vec<_> = columns.iter().map(|c| (c.heading, c.align)).collect();
    let mut table = Table::new(&headings);
    for (process, depth) in rows {
        let cell = |c: &&Column| {
            let indent = if c.name == "name" { "  ".repeat(*depth) } else { String::new() };
            indent + &(c.cell)(process, users)
        };
        table.row(columns.iter().map(cell).collect::<Vec<_>>());
    }
    table.show()
}

/// Children below their parents, with their depth. What has no parent in the list stands at the top.
fn tree(processes: &[ProcessInfo]) -> Vec<(&ProcessInfo, usize)> {
    let known: BTreeSet<Pid> = processes.iter().map(|p| p.pid).collect();
    let mut children: BTreeMap<Pid, Vec<&ProcessInfo>> = BTreeMap::new();
    let mut stack = Vec::new();
    for process in processes.iter().rev() {
        if process.parent != process.pid && known.contains(&process.parent) {
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
    use clap::Parser;
    use expect_test::expect;
    use syscalls::call::{Class, Lifetime};
    use syscalls::reply::ProcessState;

    fn process(pid: u32, parent: u32) -> ProcessInfo {
        ProcessInfo {
            pid: Pid(pid),
            parent: Pid(parent),
            uid: 0,
            os_pid: 0,
            name: format!("p{pid}"),
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

    fn sorted(mut processes: Vec<ProcessInfo>, keys: &str) -> Vec<u32> {
        let args = Args::parse_from(["ps", "--sort", keys]);
        column::sort(&mut processes, &args.sort, &mut Users::default());
        processes.iter().map(|p| p.pid.0).collect()
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
        assert_eq!(column::state(&blocked), "blocked (frames)");
    }

    #[test]
    fn sort_goes_by_the_first_key_first_and_down_with_a_minus() {
        let with = |pid, us, class| ProcessInfo { service_us: us, class, ..process(pid, 1) };
        let processes =
            || vec![with(9, 5, Class::Batch), with(10, 70, Class::Normal), with(11, 5, Class::Realtime)];
        assert_eq!(sorted(processes(), "-time,pid"), [10, 9, 11]);
        assert_eq!(sorted(processes(), "time,-pid"), [11, 9, 10]);
        assert_eq!(sorted(processes(), "class"), [11, 10, 9]);
        assert_eq!(sorted(processes(), "-pid"), [11, 10, 9], "numbers are no text");
        assert_eq!(sorted(processes(), "-service_us,name"), [10, 11, 9], "a field names its column");
    }

    #[test]
    fn columns_are_shown_in_the_order_that_was_asked_for() {
        let processes = [process(2, 1), process(3, 2)];
        let args = Args::parse_from(["ps", "-o", "name,PID,status"]);
        expect![[r#"
            NAME  PID  STATUS
            p2      2       -
              p3    3       -
        "#]]
        .assert_eq(&table(&tree(&processes), &args.columns, &mut Users::default()));
        let shown = json(&[(&processes[0], 0)], &args.columns).expect("it has a JSON form");
        assert_eq!(shown.to_string(), r#"{"processes":[{"name":"p2","pid":2,"status":null}]}"#);
    }

    #[test]
    fn column_unknown_suggests_the_right_one() {
        let error =
            |name: &str| Args::try_parse_from(["ps", "--columns", name]).expect_err("unknown").to_string();
        assert!(error("tokns").contains("there is no column `tokns`; did you mean `tokens`?"));
        assert!(error("weather").contains("there are pid, ppid, user"), "{}", error("weather"));
        let error = Args::try_parse_from(["ps", "--sort=-tme"]).expect_err("unknown").to_string();
        assert!(error.contains("did you mean `time`?"), "{error}");
    }

    #[test]
    fn every_column_is_a_field_of_json() {
        let known = serde_json::to_value(ProcessInfo {
            waits_for: Some(String::new()),
            expected_idle_us: Some(0),
            status: Some(0),
            ..process(2, 1)
        });
        let known = known.expect("it has a JSON form");
        for column in column::ALL {
            assert!(known.get(column.field).is_some(), "{} is no field", column.field);
        }
        assert_eq!(column::ALL[column::DEFAULT - 1].name, "name", "the name ends a line");
    }
}
