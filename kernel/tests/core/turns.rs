//! Models that never rest, on a device with room for one of them: they take turns, and nobody starves.

use drivers::wire::Op;
use kernel::core::event::ConnId;
use kernel::core::{DeviceConfig, KernelConfig};
use syscalls::call::*;
use syscalls::reply::ModelState;
use syscalls::{CallId, ContextId, Errno, Event, Reply};

use crate::machine::{ADMIN, Job, Machine, generate, generated, mount, open, reference};

/// A model of 300 bytes of weights, with a pool of 4096 tokens of a byte each and 100 bytes of buffers.
const SCRIPT: &str =
    "context=4096,kv=1,compute=100,weights=300,step_us=20000,token_us=100,save_us=100,load_us=100";

/// Room for one such model, and for no second one with the smallest pool.
const MEMORY: u64 = 4900;

const PROMPT: &str =
    "a prompt that has somewhat more than a page of tokens, so that there is something to be saved";

/// How long a model takes to load, and what its turn may last.
const LOAD_US: u64 = 1_000_000;
const TURN_US: u64 = 8 * LOAD_US;

/// A program with one long answer to hear.
struct Talk {
    conn: ConnId,
    context: ContextId,
    call: CallId,
    tokens: u32,
}

/// A machine with these models, and a program on each that has just asked for so many tokens. The last one is loaded, and
/// the others wait.
fn busy(models: &[&str], tokens: u32) -> (Machine, Vec<Talk>) {
    let devices = vec![DeviceConfig { name: "cpu".into(), memory_bytes: MEMORY }];
    let config = KernelConfig {
        devices,
        pool_tokens_min: 128,
        swap_host_bytes: 500 * 4096,
        ..KernelConfig::default()
    };
    let mut machine = Machine::new(config);
    let admin = machine.connect(ADMIN);
    for name in models {
        machine.mount(admin, name, SCRIPT).expect("others make room");
    }
    let contexts: Vec<(ConnId, ContextId)> = models
        .iter()
        .map(|name| {
            let conn = machine.connect(ADMIN);
            let context = machine.open_when_others_rest(conn, name);
            machine.append(conn, context, PROMPT).expect("it fits");
            (conn, context)
        })
        .collect();
    // The model that was opened last is loaded, and never rests from now on.
    let mut talks = Vec::new();
    for (conn, context) in contexts.into_iter().rev() {
        let call = machine.begin(conn, generate(context, tokens));
        talks.insert(0, Talk { conn, context, call, tokens });
        while talks.len() == 1 && machine.tokens_heard(&talks[0]) == 0 {
            assert!(machine.turn());
        }
    }
    (machine, talks)
}

impl Machine {
    fn open_when_others_rest(&mut self, conn: ConnId, model: &str) -> ContextId {
        let call = self.begin(conn, Open { model: Some(model.into()), ..open() });
        match self.finish_in_time(conn, call) {
            Ok(Reply::Opened { context, .. }) => context,
            other => panic!("{other:?}"),
        }
    }

    /// Does one thing, as long as that takes; where there is nothing to do, time passes.
    fn turn_in_time(&mut self) {
        if matches!(self.jobs.front(), Some(Job::Start(..))) {
            self.now += LOAD_US;
        }
        if !self.turn() {
            self.now = self.now.max(self.wake.expect("somebody waits for time to pass").0);
            self.event(kernel::core::Event::Tick);
        }
    }

    fn tokens_heard(&self, talk: &Talk) -> usize {
        let events = self.events(talk.conn, talk.call).iter();
        events.filter(|event| matches!(event, Event::Tokens { .. })).count()
    }

    fn is_over(&self, talk: &Talk) -> bool {
        self.reply(talk.conn, talk.call).is_some()
    }

    /// Runs until all are answered. Gives the longest time that each has waited for its next token.
    fn hear_all(&mut self, talks: &[Talk]) -> Vec<u64> {
        let mut heard = vec![(0, self.now); talks.len()];
        let mut longest = vec![0; talks.len()];
        while talks.iter().any(|talk| !self.is_over(talk)) {
            self.turn_in_time();
            for (at, talk) in talks.iter().enumerate() {
                let (tokens, since) = heard[at];
                if self.tokens_heard(talk) > tokens {
                    longest[at] = longest[at].max(self.now - since);
                    heard[at] = (self.tokens_heard(talk), self.now);
                }
            }
        }
        longest
    }

    /// Checks that each has heard what it would have heard alone.
    fn check_talks(&self, talks: &[Talk]) {
        let expected = reference("", PROMPT, talks[0].tokens);
        for talk in talks {
            let reply = self.reply(talk.conn, talk.call).expect("it is answered");
            assert_eq!(generated(reply).text, expected);
        }
    }

    /// Runs until the worker of the model that runs is told to save its pages, and nothing else.
    fn turn_up_to_the_end_of_a_turn(&mut self) {
        let saves = |job: &Job| match job {
            Job::Step(_, step) => {
                step.rows.is_empty() && step.ops.iter().any(|op| matches!(op, Op::Save { .. }))
            }
            _ => false,
        };
        while !self.jobs.front().is_some_and(saves) {
            self.turn_in_time();
        }
    }

    fn state_of(&mut self, conn: ConnId, name: &str) -> ModelState {
        self.model_info(conn, name).state
    }
}

#[test]
fn two_busy_models_alternate_in_turns_that_are_long_against_loading() {
    let (mut machine, talks) = busy(&["a", "b"], 1500);
    let (began, loads) = (machine.now, machine.loads.len());
    let longest = machine.hear_all(&talks);
    machine.check_talks(&talks);
    let (took, loads) = (machine.now - began, machine.loads.len() - loads);
    assert!(longest.iter().all(|us| *us <= TURN_US + 3 * LOAD_US), "they waited for {longest:?} us");
    assert!(loads >= 4, "{loads} loads: each has the device more than once");
    assert!(loads as u64 * LOAD_US <= took / 8 + 2 * LOAD_US, "{loads} loads in {took} us");
    let recomputed = machine.stat(talks[0].conn).tokens_recomputed;
    assert!(recomputed <= 64 * loads as u64, "{recomputed} tokens of pages that were to be saved");
    assert_eq!(machine.stat(talks[0].conn).worker_restarts, 0);
}

#[test]
fn of_three_busy_models_the_one_that_has_waited_longest_is_next() {
    let (mut machine, talks) = busy(&["a", "b", "c"], 1000);
    let longest = machine.hear_all(&talks);
    machine.check_talks(&talks);
    assert!(longest.iter().all(|us| *us <= 2 * (TURN_US + LOAD_US) + 3 * LOAD_US), "{longest:?} us");
}

#[test]
fn model_that_runs_keeps_its_turn_while_nobody_waits() {
    let (mut machine, talks) = busy(&["a"], 1500);
    let loads = machine.loads.len();
    machine.hear_all(&talks);
    machine.check_talks(&talks);
    assert_eq!(machine.loads.len(), loads);
}

#[test]
fn question_to_a_model_that_was_forced_out_waits_for_its_turn_and_an_open_is_refused() {
    let (mut machine, talks) = busy(&["a", "b"], 1500);
    let conn = machine.connect(ADMIN);
    while machine.tokens_heard(&talks[0]) == 0 {
        machine.turn_in_time();
    }
    assert_eq!(machine.state_of(conn, "b"), ModelState::Unloaded, "it has been forced out");
    let call = Tokenize { model: Some("b".into()), text: "x".into(), bos: false, special: false };
    let asked = machine.begin(conn, call);
    assert_eq!(machine.try_open(conn, "b").expect_err("a runs").errno, Errno::ENOMEM);
    assert!(machine.mount(conn, "c", SCRIPT).is_err(), "nor does a mount force anybody out");
    assert!(machine.reply(conn, asked).is_none());
    machine.hear_all(&talks);
    assert!(matches!(machine.reply(conn, asked), Some(Ok(Reply::Tokens(_)))));
    machine.check_talks(&talks);
}

#[test]
fn question_that_a_worker_has_is_answered_before_its_turn_ends() {
    let (mut machine, talks) = busy(&["a", "b"], 1500);
    let conn = machine.connect(ADMIN);
    while machine.tokens_heard(&talks[1]) < 10 {
        machine.turn_in_time();
    }
    machine.turn_up_to(|job| matches!(job, Job::Step(..)));
    let call = Tokenize { model: Some("b".into()), text: "x".into(), bos: false, special: false };
    let asked = machine.begin(conn, call);
    // The step takes so long that the turn is over with it.
    machine.now += 2 * TURN_US;
    machine.turn();
    assert!(matches!(machine.jobs.front(), Some(Job::Ask(..))) && machine.jobs.len() == 1, "no step begins");
    machine.turn();
    assert!(matches!(machine.reply(conn, asked), Some(Ok(Reply::Tokens(_)))));
    machine.hear_all(&talks);
    machine.check_talks(&talks);
}

#[test]
fn model_is_not_forced_out_for_one_that_nobody_waits_for_any_more() {
    let (mut machine, talks) = busy(&["a", "b"], 1000);
    machine.turn_up_to_the_end_of_a_turn();
    let loads = machine.loads.len();
    let Talk { conn, context, .. } = talks[0];
    machine.call(conn, Close { context }).expect("own context");
    machine.hear_all(&talks[1..]);
    machine.check_talks(&talks[1..]);
    assert_eq!(machine.loads.len(), loads, "its pages were loaded by the worker that saved them");
}

#[test]
fn worker_that_dies_while_its_model_is_forced_out_is_not_started_before_the_next_turn() {
    let (mut machine, talks) = busy(&["a", "b"], 1000);
    machine.turn_up_to_the_end_of_a_turn();
    let loads = [machine.loads_of("a"), machine.loads_of("b")];
    machine.kill_worker();
    while machine.tokens_heard(&talks[0]) == 0 {
        machine.turn_in_time();
    }
    assert_eq!([machine.loads_of("a"), machine.loads_of("b")], [loads[0] + 1, loads[1]]);
    machine.hear_all(&talks);
    machine.check_talks(&talks);
    assert_eq!(machine.stat(talks[0].conn).worker_restarts, 0, "a death that made way for another model");
}

#[test]
fn busy_model_that_no_worker_can_be_had_for_has_its_turn_and_no_more() {
    let (mut machine, talks) = busy(&["a", "b"], 1000);
    machine.short_of = Some(Errno::ENOMEM);
    machine.kill_worker();
    let (began, loads) = (machine.now, machine.loads_of("a"));
    while machine.loads_of("a") == loads {
        machine.turn_in_time();
        assert!(machine.now - began <= TURN_US + 3 * LOAD_US, "a waits for one that cannot be loaded");
    }
    machine.short_of = None;
    machine.hear_all(&talks);
    machine.check_talks(&talks);
}

#[test]
fn mount_beside_a_busy_model_that_no_worker_can_be_had_for_is_refused() {
    let (mut machine, talks) = busy(&["a"], 1000);
    machine.short_of = Some(Errno::ENOMEM);
    machine.kill_worker();
    let conn = machine.connect(ADMIN);
    let call = machine.begin(conn, mount("c", SCRIPT));
    for _ in 0..20 {
        machine.turn_in_time();
    }
    let fault = machine.reply(conn, call).and_then(Result::err).expect("nobody knows when there is room");
    assert!(fault.errno == Errno::ENOMEM && fault.message.contains("taken by a"), "{fault}");
    machine.short_of = None;
    machine.hear_all(&talks);
    machine.check_talks(&talks);
}

#[test]
fn mount_of_a_third_model_waits_for_no_turn() {
    let (mut machine, talks) = busy(&["a", "b"], 1000);
    let conn = machine.connect(ADMIN);
    while machine.tokens_heard(&talks[1]) < 10 {
        machine.turn_in_time();
    }
    machine.now += 2 * TURN_US;
    let call = machine.begin(conn, mount("c", SCRIPT));
    while machine.reply(conn, call).is_none() {
        machine.turn_in_time();
    }
    let fault = machine.reply(conn, call).and_then(Result::err).expect("the device is full");
    assert_eq!(fault.errno, Errno::ENOMEM);
    machine.hear_all(&talks);
    machine.check_talks(&talks);
}
