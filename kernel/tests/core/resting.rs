//! Whose pages go when memory is short, by how long processes usually rest.

use kernel::core::event::ConnId;
use syscalls::ContextId;
use syscalls::call::Close;

use crate::machine::{ADMIN, Machine, generate, reference};

/// Eight frames.
const SMALL: &str = "step_us=9000,row_us=1000,token_us=100,pool=512,context=512";
/// How long tools of the one and of the other take.
const QUICK_MS: u64 = 50;
const SLOW_MS: u64 = 60_000;

/// Text of so many tokens, another one for each `n`.
fn text(n: usize, tokens: usize) -> String {
    format!("{n} and ").chars().rev().cycle().take(tokens).collect()
}

/// A process with a context, and what it has said.
struct Agent {
    conn: ConnId,
    context: ContextId,
    prompt: String,
    said: String,
}

impl Agent {
    fn new(machine: &mut Machine, n: usize, tokens: usize) -> Agent {
        let (conn, prompt) = (machine.connect(ADMIN), text(n, tokens));
        let context = machine.open_with(conn, &prompt);
        Agent { conn, context, prompt, said: String::new() }
    }

    fn go_on(&mut self, machine: &mut Machine) {
        self.said.push_str(&machine.generate(self.conn, self.context, 1).text);
    }

    /// Lets the kernel learn how long it rests.
    fn call_tools(&mut self, machine: &mut Machine, ms: u64) {
        for _ in 0..4 {
            self.go_on(machine);
            machine.pass_ms(ms);
        }
        self.go_on(machine);
    }

    fn frames(&self, machine: &mut Machine) -> u32 {
        let pid = machine.pid(self.conn);
        machine.ps(self.conn).iter().find(|p| p.pid == pid).map_or(0, |p| p.frames)
    }

    fn check(&self) {
        let tokens = self.said.len();
        assert_eq!(self.said, reference(SMALL, &self.prompt, tokens as u32), "nothing was lost");
    }
}

/// A quick one and a slow one with three frames each, both idle, the slow one since later, and one that needs four.
fn pressed(machine: &mut Machine) -> [Agent; 3] {
    let mut slow = Agent::new(machine, 1, 140);
    let mut quick = Agent::new(machine, 2, 140);
    slow.call_tools(machine, SLOW_MS);
    quick.call_tools(machine, QUICK_MS);
    slow.go_on(machine);
    assert_eq!([quick.frames(machine), slow.frames(machine)], [3, 3], "there is room for both");
    let presser = Agent::new(machine, 3, 200);
    [quick, slow, presser]
}

#[test]
fn pages_of_the_one_that_usually_rests_longer_go_first_though_it_is_idle_since_later() {
    let (mut machine, _) = Machine::with_swap(SMALL, 4096, 0);
    let [mut quick, mut slow, mut presser] = pressed(&mut machine);
    presser.go_on(&mut machine);
    assert_eq!([quick.frames(&mut machine), slow.frames(&mut machine)], [3, 1]);
    for agent in [&mut quick, &mut slow, &mut presser] {
        agent.go_on(&mut machine);
        agent.check();
    }
}

#[test]
fn one_that_is_away_far_longer_than_usual_is_not_waited_for() {
    let (mut machine, _) = Machine::with_swap(SMALL, 4096, 0);
    let [quick, slow, mut presser] = pressed(&mut machine);
    // The tool of the quick one hangs; that of the slow one is about to be done.
    machine.pass_ms(SLOW_MS - 1000);
    presser.go_on(&mut machine);
    assert_eq!([quick.frames(&mut machine), slow.frames(&mut machine)], [1, 3]);
}

#[test]
fn return_of_a_slow_one_costs_its_pages_and_those_of_one_other_however_many_turns_these_take() {
    let (mut machine, conn) = Machine::with_swap(SMALL, 4096, 0);
    let mut slow = Agent::new(&mut machine, 1, 200);
    let mut turns = [2, 3].map(|n| Agent::new(&mut machine, n, 130));
    let mut brought_back = Vec::new();
    for _ in 0..5 {
        let before = machine.stat(conn);
        slow.go_on(&mut machine);
        for _ in 0..10 {
            for agent in &mut turns {
                agent.go_on(&mut machine);
            }
            machine.pass_ms(QUICK_MS);
        }
        machine.pass_ms(SLOW_MS);
        let after = machine.stat(conn);
        brought_back.push(after.refaults - before.refaults);
    }
    // Four of the slow one, which took two from others.
    assert!(brought_back[1..].iter().all(|pages| *pages <= 4 + 3), "{brought_back:?}");
    turns.iter().chain([&slow]).for_each(Agent::check);
}

/// Saving a page takes thrice as long as loading one, so the return of one that is saved costs a quarter.
const PRICED: &str = "step_us=9000,row_us=1000,token_us=100,save_us=300,load_us=100,pool=512,context=512";

#[test]
fn of_two_equally_late_the_one_whose_pages_are_saved_gives_first() {
    let (mut machine, _) = Machine::with_swap(PRICED, 4096, 0);
    let [mut saved, mut unsaved] = [1, 2].map(|n| Agent::new(&mut machine, n, 140));
    saved.go_on(&mut machine);
    // It loses its pages, which are saved, to one that does not stay, and has them loaded.
    let mut passing = Agent::new(&mut machine, 3, 400);
    passing.go_on(&mut machine);
    assert!(saved.frames(&mut machine) < 3, "its pages were taken");
    machine.call(passing.conn, Close { context: passing.context }).expect("own context");
    unsaved.go_on(&mut machine);
    saved.go_on(&mut machine);
    assert_eq!([saved.frames(&mut machine), unsaved.frames(&mut machine)], [3, 3]);
    // The other one is late by a little more.
    machine.pass_ms(SLOW_MS);
    let mut presser = Agent::new(&mut machine, 4, 200);
    presser.go_on(&mut machine);
    let frames = [saved.frames(&mut machine), unsaved.frames(&mut machine)];
    assert!(frames[0] < 3 && frames[1] == 3, "{frames:?}: what is saved need not be saved again");
    for agent in [&mut saved, &mut unsaved, &mut presser] {
        agent.go_on(&mut machine);
        agent.check();
    }
}

#[test]
fn of_two_equally_late_the_one_whose_process_runs_another_gives_last() {
    // Ten frames: three for each of two that rest, and two for one that runs.
    let script = "step_us=9000,row_us=1000,token_us=100,pool=640,context=512";
    let (mut machine, _) = Machine::with_swap(script, 4096, 0);
    let [mut busy, mut away] = [1, 2].map(|n| Agent::new(&mut machine, n, 140));
    busy.go_on(&mut machine);
    away.go_on(&mut machine);
    let running = machine.open_with(busy.conn, "runs");
    let call = machine.begin(busy.conn, generate(running, 115));
    while machine.events(busy.conn, call).len() < 100 {
        assert!(machine.turn());
    }
    assert_eq!([busy.frames(&mut machine), away.frames(&mut machine)], [3 + 2, 3], "there is room for all");
    let mut presser = Agent::new(&mut machine, 4, 200);
    presser.go_on(&mut machine);
    assert!(machine.reply(busy.conn, call).is_none(), "it still runs");
    // The one of the process that runs has rested longer, by a little.
    assert_eq!([busy.frames(&mut machine), away.frames(&mut machine)], [3 + 2, 1]);
    machine.finish(busy.conn, call).expect("it ends");
    for agent in [&mut busy, &mut away, &mut presser] {
        agent.go_on(&mut machine);
        agent.check();
    }
}
