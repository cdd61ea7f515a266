//! Contexts that outlived the daemon and whose model finds no room at first: somebody always tries to load it, and says
//! so where it cannot be.

use drivers::wire::DriverFault;
use kernel::core::event::ConnId;
use kernel::core::{DeviceConfig, Event, KernelConfig};
use syscalls::call::*;
use syscalls::reply::{Finish, ModelState};
use syscalls::{ContextId, Errno, Fault, Pid, Reply, Tokens};

use crate::machine::{ADMIN, Job, Machine, append_bytes, generate, generated, mount, open, reference};

/// A device of so many bytes. A model takes 300 of weights, a byte for each of its 256 tokens, and 100 of buffers.
fn config(memory_bytes: u64) -> KernelConfig {
    let cpu = DeviceConfig { name: "cpu".into(), memory_bytes };
    KernelConfig { devices: vec![cpu], pool_tokens_min: 128, ..KernelConfig::default() }
}

const SCRIPT: &str = "context=256,kv=1,compute=100,weights=300";

fn open_on(machine: &mut Machine, conn: ConnId, model: &str, tokens_max: u32) -> ContextId {
    let call = Open { model: Some(model.into()), tokens_max: Some(Tokens(tokens_max)), ..open() };
    match machine.call(conn, call) {
        Ok(Reply::Opened { context, .. }) => context,
        other => panic!("{other:?}"),
    }
}

/// A machine with room for models a and b that was killed: on each a persistent process, which on a is in the middle of
/// a generation if it is to be, has a context of so many tokens, b's first. The process on a is told. Of the two, b is
/// loaded first after the restart.
fn killed(tokens_max: [u32; 2], generates: bool) -> (Machine, Pid, ContextId) {
    killed_while(tokens_max, [false, generates])
}

/// The same, where the process on b is in the middle of a generation, too.
fn killed_while_b_runs(tokens_max: [u32; 2], generates: bool) -> (Machine, Pid, ContextId) {
    killed_while(tokens_max, [true, generates])
}

fn killed_while(tokens_max: [u32; 2], generates: [bool; 2]) -> (Machine, Pid, ContextId) {
    let mut machine = Machine::new(config(2000));
    let admin = machine.connect(ADMIN);
    for name in ["a", "b"] {
        machine.mount(admin, name, SCRIPT).expect("there is room");
    }
    let on_b = machine.connect_lasting(7, Lifetime::Persistent);
    let others = open_on(&mut machine, on_b, "b", tokens_max[0]);
    machine.append(on_b, others, "another one").expect("it fits");
    let on_a = machine.connect_lasting(7, Lifetime::Persistent);
    let context = open_on(&mut machine, on_a, "a", tokens_max[1]);
    machine.append(on_a, context, "a long story").expect("it fits");
    let calls = [(on_b, others, 100), (on_a, context, 60)].into_iter().zip(generates);
    for ((conn, context, tokens), _) in calls.filter(|(_, generates)| *generates) {
        let call = machine.begin(conn, generate(context, tokens));
        while machine.events(conn, call).len() < 10 {
            assert!(machine.turn());
        }
    }
    let pid = machine.pid(on_a);
    (machine, pid, context)
}

fn model_state(machine: &mut Machine, conn: ConnId, name: &str) -> ModelState {
    let Ok(Reply::Models(list)) = machine.call(conn, Models {}) else { panic!("it lists") };
    list.into_iter().find(|m| m.name == name).expect("it is mounted").state
}

/// The answer of the only call that a process has.
fn answer(machine: &mut Machine, conn: ConnId, pid: Pid) -> Result<Reply, Fault> {
    let Ok(Reply::Attached(attached)) = machine.call(conn, Attach { pid, force: true }) else {
        panic!("it lives")
    };
    let call = attached.calls[0].ticket;
    machine.call_as(conn, Some(pid), Follow { call, replay: true })
}

/// Runs until the model that is loaded first has taken a step.
fn run_up_to_a_step(machine: &mut Machine) {
    while machine.steps.is_empty() {
        assert!(machine.turn());
    }
}

fn goes_on(mut machine: Machine, pid: Pid) {
    let user = machine.connect(7);
    let reply = generated(answer(&mut machine, user, pid));
    assert_eq!((reply.finish, reply.text), (Finish::Length, reference("", "a long story", 60)));
}

#[test]
fn model_that_was_loaded_first_gives_a_part_of_its_pool_when_it_is_ready() {
    let (mut before, pid, _) = killed([128, 128], true);
    // Room for the weights and buffers of both, and for 300 tokens.
    let mut machine = before.crashed(config(800 + 300));
    machine.run();
    goes_on(machine, pid);
}

#[test]
fn model_that_is_left_without_contexts_makes_room_for_a_generation_that_sleeps() {
    let (mut before, pid, _) = killed([256, 256], true);
    before.images.contexts.retain(|_, image| image.model == "a");
    let mut machine = before.crashed(config(800));
    machine.run();
    goes_on(machine, pid);
}

#[test]
fn generation_that_sleeps_goes_on_when_another_model_is_unmounted() {
    let (mut before, pid, context) = killed_while_b_runs([256, 256], true);
    let mut machine = before.crashed(config(800));
    run_up_to_a_step(&mut machine);
    let admin = machine.connect(ADMIN);
    assert_eq!(model_state(&mut machine, admin, "a"), ModelState::Unloaded);
    assert!(machine.logs.iter().any(|l| l.starts_with("model a is not loaded: model a needs")));
    let close = machine.begin_as(admin, Some(pid), Close { context });
    assert!(machine.reply(admin, close).expect("at once").is_err(), "it is another's");
    machine.call(admin, Unmount { name: "b".into(), force: true }).expect("it is not needed");
    machine.run();
    goes_on(machine, pid);
}

#[test]
fn generation_that_sleeps_goes_on_when_the_model_beside_it_rests() {
    for before in [killed([256, 256], true), killed_while_b_runs([256, 256], true)] {
        let (mut before, pid, _) = before;
        let mut machine = before.crashed(config(800));
        machine.run();
        goes_on(machine, pid);
    }
}

#[test]
fn generation_that_sleeps_goes_on_when_the_last_context_beside_it_is_closed() {
    let (mut before, pid, _) = killed([256, 256], true);
    let other = before.images.contexts.values().find(|image| image.model == "b").expect("it is kept").owner;
    let mut machine = before.crashed(config(800));
    machine.run();
    let admin = machine.connect(ADMIN);
    machine.call(admin, Kill { pid: other, signal: Signal::Kill }).expect("the administrator may");
    machine.run();
    goes_on(machine, pid);
}

#[test]
fn context_that_sleeps_without_calls_has_its_model_loaded_when_its_process_is_attached() {
    let (mut before, pid, context) = killed([256, 256], false);
    let other = before.images.contexts.values().find(|image| image.model == "b").expect("it is kept").owner;
    let mut machine = before.crashed(config(800));
    machine.run();
    let admin = machine.connect(ADMIN);
    assert_eq!(model_state(&mut machine, admin, "a"), ModelState::Unloaded, "nobody needs it");
    machine.call(admin, Kill { pid: other, signal: Signal::Kill }).expect("the administrator may");
    machine.run();
    assert_eq!(model_state(&mut machine, admin, "a"), ModelState::Unloaded, "still nobody needs it");
    let user = machine.connect(7);
    machine.call(user, Attach { pid, force: false }).expect("his own");
    machine.run();
    let reply = machine.call_as(user, Some(pid), generate(context, 60));
    assert_eq!(generated(reply).text, reference("", "a long story", 60));
}

#[test]
fn call_on_a_context_that_sleeps_for_lack_of_room_says_so() {
    let (mut before, pid, context) = killed_while_b_runs([256, 256], false);
    let mut machine = before.crashed(config(800));
    run_up_to_a_step(&mut machine);
    let user = machine.connect(7);
    machine.call(user, Attach { pid, force: false }).expect("his own");
    let fault = machine.call_as(user, Some(pid), append_bytes(context, "x")).expect_err("no room");
    assert_eq!(fault.errno, Errno::EAGAIN);
    assert!(fault.message.contains("has no room beside those that are used"), "{fault}");
}

#[test]
fn pool_gets_no_smaller_than_the_largest_context_that_sleeps() {
    let (mut before, pid, _) = killed_while_b_runs([128, 256], true);
    let mut machine = before.crashed(config(800 + 300));
    run_up_to_a_step(&mut machine);
    let admin = machine.connect(ADMIN);
    assert_eq!(model_state(&mut machine, admin, "a"), ModelState::Unloaded, "128 and 256 are too much");
    machine.call(admin, Unmount { name: "b".into(), force: true }).expect("it is not needed");
    machine.run();
    assert_eq!(machine.loads.last().expect("it is loaded").pool_tokens, Some(256));
    goes_on(machine, pid);
}

#[test]
fn calls_on_contexts_whose_model_cannot_be_loaded_after_a_restart_fail() {
    let (mut before, pid, _) = killed([256, 256], true);
    let mut machine = before.crashed(config(2000));
    while let Some(job) = machine.jobs.pop_front() {
        match job {
            Job::Inspect(model, load) if load.name == "a" => {
                let fault = DriverFault::new(Errno::ENOENT, "there is no such file");
                machine.event(Event::Inspected { model, estimate: Err(fault), digest: None });
            }
            other => {
                machine.jobs.push_front(other);
                machine.turn();
            }
        }
    }
    let user = machine.connect(7);
    let fault = answer(&mut machine, user, pid).expect_err("no file");
    assert_eq!(fault.errno, Errno::ENODEV);
    assert_eq!(machine.images.contexts.len(), 2, "what it holds is kept");
}

#[test]
fn mount_beside_a_model_that_is_being_loaded_waits_until_that_can_make_room() {
    let mut machine = Machine::new(config(800));
    let admin = machine.connect(ADMIN);
    let first = machine.begin(admin, mount("a", SCRIPT));
    let second = machine.begin(admin, mount("b", SCRIPT));
    machine.finish(admin, second).expect("a is idle as soon as it is loaded, and makes room");
    machine.finish(admin, first).expect("it was loaded");
    assert_eq!(model_state(&mut machine, admin, "a"), ModelState::Unloaded);
}
