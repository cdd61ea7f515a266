//! What a step costs the core, from the end of one step of a model until the next is on its way: its answer is taken
//! in, time is shared out, every row's token goes into its log and to its reader, and the next step is planned.
//!
//! Times are printed and not judged: they depend on the machine. That no row takes an allocation is judged, since that
//! is what they depend on most.

#[path = "../core/machine/mod.rs"]
#[expect(dead_code, reason = "the other tests have more to do")]
mod machine;

use std::alloc::System;
use std::time::{Duration, Instant};

use kernel::core::event::ConnId;
use kernel::core::{Effect, Event, KernelConfig, Now};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use syscalls::Reply;
use syscalls::call::Generate;

use machine::{ADMIN, Job, Machine, append_bytes, generate, open};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Contexts that generate, and so rows of a step.
const CONTEXTS: usize = 256;

/// Steps that are measured, a multiple of a page's tokens: each context has come into so many new pages as well.
const STEPS: usize = 512;

/// What steps cost.
struct Cost {
    /// Sorted.
    times: Vec<Duration>,
    /// Allocations of each step, on average.
    allocations: f64,
    rows: f64,
}

impl Cost {
    fn quantile(&self, of: f64) -> Duration {
        self.times[((self.times.len() - 1) as f64 * of) as usize]
    }
}

/// What rests while others run.
#[derive(Clone, Copy)]
struct Idle {
    processes: usize,
    /// Contexts of these, one each, of which so many are in memory.
    contexts: usize,
    resident: usize,
}

impl Idle {
    fn begin(self, machine: &mut Machine, owner: ConnId) {
        for n in 0..self.processes {
            let pid = machine.spawn(owner, &format!("idle {n}"));
            if n >= self.contexts {
                continue;
            }
            let Ok(Reply::Opened { context, .. }) = machine.call_as(owner, Some(pid), open()) else {
                panic!("it opens")
            };
            let text = append_bytes(context, &format!("{n} rests"));
            machine.call_as(owner, Some(pid), text).expect("it fits");
            if n < self.resident {
                machine.call_as(owner, Some(pid), generate(context, 1)).expect("there is room");
            }
        }
    }
}

/// Runs contexts of so many processes beside idle ones, on a worker with room for so many of them.
fn step_cost(processes: usize, idle: Idle, room: usize) -> Cost {
    // One sequence is the kernel's own.
    let sequences_max = (room + idle.resident) as u16 + 1;
    let mut machine = Machine::new(KernelConfig { sequences_max, ..KernelConfig::default() });
    machine.check_every = u64::MAX;
    let owner = machine.connect(ADMIN);
    machine.mount(owner, "m", "pool=262144,context=4096,sequences=1024").expect("the script mounts");
    idle.begin(&mut machine, owner);
    let conns: Vec<_> = (0..processes).map(|_| machine.connect(ADMIN)).collect();
    for n in 0..CONTEXTS {
        let conn = conns[n % processes];
        let context = machine.open_with(conn, &format!("context {n}"));
        machine.begin(conn, Generate { ignore_eos: true, ..generate(context, 4000) });
    }
    for _ in 0..200 {
        machine.turn();
    }
    let mut cost = Cost { times: Vec::with_capacity(STEPS), allocations: 0.0, rows: 0.0 };
    let mut effects = Vec::new();
    while cost.times.len() < STEPS {
        let Some(Job::Step(worker, step)) = machine.jobs.pop_front() else { panic!("a step is under way") };
        let driver = machine.workers.get_mut(&worker).expect("it runs");
        let done = driver.step(&step).expect("it lives").expect("it fits");
        machine.now += done.elapsed_us + 1;
        let (region, begin) = (Region::new(ALLOCATOR), Instant::now());
        machine.kernel.step(Now(machine.now), Event::StepDone { worker, done }, &mut effects);
        cost.times.push(begin.elapsed());
        let change = region.change();
        cost.allocations += (change.allocations + change.reallocations) as f64 / STEPS as f64;
        for effect in effects.drain(..) {
            if let Effect::Submit { worker, step } = effect {
                cost.rows += step.rows.len() as f64 / STEPS as f64;
                machine.jobs.push_back(Job::Step(worker, step));
            }
        }
    }
    machine.kernel.check_invariants();
    cost.times.sort();
    cost
}

#[test]
fn step_of_256_contexts_allocates_for_none_of_them() {
    let none = Idle { processes: 0, contexts: 0, resident: 0 };
    let many = Idle { processes: 10_000, ..none };
    let with_contexts = Idle { contexts: 10_000, resident: 500, ..many };
    let loads = [
        (1, none, 0),
        (16, none, 0),
        (256, none, 0),
        (256, none, 1),
        (256, many, 0),
        (256, with_contexts, 0),
    ];
    for (processes, idle, waiting) in loads {
        let cost = step_cost(processes, idle, CONTEXTS - waiting);
        let [p10, p50, p90] = [0.1, 0.5, 0.9].map(|of| cost.quantile(of));
        eprintln!(
            "{CONTEXTS} contexts of {processes} processes, {waiting} in line, {} idle processes with {} contexts, {} resident: {p50:?} a step, {p10:?} to {p90:?}; {:.0} rows, {:.0} allocations",
            idle.processes, idle.contexts, idle.resident, cost.rows, cost.allocations
        );
        assert_eq!(cost.rows.round() as usize, CONTEXTS - waiting, "rows");
        // Logs and texts double now and then, pages have nodes, and the step has some lists.
        assert!(cost.allocations < CONTEXTS as f64 / 3.0, "{} allocations", cost.allocations);
    }
}
