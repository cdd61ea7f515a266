//! Preemption: steps that are withdrawn when somebody in a hurry arrives.

use syscalls::CallId;
use syscalls::call::*;

use crate::machine::{ADMIN, Machine, generate, generated, reference};

/// A prompt token takes a hundredth of a decode step; a step of prompts up to a second.
const TIMED: &str = "step_us=9000,row_us=1000,token_us=100,pool=65536,context=8192";

/// A machine on which `batch` works on a long prompt, with a step of it under way.
fn busy() -> (Machine, kernel::core::event::ConnId, CallId) {
    let (mut machine, _) = Machine::with_model(TIMED);
    let batch = machine.connect_as(ADMIN, Class::Batch, 0);
    let long = machine.open_with(batch, &"p".repeat(8000));
    let working = machine.begin(batch, generate(long, 5));
    machine.turn();
    (machine, batch, working)
}

#[test]
fn interactive_arrival_withdraws_a_step_of_lower_classes() {
    let (mut machine, batch, working) = busy();
    let under_way = machine.steps.len() as u64;
    let watched = machine.connect_as(ADMIN, Class::Interactive, 0);
    let context = machine.open_with(watched, "now");
    assert!(machine.withdrawn.is_empty(), "nobody is in a hurry yet");
    let call = machine.begin(watched, generate(context, 20));
    assert!(machine.withdrawn.iter().any(|(_, number)| *number == under_way), "{:?}", machine.withdrawn);
    let before = machine.now;
    while machine.events(watched, call).is_empty() {
        assert!(machine.turn());
    }
    assert!(machine.now - before < 50_000, "the first token took {} µs", machine.now - before);
    assert_eq!(generated(machine.finish(watched, call)).text, reference("", "now", 20));
    let reply = generated(machine.finish(batch, working));
    assert_eq!(reply.text, reference("context=8192", &"p".repeat(8000), 5));
    assert_eq!(reply.usage.prompt_tokens_evaluated, 8000, "what was withdrawn was not counted");
    assert_eq!(machine.stat(batch).steps_withdrawn, 1);
}

#[test]
fn step_of_which_nothing_is_known_is_withdrawn_for_an_arrival() {
    let (mut machine, _) = Machine::with_model(TIMED);
    let batch = machine.connect_as(ADMIN, Class::Batch, 0);
    let long = machine.open_with(batch, &"p".repeat(8000));
    let working = machine.begin(batch, generate(long, 5));
    assert_eq!(machine.steps.len(), 1, "the first step since the mount is under way");
    let watched = machine.connect_as(ADMIN, Class::Interactive, 0);
    let context = machine.open_with(watched, "now");
    let call = machine.begin(watched, generate(context, 5));
    assert_eq!(machine.withdrawn.len(), 1, "it may take long");
    assert_eq!(generated(machine.finish(watched, call)).text, reference("", "now", 5));
    let reply = generated(machine.finish(batch, working));
    assert_eq!(reply.text, reference("context=8192", &"p".repeat(8000), 5));
}

#[test]
fn step_that_takes_far_longer_than_expected_is_withdrawn_for_an_arrival() {
    let (mut machine, ..) = busy();
    // It should have been over long ago.
    machine.pass_ms(1200);
    let watched = machine.connect_as(ADMIN, Class::Interactive, 0);
    let context = machine.open_with(watched, "now");
    machine.begin(watched, generate(context, 5));
    assert_eq!(machine.withdrawn.len(), 1);
}

#[test]
fn step_that_should_soon_be_over_and_is_not_is_withdrawn_after_all() {
    let (mut machine, ..) = busy();
    let began = machine.now;
    // A full step takes 215 ms.
    machine.pass_ms(205);
    let watched = machine.connect_as(ADMIN, Class::Interactive, 0);
    let context = machine.open_with(watched, "now");
    machine.begin(watched, generate(context, 5));
    assert!(machine.withdrawn.is_empty(), "it is nearly over");
    let wake = machine.wake.expect("the kernel looks again").0;
    assert!((began + 225_000..began + 250_000).contains(&wake), "after {} µs", wake - began);
    machine.now = wake;
    machine.event(kernel::core::Event::Tick);
    assert_eq!(machine.withdrawn.len(), 1, "it is late, and somebody still waits");
}

#[test]
fn normal_arrival_and_short_steps_withdraw_nothing() {
    let (mut machine, batch, working) = busy();
    let normal = machine.connect(ADMIN);
    let context = machine.open_with(normal, "no hurry");
    machine.begin(normal, generate(context, 5));
    assert!(machine.withdrawn.is_empty(), "normal does not preempt");
    machine.finish(batch, working).expect("it ends");
    let decoding = machine.open_with(normal, "short steps");
    machine.begin(normal, generate(decoding, 100));
    for _ in 0..10 {
        machine.turn();
    }
    let watched = machine.connect_as(ADMIN, Class::Interactive, 0);
    let context = machine.open_with(watched, "now");
    machine.begin(watched, generate(context, 5));
    assert!(machine.withdrawn.is_empty(), "10 ms are not worth it");
    assert_eq!(machine.stat(batch).steps_withdrawn, 0);
}

#[test]
fn arrivals_without_end_do_not_keep_a_step_from_running_through() {
    let (mut machine, batch, working) = busy();
    for n in 0..200 {
        if machine.reply(batch, working).is_some() {
            break;
        }
        let watched = machine.connect_as(ADMIN, Class::Interactive, 0);
        let context = machine.open_with(watched, &format!("arrival {n}"));
        let call = machine.begin(watched, generate(context, 1));
        machine.finish(watched, call).expect("it ends");
    }
    assert!(machine.withdrawn.len() > 3, "only {} were withdrawn", machine.withdrawn.len());
    let reply = generated(machine.reply(batch, working).expect("the prompt got on"));
    assert_eq!(reply.text, reference("context=8192", &"p".repeat(8000), 5));
}
