//! Models whose contexts rest make room for others, and come back when somebody goes on. Bytes are small numbers here.

use kernel::core::event::ConnId;
use kernel::core::{DeviceConfig, Event, KernelConfig};
use syscalls::call::*;
use syscalls::reply::{ModelInfo, ModelState};
use syscalls::{ContextId, Errno, Fault, Reply, Tokens};

use crate::machine::{
    ADMIN, Job, Machine, append, append_bytes, generate, generated, mount, open, reference,
};

/// A model of 300 bytes of weights, with a pool of 256 tokens of a byte each and 100 bytes of buffers.
const SCRIPT: &str = "context=256,kv=1,compute=100,weights=300,step_us=1000";

/// Room for one such model, and for no second one with the smallest pool.
const MEMORY: u64 = 800;

const PROMPT: &str = "a prompt that has somewhat more than two pages of tokens, as somebody has who rests for a while \
                      and then goes on where he was; and some more, for the last of them";

/// Tokens of the first answer.
const FIRST: u32 = 20;

/// A machine with models of this script, and so many pages of swap.
fn machine_of(script: &str, models: &[&str], swap: u64, memory_bytes: u64) -> (Machine, ConnId) {
    let devices = vec![DeviceConfig { name: "cpu".into(), memory_bytes }];
    let config = KernelConfig {
        devices,
        pool_tokens_min: 128,
        swap_host_bytes: swap * 4096,
        ..KernelConfig::default()
    };
    let mut machine = Machine::new(config);
    let conn = machine.connect(ADMIN);
    for name in models {
        machine.mount(conn, name, script).expect("others make room");
    }
    (machine, conn)
}

fn machine(swap: u64) -> (Machine, ConnId) {
    machine_of(SCRIPT, &["b", "a"], swap, MEMORY)
}

impl Machine {
    pub fn model_info(&mut self, conn: ConnId, name: &str) -> ModelInfo {
        let Ok(Reply::Models(list)) = self.call(conn, Models {}) else { panic!("it lists") };
        list.into_iter().find(|m| m.name == name).expect("it is mounted")
    }

    fn is_loaded(&mut self, conn: ConnId, name: &str) -> bool {
        let state = self.model_info(conn, name).state;
        assert!(matches!(state, ModelState::Ready | ModelState::Unloaded), "{name} is {state:?}");
        state == ModelState::Ready
    }

    pub fn try_open(&mut self, conn: ConnId, model: &str) -> Result<ContextId, Fault> {
        match self.call(conn, Open { model: Some(model.into()), ..open() })? {
            Reply::Opened { context, .. } => Ok(context),
            other => panic!("{other:?}"),
        }
    }

    /// A context with the prompt and the first answer to it.
    fn begin_talk(&mut self, conn: ConnId, model: &str) -> ContextId {
        let context = self.try_open(conn, model).expect("there is room");
        self.append(conn, context, PROMPT).expect("it fits");
        assert_eq!(self.generate(conn, context, FIRST).text, reference("", PROMPT, FIRST));
        context
    }

    /// Does all jobs up to one of a kind.
    pub fn turn_up_to(&mut self, is_it: impl Fn(&Job) -> bool) {
        while !is_it(self.jobs.front().expect("there will be one")) {
            self.turn();
        }
    }

    pub fn loads_of(&self, name: &str) -> usize {
        self.loads.iter().filter(|load| load.name == name).count()
    }
}

/// What comes behind the first answer.
fn second(tokens: u32) -> String {
    reference("", PROMPT, FIRST + tokens)[FIRST as usize..].to_owned()
}

#[test]
fn model_with_a_resting_context_makes_room_for_a_mount_and_comes_back() {
    for (swap, script) in [(100, ""), (2, ""), (0, ""), (100, ",ranges=false"), (100, ",page_bytes=0")] {
        let (mut machine, conn) = machine_of(&format!("{SCRIPT}{script}"), &["a"], swap, MEMORY);
        let context = machine.begin_talk(conn, "a");
        machine.mount(conn, "b", SCRIPT).expect("a rests, and makes room");
        assert!(!machine.is_loaded(conn, "a") && machine.is_loaded(conn, "b"), "{swap} pages{script}");
        let before = machine.stat(conn).tokens_recomputed;
        assert_eq!(machine.generate(conn, context, 30).text, second(30), "{swap} pages{script}");
        let again = machine.stat(conn).tokens_recomputed - before;
        let all = PROMPT.len() as u64 + u64::from(FIRST) - 1;
        match (swap, script) {
            (100, "") => assert_eq!(again, 0, "all of it was saved"),
            (2, "") => assert!(again <= 64, "{again} of {all}, of which all but a page was saved"),
            _ => assert_eq!(again, all),
        }
        assert!(machine.is_loaded(conn, "a"), "and b has no contexts");
        assert_eq!(machine.stat(conn).worker_restarts, 0);
    }
}

#[test]
fn open_on_an_unloaded_model_has_one_that_rests_evacuated() {
    let (mut machine, conn) = machine(100);
    let ours = machine.begin_talk(conn, "a");
    let theirs = machine.begin_talk(conn, "b");
    assert!(!machine.is_loaded(conn, "a"));
    let line = "model a is unloaded: another one needs its memory, and its 1 contexts rest";
    assert!(machine.logs.iter().any(|l| l == line), "{:?}", machine.logs);
    for context in [ours, theirs] {
        let call = machine.begin(conn, generate(context, 30));
        assert_eq!(generated(machine.finish_in_time(conn, call)).text, second(30));
    }
    assert_eq!(machine.stat(conn).tokens_recomputed, 0);
}

#[test]
fn least_recently_used_of_those_that_rest_is_evacuated_and_no_other() {
    let (mut machine, conn) = machine_of(SCRIPT, &["a", "b"], 100, 2 * 656);
    let ours = machine.begin_talk(conn, "a");
    machine.begin_talk(conn, "b");
    machine.generate(conn, ours, 1);
    machine.mount(conn, "c", SCRIPT).expect("b makes room");
    assert_eq!((machine.is_loaded(conn, "a"), machine.is_loaded(conn, "b")), (true, false));
}

#[test]
fn model_without_contexts_and_a_pool_that_can_shrink_go_before_one_that_rests() {
    let (mut machine, conn) = machine_of(SCRIPT, &["a", "b"], 100, 2 * 656);
    machine.begin_talk(conn, "a");
    machine.mount(conn, "c", SCRIPT).expect("b makes room");
    assert_eq!((machine.is_loaded(conn, "a"), machine.is_loaded(conn, "b")), (true, false));
    let (mut machine, conn) = machine_of(SCRIPT, &["a"], 100, 2 * 656 - 64);
    let call = Open { tokens_max: Some(Tokens(100)), ..open() };
    assert!(matches!(machine.call(conn, call), Ok(Reply::Opened { .. })));
    let fixed = Mount { context: Some(Tokens(256)), ..mount("b", SCRIPT) };
    machine.call(conn, fixed).expect("a has less of a pool");
    assert!(machine.is_loaded(conn, "a"));
    assert_eq!(machine.model_info(conn, "a").frames_total, 3);
}

#[test]
fn model_that_runs_stays_and_a_mount_and_an_open_are_refused() {
    let (mut machine, conn) = machine(100);
    let context = machine.begin_talk(conn, "a");
    let call = machine.begin(conn, generate(context, 30));
    machine.turn();
    let fault = machine.try_open(conn, "b").expect_err("a runs");
    assert_eq!(fault.errno, Errno::ENOMEM);
    assert!(fault.message.contains("taken by a (656)"), "{fault}");
    let fault = machine.mount(conn, "c", SCRIPT).expect_err("a runs");
    assert_eq!(fault.errno, Errno::ENOMEM);
    assert_eq!(generated(machine.finish(conn, call)).text, second(30));
    assert_eq!(machine.loads_of("a"), 1);
}

#[test]
fn generation_on_an_evacuated_model_waits_until_the_other_one_rests_and_nobody_fails() {
    let (mut machine, conn) = machine(100);
    let user = machine.connect(7);
    let ours = machine.begin_talk(user, "a");
    let theirs = machine.begin_talk(conn, "b");
    let on_b = machine.begin(conn, generate(theirs, 30));
    machine.turn();
    let fork = machine.fork(user, ours, 1)[0];
    let on_a = machine.begin(user, generate(ours, 30));
    assert!(machine.ps(conn).iter().any(|p| p.waits_for.as_deref() == Some("the loading of a")));
    let told = machine.begin(user, append(fork, "text that a worker has to tokenise"));
    let call = Tokenize { model: Some("a".into()), text: "x".into(), bos: false, special: false };
    assert_eq!(machine.call(user, call).expect_err("of no context").errno, Errno::ENOMEM);
    assert_eq!(machine.try_open(user, "a").expect_err("b runs").errno, Errno::ENOMEM);
    assert_eq!(generated(machine.finish_in_time(conn, on_b)).text, second(30));
    assert_eq!(generated(machine.finish_in_time(user, on_a)).text, second(30));
    assert!(machine.finish_in_time(user, told).is_ok());
}

#[test]
fn generation_that_waits_for_its_model_can_be_taken_back() {
    let (mut machine, conn) = machine(100);
    let ours = machine.begin_talk(conn, "a");
    let theirs = machine.begin_talk(conn, "b");
    let on_b = machine.begin(conn, generate(theirs, 100));
    machine.turn();
    let user = machine.pid(conn);
    let on_a = machine.begin(conn, generate(ours, 30));
    machine.call(conn, Close { context: ours }).expect("own context");
    assert!(machine.reply(conn, on_a).is_some(), "it answers with what has come");
    assert_eq!(machine.finish_in_time(conn, on_b).map(|_| ()), Ok(()));
    machine.run();
    assert_eq!((machine.loads_of("a"), machine.is_loaded(conn, "b")), (1, true), "nobody needs a");
    assert!(machine.ps(conn).iter().any(|p| p.pid == user && p.contexts == 1));
}

#[test]
fn open_that_waits_for_its_model_can_be_taken_back() {
    let (mut machine, conn) = machine(100);
    machine.begin_talk(conn, "a");
    machine.begin_talk(conn, "b");
    let user = machine.connect(7);
    let call = machine.begin(user, Open { model: Some("a".into()), ..open() });
    assert_eq!(machine.reply(user, call), None, "b is to make room first");
    let pid = machine.pid(user);
    machine.call(conn, Kill { pid, signal: Signal::Int }).expect("it is there");
    assert_eq!(machine.finish(user, call).expect_err("INT").errno, Errno::EINTR);
    for _ in 0..3 {
        machine.run();
        machine.pass_ms(10_000);
    }
    assert_eq!((machine.loads_of("a"), machine.is_loaded(conn, "a")), (1, false), "nobody needs a");
    machine.try_open(user, "a").expect("it is loaded for the next one");
}

#[test]
fn generation_begun_during_the_evacuation_calls_it_off() {
    let (mut machine, conn) = machine(100);
    let context = machine.begin_talk(conn, "a");
    let call = machine.begin(conn, Open { model: Some("b".into()), ..open() });
    machine.turn_up_to(|job| matches!(job, Job::Step(..)));
    let goes_on = machine.begin(conn, generate(context, 30));
    assert_eq!(generated(machine.finish(conn, goes_on)).text, second(30));
    assert_eq!(machine.loads_of("a"), 1, "its pages were loaded by the worker that saved them");
    assert_eq!(machine.stat(conn).tokens_recomputed, 0);
    match machine.finish_in_time(conn, call) {
        Err(fault) => assert_eq!(fault.errno, Errno::ENOMEM),
        Ok(_) => assert!(!machine.is_loaded(conn, "a"), "it has waited until a rested again"),
    }
}

#[test]
fn worker_that_dies_while_it_is_evacuated_is_not_started_again() {
    let (mut machine, conn) = machine(100);
    let context = machine.begin_talk(conn, "a");
    let call = machine.begin(conn, Open { model: Some("b".into()), ..open() });
    machine.turn_up_to(|job| matches!(job, Job::Step(..)));
    machine.kill_worker();
    machine.finish(conn, call).expect("its memory is free");
    assert_eq!((machine.loads_of("a"), machine.is_loaded(conn, "a")), (1, false));
    let call = machine.begin(conn, generate(context, 30));
    assert_eq!(generated(machine.finish_in_time(conn, call)).text, second(30));
}

#[test]
fn worker_that_dies_while_it_is_evacuated_and_somebody_goes_on_is_started_again() {
    let (mut machine, conn) = machine(100);
    let context = machine.begin_talk(conn, "a");
    machine.begin(conn, Open { model: Some("b".into()), ..open() });
    machine.turn_up_to(|job| matches!(job, Job::Step(..)));
    let call = machine.begin(conn, generate(context, 30));
    machine.kill_worker();
    assert_eq!(generated(machine.finish(conn, call)).text, second(30));
    assert_eq!((machine.loads_of("a"), machine.stat(conn).worker_restarts), (2, 1));
}

#[test]
fn worker_that_dies_while_it_loads_again_is_started_once_more() {
    let (mut machine, conn) = machine(100);
    let ours = machine.begin_talk(conn, "a");
    machine.begin_talk(conn, "b");
    let call = machine.begin(conn, generate(ours, 30));
    while machine.loads_of("a") < 2 {
        if !machine.turn() {
            machine.pass_ms(10);
        }
    }
    machine.turn_up_to(|job| matches!(job, Job::Start(..)));
    let Some(Job::Start(worker, ..)) = machine.jobs.pop_front() else { panic!("it was looked at") };
    machine.event(Event::WorkerDied { worker, how: "killed by SIGKILL".into() });
    assert_eq!(generated(machine.finish_in_time(conn, call)).text, second(30));
    assert_eq!(machine.loads_of("a"), 3);
}

#[test]
fn stopped_generation_rests_and_goes_on_when_its_process_does() {
    let (mut machine, conn) = machine(100);
    let user = machine.connect(7);
    let context = machine.begin_talk(user, "a");
    let call = machine.begin(user, generate(context, 30));
    while machine.events(user, call).len() < 10 {
        assert!(machine.turn());
    }
    let pid = machine.pid(user);
    machine.call(conn, Kill { pid, signal: Signal::Stop }).expect("the administrator may");
    machine.run();
    machine.begin_talk(conn, "b");
    assert!(!machine.is_loaded(conn, "a"));
    machine.call(conn, Kill { pid, signal: Signal::Cont }).expect("the administrator may");
    assert_eq!(generated(machine.finish_in_time(user, call)).text, second(30));
}

#[test]
fn models_in_turns_are_loaded_no_more_often_than_they_rest_as_long_as_they_load() {
    const LOAD_US: u64 = 500_000;
    let (mut machine, conn) = machine(100);
    let contexts = [machine.begin_talk(conn, "a"), machine.begin_talk(conn, "b")];
    machine.run();
    let (began, loads) = (machine.now, machine.loads.len());
    let mut said = 0;
    // Both programs have the next question at once, for ever.
    let mut calls = contexts.map(|context| machine.begin(conn, generate(context, 1)));
    let mut busy = 0;
    while said < 40 {
        for (call, context) in calls.iter_mut().zip(contexts) {
            if let Some(reply) = machine.reply(conn, *call) {
                drop(generated(reply));
                said += 1;
                *call = machine.begin(conn, generate(context, 1));
            }
        }
        if matches!(machine.jobs.front(), Some(Job::Start(..))) {
            machine.now += LOAD_US;
            busy += LOAD_US;
        }
        if !machine.turn() {
            let wake = machine.wake.expect("somebody waits for time to pass");
            machine.now = machine.now.max(wake.0);
            machine.event(Event::Tick);
        }
        let took = machine.now - began;
        assert!(
            busy <= took / 2 + 2 * LOAD_US,
            "{busy} of {took} us were spent on {} loads",
            machine.loads.len() - loads
        );
    }
}

#[test]
fn context_comes_back_to_a_pool_that_it_can_grow_in() {
    // With the smallest pool, both models would fit.
    let (mut machine, conn) = machine_of(SCRIPT, &["a"], 100, 656 + 528 - 1);
    let context = machine.begin_talk(conn, "a");
    let fixed = Mount { context: Some(Tokens(256)), ..mount("b", SCRIPT) };
    machine.call(conn, fixed).expect("a makes room");
    let other = machine.try_open(conn, "b").expect("it is loaded");
    let call = machine.begin(conn, append_bytes(context, "!"));
    machine.finish_in_time(conn, call).expect("it fits");
    let call = machine.begin(conn, generate(context, 60));
    assert!(machine.finish_in_time(conn, call).is_ok());
    assert_eq!(machine.model_info(conn, "a").context_tokens, 256, "as when it was opened");
    machine.call(conn, Close { context: other }).expect("own context");
}
