//! `top`: what runs, again and again, and how runs of the trainer go on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Parser;
use syscalls::Pid;
use syscalls::client::blocking::Client;
use syscalls::reply::ProcessInfo;
use unicode_width::UnicodeWidthChar;

use super::arguments::{self, Daemon, Invocation};
use super::ps::column::{self, Column, Users};
use super::{Builtin, Outcome, Run};
use crate::terminal::clean::clean;
use crate::terminal::interrupt::INTERRUPTED;
use crate::terminal::keys::{Keys, Waited};
use crate::terminal::output::Output;
use crate::terminal::table::{Align, Table};

mod training;

pub const BUILTIN: Builtin =
    Builtin { name: "top", command: || arguments::command::<Args>("top"), run: Run::Program(run) };

/// The columns of `ps` that are shown behind the share.
const COLUMNS: [&str; 8] = ["pid", "user", "state", "class", "nice", "tokens", "time", "name"];

/// Shows what runs, again and again
///
/// SHARE is how much of the time since the last look the process has had of models, or to compute by itself; the largest
/// comes first. Below the processes are the runs of the trainer, each with its step, its speed, its loss, and the loss over
/// the whole run. A screen shows as much as it has room for. `q` ends it.
#[derive(Debug, Parser)]
struct Args {
    /// Seconds between two looks
    #[arg(long, short = 'd', value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    every: f64,
    /// Ends after so many looks
    #[arg(long, short = 'n', value_name = "LOOKS", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    #[command(flatten)]
    daemon: Daemon,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    match (0.1..=3600.0).contains(&seconds) {
        true => Ok(seconds),
        false => Err("it must be from 0.1 to 3600".into()),
    }
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mut client = args.daemon.connect("top")?;
    let mut output = Output::stdout();
    let mut top = Top::default();
    let mut keys = Keys::listen()?;
    let mut looks = 0;
    loop {
        let (processes, runs) = top.look(&mut client)?;
        output.clear_screen()?;
        match output.screen() {
            Some(screen) => output.write(&fit(&processes, &runs, screen))?,
            None => output.write(&(processes + &runs))?,
        }
        looks += 1;
        if args.count == Some(looks) {
            return Ok(0);
        }
        match keys.wait(Duration::from_secs_f64(args.every))? {
            Waited::Passed => {}
            Waited::Quit => return Ok(0),
            Waited::Interrupted => return Ok(INTERRUPTED),
        }
    }
}

/// What was seen at the last look.
#[derive(Default)]
struct Top {
    before: Option<Instant>,
    service_us: BTreeMap<Pid, u64>,
    users: Users,
    runs: training::Runs,
}

impl Top {
    /// The table of processes, and what there is to say of runs.
    fn look(&mut self, client: &mut Client) -> Result<(String, String), syscalls::Fault> {
        let now = Instant::now();
        let processes = client.ps()?;
        let passed_us = self.before.map(|before| (now - before).as_micros().max(1) as f64);
        let mut rows: Vec<(f64, &ProcessInfo)> = processes
            .iter()
            .map(|process| {
                let before = self.service_us.get(&process.pid).copied().unwrap_or(0);
                let had_us = process.service_us.saturating_sub(before) as f64;
                // At the first look, of its life.
                let of_us = passed_us.unwrap_or((process.age_ms.max(1) * 1000) as f64);
                (100.0 * had_us / of_us, process)
            })
            .collect();
        rows.sort_by(|(a, p), (b, q)| {
            b.total_cmp(a).then(q.service_us.cmp(&p.service_us)).then(p.pid.cmp(&q.pid))
        });
        let mut runs = String::new();
        for (_, process) in &rows {
            runs.extend(self.runs.of(process).map(|lines| format!("\n{lines}")));
        }
        let shown = table(&rows, &mut self.users);
        self.runs.keep(|os_pid| processes.iter().any(|process| process.os_pid == os_pid));
        self.before = Some(now);
        self.service_us = processes.iter().map(|process| (process.pid, process.service_us)).collect();
        Ok((shown, runs))
    }
}

/// As much as a screen of so many columns and lines has room for: the first processes, and the runs below them. More would
/// move the first ones, which do most, off the screen.
fn fit(processes: &str, runs: &str, (columns, lines): (usize, usize)) -> String {
    let runs = clean(runs);
    // The cursor stands on the last one.
    let lines = lines.saturating_sub(1);
    let rows = lines.saturating_sub(runs.lines().count()).max(lines / 2);
    let shown = processes.lines().take(rows).chain(runs.lines()).take(lines);
    shown.map(|line| cut(line, columns) + "\n").collect()
}

/// As much of a line as so many columns have room for.
fn cut(line: &str, columns: usize) -> String {
    let mut width = 0;
    let fits = |c: &char| {
        width += c.width().unwrap_or(0);
        width <= columns
    };
    line.chars().take_while(fits).collect()
}

fn table(rows: &[(f64, &ProcessInfo)], users: &mut Users) -> String {
    let named = |name| column::ALL.iter().find(|column| column.name == name).expect("`ps` has this column");
    let columns: Vec<&Column> = COLUMNS.into_iter().map(named).collect();
    let share = ("SHARE", Align::Right);
    let headings: Vec<_> =
        std::iter::once(share).chain(columns.iter().map(|c| (c.heading, c.align))).collect();
    let mut table = Table::new(&headings);
    for (share, process) in rows {
        let cells = columns.iter().map(|column| (column.cell)(process, users));
        table.row(std::iter::once(format!("{share:.1} %")).chain(cells).collect::<Vec<_>>());
    }
    table.show()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screen_that_is_small_has_the_first_processes_and_the_runs() {
        let processes = " SHARE  NAME\n90.0 %  a\n 9.0 %  世界\n 1.0 %  c\n";
        let runs = "\n3 /run: step 1\n▁▂\n";
        assert_eq!(fit(processes, runs, (80, 24)), format!("{processes}{runs}"));
        let narrow = " SHARE  NAM\n90.0 %  a\n 9.0 %  世\n\n3 /run: ste\n▁▂\n";
        assert_eq!(fit(processes, runs, (11, 7)), narrow, "two columns are not there for half of them");
        assert_eq!(fit(processes, runs, (80, 5)), " SHARE  NAME\n90.0 %  a\n\n3 /run: step 1\n");
        assert_eq!(fit(processes, runs, (80, 1)), "");
    }
}
