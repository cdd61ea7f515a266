//! Workers that have fewer cells than they said: what the kernel makes of it, and what not.

use syscalls::call::{Close, Open, Stat};
use syscalls::{ContextId, Reply};

use crate::machine::{ADMIN, Machine, append_bytes, generate, generated, open, reference};

/// A worker with 400 cells that said that it had 1,024. One context has a prompt of 200 tokens and is to have 100 more,
/// another one a prompt of 300, and the step that computes both, for which there is no room, is under way.
struct Short {
    machine: Machine,
    text: String,
    first: (kernel::core::event::ConnId, syscalls::CallId),
    second: (kernel::core::event::ConnId, ContextId),
}

fn short() -> Short {
    let (mut machine, _) = Machine::with_model("pool=1024,context=1024,cells=400,batch=512");
    let (one, other) = (machine.connect(ADMIN), machine.connect(ADMIN));
    let text = "one ".repeat(50);
    let context = machine.open_with(one, &text);
    let second = match machine.call(other, Open { ..open() }) {
        Ok(Reply::Opened { context, .. }) => context,
        reply => panic!("{reply:?}"),
    };
    machine.call(other, append_bytes(second, &"another ".repeat(40)[..300])).expect("it fits");
    // Whatever comes while a step runs is computed in the next one together.
    let busy = machine.open_with(one, "x");
    machine.begin(one, generate(busy, 1));
    let call = machine.begin(one, generate(context, 100));
    machine.begin(other, generate(second, 100));
    machine.turn();
    machine.call(one, Close { context: busy }).expect("its own");
    let rows = machine.steps.last().expect("it is under way").rows.len();
    assert_eq!(rows, 2, "both prompts are in the step");
    Short { machine, text, first: (one, call), second: (other, second) }
}

#[test]
fn frames_given_back_while_a_step_had_no_room_are_not_counted_as_lost() {
    let Short { mut machine, text, first, second } = short();
    let before = machine.steps.len();
    machine.begin(second.0, Close { context: second.1 });
    let reply = generated(machine.finish(first.0, first.1));
    assert_eq!(reply.text, reference("", &text, 100), "it fits alone");
    assert!(machine.steps.len() > before);
    let Ok(Reply::Stat(stats)) = machine.call(first.0, Stat { pid: None, model: None }) else {
        panic!("it counts")
    };
    assert!(stats.frames_total >= 400 / 64, "{} frames are left of 400 cells", stats.frames_total);
    assert!(machine.logs.iter().any(|line| line.contains("less than it said")), "{:?}", machine.logs);
}

#[test]
fn generation_that_is_left_alone_by_the_end_of_the_step_that_had_no_room_is_tried_alone() {
    let Short { mut machine, text, first, second } = short();
    machine.begin(second.0, Close { context: second.1 });
    machine.run();
    assert_eq!(generated(machine.finish(first.0, first.1)).text, reference("", &text, 100));
}
