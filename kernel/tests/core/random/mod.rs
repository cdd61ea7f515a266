//! Random histories: whatever programs, signals, memory pressure, dying workers and restarts do to each other, the
//! kernel keeps its invariants, answers every call, and every generation says what an undisturbed one would say.
//!
//! What can happen is in [`ACTIONS`]: to add to it, write a method of [`History`] in the file that it belongs to, and
//! its line there. It finds somebody to act for (`program`, `pick`), makes its calls (`begin`), and returns where there
//! is nobody. What must hold in the end is in `check.rs`.
//!
//! A failing history prints its seed; `LLMASOS_TEST_SEED=n` plays it alone, and `LLMASOS_TEST_SEED=n-m` plays a
//! range of others.

mod administration;
mod beginning;
mod check;
mod contexts;
mod daemon;
mod host;
mod processes;
mod reference;
mod sleepers;
mod stores;

use std::collections::{BTreeMap, BTreeSet};

use kernel::core::event::ConnId;
use kernel::core::{Event as Input, KernelConfig};
use syscalls::{CallId, ContextId, Pid};

use crate::chance::Chance;
use crate::machine::{ADMIN, Machine, Transition};
use reference::Reference;
use stores::Kept;

type Action = fn(&mut History);

/// What can happen, and how often it does.
const ACTIONS: &[(usize, Action)] = &[
    (30, History::connect),
    (3, History::disconnect),
    (5, History::detach),
    (20, History::attach),
    (40, History::signal),
    (20, History::setpriority),
    (20, History::congest),
    (10, History::converse),
    (10, History::subscribe),
    (5, History::look),
    (5, History::trace),
    (90, History::open),
    (100, History::append),
    (180, History::generate),
    (10, History::fill),
    (12, History::hurry),
    (60, History::fork),
    (30, History::close),
    (30, History::truncate),
    (20, History::share),
    (30, History::mount),
    (5, History::unmount),
    (10, History::setpolicy),
    (10, History::limit),
    (20, History::keep_value),
    (30, History::act_on_programs),
    (10, History::pass_time),
    (5, History::pass_turn),
    (3, History::kill_worker),
    (1, History::restart),
    (250, History::turn),
];

/// Names of models. The first is mounted at the beginning, all of them come and go.
const MODELS: [&str; 3] = ["m", "n", "o"];

/// One process that somebody acts for on a connection: the connection's own, or one that was attached there.
struct Program {
    conn: ConnId,
    pid: Pid,
    contexts: Vec<ContextId>,
    calls: Vec<(CallId, ContextId)>,
    /// Calls of `open`, some of which wait for a model to be loaded.
    opening: Vec<CallId>,
}

impl Program {
    fn new(conn: ConnId, pid: Pid) -> Self {
        Program { conn, pid, contexts: vec![], calls: vec![], opening: vec![] }
    }
}

struct History {
    machine: Machine,
    /// The settings, without services.
    config: KernelConfig,
    script: String,
    chance: Chance,
    programs: Vec<Program>,
    generated: Vec<(ConnId, CallId, ContextId)>,
    /// Processes that may be detached.
    lasting: BTreeSet<Pid>,
    host: host::Host,
    /// What was put into stores.
    kept: Kept,
    /// Calls that open contexts which stop where they are full.
    stopping: BTreeSet<(ConnId, CallId)>,
    /// Such contexts that were never cut, and their copies. In others what a reply has may be behind something else by
    /// now, or something else in its place that says the same.
    steady: BTreeSet<ContextId>,
    seen: Seen,
}

/// How often what is worth testing came about.
#[derive(Default)]
struct Seen {
    tokens_checked: usize,
    values_checked: usize,
    models_unloaded: usize,
    models_evacuated: usize,
    models_forced_out: usize,
    pools_shrunk: usize,
    pools_grown: usize,
    workers_short: usize,
    compacted: usize,
    restarts: usize,
    steps_withdrawn: usize,
}

impl History {
    fn act(&mut self) {
        let mut at = self.chance.below(ACTIONS.iter().map(|(often, _)| often).sum());
        for (often, action) in ACTIONS {
            if at < *often {
                action(self);
                break;
            }
            at -= often;
        }
        self.collect();
    }

    fn program(&mut self) -> Option<usize> {
        (!self.programs.is_empty()).then(|| self.chance.below(self.programs.len()))
    }

    fn pick(&mut self) -> Option<(usize, ConnId, ContextId)> {
        let at = self.program()?;
        let context = *self.chance.one_of(&self.programs[at].contexts)?;
        Some((at, self.programs[at].conn, context))
    }
}

/// A history up to the point at which everything has come to its end.
fn settled(seed: u64, watched: bool) -> History {
    let mut history = History::new(seed);
    if watched {
        history.machine.check_every = 100;
        history.machine.watch_states();
    }
    (0..3).for_each(|_| history.connect());
    (0..600).for_each(|_| history.act());
    history.settle();
    history
}

fn play(seed: u64, reference: &mut Reference) -> Seen {
    let mut history = settled(seed, false);
    history.check_texts(reference);
    history.wake_sleepers();
    history.check_slots();
    for program in std::mem::take(&mut history.programs) {
        history.machine.event(Input::Disconnected { conn: program.conn });
    }
    history.end_programs();
    history.machine.run();
    history.end_unattached();
    history.machine.run();
    let conn = history.machine.connect(ADMIN);
    let stats = history.machine.stat(conn);
    let free = stats.frames_free + stats.frames_cached;
    assert_eq!((stats.contexts, free), (0, stats.frames_total), "something is left behind");
    history.look_back();
    history.seen
}

/// The transitions between states of processes in a history.
pub fn transitions(seed: u64) -> BTreeSet<Transition> {
    std::mem::take(&mut settled(seed, true).machine.transitions)
}

#[test]
fn histories_of_all_kinds_keep_the_invariants_and_the_texts() {
    let mut reference = Reference::new();
    let chosen = std::env::var("LLMASOS_TEST_SEED");
    // Others than these may say little.
    let usual = chosen.is_err();
    let seeds = match chosen {
        Ok(range) => {
            let (first, last) = range.split_once('-').unwrap_or((&range, &range));
            first.parse().expect("a number")..=last.parse().expect("a number")
        }
        Err(_) => 1..=100,
    };
    let mut all: BTreeMap<&str, usize> = BTreeMap::new();
    let mut failed = Vec::new();
    for seed in seeds {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(seed, &mut reference)));
        match result {
            Ok(seen) => seen.figures().into_iter().for_each(|(what, n)| *all.entry(what).or_default() += n),
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "histories {failed:?} failed; play one alone with LLMASOS_TEST_SEED=NUMBER");
    eprintln!("{all:?}");
    let rare: Vec<_> = all.iter().filter(|(_, n)| **n <= 5).collect();
    assert!(!usual || rare.is_empty(), "the histories say little: {rare:?} of {all:?}");
    assert!(!usual || all["tokens checked"] > 100, "too few tokens were compared: {all:?}");
}

#[test]
fn history_played_twice_has_the_same_effects() {
    let trace = || {
        let mut history = History::new(7);
        (0..3).for_each(|_| history.connect());
        (0..600).for_each(|_| history.act());
        (history.machine.steps, history.machine.frames)
    };
    assert!(trace() == trace(), "the same seed gave two histories");
}
