//! Generations at hard limits of their own, of frames and of rates: they wait in line, and hold nobody else up however many
//! they are.

use kernel::core::Event;
use kernel::core::event::ConnId;
use syscalls::call::*;
use syscalls::{CallId, ContextId, Pid};

use crate::machine::{ADMIN, Machine, generate, generated, reference};

const SCRIPT: &str = "pool=8192,context=1024,sequences=64";

/// More than are looked at before a step.
const MANY: usize = 40;

/// Tokens of two frames.
fn prompt(n: usize) -> String {
    format!("{n:02} ").chars().cycle().take(70).collect()
}

/// A machine on which whoever came first is first in line.
fn machine() -> Machine {
    let (mut machine, admin) = Machine::with_model(SCRIPT);
    machine.call(admin, Setpolicy { policy: "fifo".into() }).expect("the administrator");
    machine
}

fn frames_of_group(group: &str, frames: u64) -> Setgroup {
    let limit = Some(GroupLimit::ResidentFrames);
    Setgroup { group: group.into(), weight: None, limit, value: Some(frames), remove: false }
}

impl Machine {
    /// A process of a user's, with a limit.
    fn limited(&mut self, limit: Limit, most: u64) -> (ConnId, Pid) {
        let conn = self.connect(1000);
        self.limit(conn, limit, most);
        (conn, self.pid(conn))
    }

    /// Begins a generation in each of so many contexts of a process.
    fn crowd(&mut self, conn: ConnId, pid: Pid, count: usize) -> Vec<CallId> {
        let open = |n| self.open_as(conn, pid, &prompt(n));
        let contexts: Vec<ContextId> = (0..count).map(open).collect();
        contexts.into_iter().map(|c| self.begin_as(conn, Some(pid), generate(c, 50))).collect()
    }

    /// Checks that one who comes last is not held up by these, who go on all the same.
    fn check_crowd(&mut self, conn: ConnId, crowd: Vec<CallId>) {
        let other = self.connect(2000);
        let context = self.open_with(other, "somebody else");
        assert_eq!(self.generate(other, context, 5).text, reference("", "somebody else", 5));
        assert!(crowd.iter().all(|call| self.reply(conn, *call).is_none()), "the other one had to wait");
        for (n, call) in crowd.into_iter().enumerate() {
            let reply = self.finish_in_time(conn, call);
            assert_eq!(generated(reply).text, reference("", &prompt(n), 50), "{n}");
        }
    }
}

#[test]
fn contexts_of_a_group_at_its_limit_of_frames_hold_nobody_else_up() {
    let mut machine = machine();
    let conn = machine.connect(1000);
    machine.call(conn, frames_of_group("tight", 2)).expect("own group");
    let pid = machine.spawn_in(conn, "tight");
    let crowd = machine.crowd(conn, pid, MANY + 1);
    machine.check_crowd(conn, crowd);
}

#[test]
fn contexts_of_a_process_at_its_limit_of_frames_hold_nobody_else_up() {
    let mut machine = machine();
    let (conn, pid) = machine.limited(Limit::ResidentFrames, 2);
    let crowd = machine.crowd(conn, pid, MANY + 1);
    machine.check_crowd(conn, crowd);
}

#[test]
fn processes_that_have_used_their_rates_up_hold_nobody_else_up_though_nobody_runs() {
    let mut machine = machine();
    let mut calls = Vec::new();
    for n in 0..MANY {
        let (conn, _) = machine.limited(Limit::TokensPerSecond, 1);
        let context = machine.open_with(conn, &prompt(n));
        let first = machine.begin(conn, generate(context, 1));
        // The line is looked at in parts, and time passes between two of them.
        generated(machine.finish_in_time(conn, first));
        let context = machine.open_with(conn, &prompt(n));
        calls.push((conn, machine.begin(conn, generate(context, 1))));
    }
    let began = machine.now;
    let other = machine.connect(2000);
    let context = machine.open_with(other, "somebody else");
    let call = machine.begin(other, generate(context, 5));
    assert_eq!(generated(machine.finish_in_time(other, call)).text, reference("", "somebody else", 5));
    let took = machine.now - began;
    assert!(took < 100_000, "it waited for {took} us, and theirs go on after a second");
    for (n, (conn, call)) in calls.into_iter().enumerate() {
        let reply = machine.finish_in_time(conn, call);
        assert_eq!(generated(reply).text, reference("", &prompt(n), 1), "{n}");
    }
}

#[test]
fn processes_that_wait_at_limits_of_frames_hold_nobody_else_up_however_many_they_are() {
    let mut machine = machine();
    let mut crowds = Vec::new();
    for n in 0..MANY {
        let (conn, pid) = machine.limited(Limit::ResidentFrames, 2);
        crowds.push((conn, pid, n));
    }
    // Each has one that runs and one that waits.
    let calls: Vec<_> = crowds.iter().map(|(conn, pid, _)| (*conn, machine.crowd(*conn, *pid, 2))).collect();
    machine.turn();
    let other = machine.connect(2000);
    let context = machine.open_with(other, "somebody else");
    assert_eq!(machine.generate(other, context, 5).text, reference("", "somebody else", 5));
    let answered =
        |(conn, calls): &(ConnId, Vec<CallId>)| calls.iter().any(|c| machine.reply(*conn, *c).is_some());
    assert!(!calls.iter().any(answered), "the other one had to wait");
    machine.run();
    assert!(calls.iter().all(|(conn, calls)| calls.iter().all(|c| machine.reply(*conn, *c).is_some())));
}

#[test]
fn processes_at_limits_hold_nobody_else_up_though_all_who_run_have_used_their_rates_up() {
    let mut machine = machine();
    let mut crowds = Vec::new();
    for _ in 0..MANY {
        let (conn, pid) = machine.limited(Limit::ResidentFrames, 2);
        machine.limit(conn, Limit::TokensPerSecond, 1);
        crowds.push((conn, machine.crowd(conn, pid, 2)));
    }
    machine.run();
    // A look at all of them takes two events, so that it begins anew with one of these.
    for events in 0..2 {
        (0..events).for_each(|_| machine.event(Event::Tick));
        let began = machine.now;
        let other = machine.connect(2000);
        let context = machine.open_with(other, "somebody else");
        let call = machine.begin(other, generate(context, 5));
        let text = generated(machine.finish_in_time(other, call)).text;
        assert_eq!(text, reference("", "somebody else", 5));
        let took = machine.now - began;
        assert!(took < 100_000, "it waited for {took} us, and theirs go on after a second");
    }
    let waits = |(conn, calls): &(ConnId, Vec<CallId>)| machine.reply(*conn, calls[0]).is_none();
    assert!(crowds.iter().all(waits), "they have had a token each");
}

#[test]
fn large_context_of_a_group_at_its_limit_does_not_starve_behind_smaller_ones() {
    let mut machine = machine();
    let conn = machine.connect(1000);
    machine.call(conn, frames_of_group("tight", 3)).expect("own group");
    let pid = machine.spawn_in(conn, "tight");
    let small = |machine: &mut Machine, n: usize| {
        let context = machine.open_as(conn, pid, &format!("small {n}"));
        machine.begin_as(conn, Some(pid), generate(context, 30))
    };
    let mut smalls = vec![small(&mut machine, 0)];
    (0..15).for_each(|_| assert!(machine.turn()));
    smalls.push(small(&mut machine, 1));
    (0..2).for_each(|_| assert!(machine.turn()));
    let large = machine.open_as(conn, pid, &"large ".repeat(25));
    let call = machine.begin_as(conn, Some(pid), generate(large, 5));
    // Whenever a small one is done another one comes, so there is always one that runs.
    while machine.reply(conn, call).is_none() {
        assert!(machine.turn());
        let done = smalls.iter().filter(|c| machine.reply(conn, **c).is_some()).count();
        assert!(done <= 10, "{done} smaller ones went before it");
        if smalls.len() < done + 2 {
            let next = smalls.len();
            smalls.push(small(&mut machine, next));
        }
    }
    machine.run();
    assert!(smalls.iter().all(|call| machine.reply(conn, *call).is_some_and(|reply| reply.is_ok())));
    let admin = machine.connect(ADMIN);
    assert_eq!(machine.stat(admin).worker_restarts, 0);
}
