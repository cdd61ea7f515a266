//! What the core itself costs. Figures are printed and not judged: they depend on the machine.

use std::time::{Duration, Instant};

use kernel::core::{Effect, Event, Now};

use crate::machine::{ADMIN, Job, Machine, generate};

/// The mean time that the core takes between the end of a step and the next one.
fn step_cost(processes: usize, contexts: usize, idle: usize) -> Duration {
    let (mut machine, _) = Machine::with_model("pool=262144,context=4096,sequences=257");
    machine.check_every = u64::MAX;
    let owner = machine.connect(ADMIN);
    for n in 0..idle {
        machine.spawn(owner, &format!("idle {n}"));
    }
    let conns: Vec<_> = (0..processes).map(|_| machine.connect(ADMIN)).collect();
    for n in 0..contexts {
        let conn = conns[n % processes];
        let context = machine.open_with(conn, &format!("context {n}"));
        machine.begin(conn, generate(context, 4000));
    }
    for _ in 0..200 {
        machine.turn();
    }
    let (mut total, mut steps, mut effects) = (Duration::ZERO, 0, Vec::new());
    while steps < 500 {
        let Some(Job::Step(worker, step)) = machine.jobs.pop_front() else { panic!("a step is under way") };
        let driver = machine.workers.get_mut(&worker).expect("it runs");
        let done = driver.step(&step).expect("it lives").expect("it fits");
        machine.now += done.elapsed_us + 1;
        let begin = Instant::now();
        machine.kernel.step(Now(machine.now), Event::StepDone { worker, done }, &mut effects);
        total += begin.elapsed();
        steps += 1;
        for effect in effects.drain(..) {
            if let Effect::Submit { worker, step } = effect {
                assert!(step.rows.len() + 8 >= contexts, "{} rows", step.rows.len());
                machine.jobs.push_back(Job::Step(worker, step));
            }
        }
    }
    machine.kernel.check_invariants();
    total / steps
}

#[test]
fn core_with_256_runnable_contexts() {
    for (processes, idle) in [(1, 0), (16, 0), (256, 0), (256, 10_000)] {
        let cost = step_cost(processes, 256, idle);
        eprintln!("256 contexts of {processes} processes, {idle} idle ones: {cost:?} a step");
    }
}
