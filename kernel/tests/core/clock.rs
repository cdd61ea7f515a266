//! Time that jumps by hours between two events: no token depends on it, nothing waits for ever, and what has a deadline
//! meets it. That nothing depends on time that all but stands still is what all other tests here show: on their machine
//! an event takes a microsecond.

use kernel::core::Event;
use syscalls::call::*;
use syscalls::{CallId, Errno, Reply};

use crate::chance::Chance;
use crate::machine::{Machine, generate, generated, reference};

const HOUR_US: u64 = 3_600_000_000;

/// Runs six generations to their ends, with `pass` before each thing that a worker does.
fn run_with(mut pass: impl FnMut(&mut Machine)) -> Machine {
    let (mut machine, conn) = Machine::with_model("pool=512");
    let prompts = ["one", "two", "three", "four", "five", "six"];
    let contexts: Vec<_> = prompts.iter().map(|p| machine.open_with(conn, p)).collect();
    let calls: Vec<CallId> = contexts.iter().map(|c| machine.begin(conn, generate(*c, 80))).collect();
    loop {
        pass(&mut machine);
        if !machine.turn() {
            break;
        }
    }
    for (call, prompt) in calls.into_iter().zip(prompts) {
        assert_eq!(generated(machine.finish(conn, call)).text, reference("", prompt, 80), "{prompt}");
    }
    machine
}

#[test]
fn time_that_jumps_by_hours_changes_no_token() {
    let mut jumps = 0;
    for seed in 1..20 {
        println!("seed {seed}");
        let mut chance = Chance(seed);
        let machine = run_with(|machine| {
            if chance.once_in(4) {
                jumps += 1;
                // What a worker has said is heard before the alarm that would count it as hung.
                machine.now += HOUR_US * (1 + chance.below(100) as u64);
            }
        });
        assert!(machine.now > HOUR_US);
    }
    println!("figure: clock jumps: {jumps} of 1 to 100 hours, every text unchanged");
}

#[test]
fn wait_with_a_deadline_ends_when_time_jumps_over_it() {
    let (mut machine, conn) = Machine::with_model("");
    let spawn = syscalls::client::spawn("child");
    let Ok(Reply::Spawned { pid, .. }) = machine.call(conn, spawn) else { panic!() };
    let waiting = machine.begin(conn, Wait { pid: Some(pid), timeout_ms: Some(1000) });
    let at = machine.wake.expect("it has a deadline");
    machine.event(Event::Tick);
    assert_eq!(machine.wake, Some(at), "time stood still");
    machine.now += HOUR_US * 24 * 365;
    machine.event(Event::Tick);
    assert_eq!(machine.finish(conn, waiting).expect_err("the time is over").errno, Errno::ETIMEDOUT);
}
