//! Frames that go from one user to another, and what is left in them.

use drivers::wire::Op;
use kernel::core::event::ConnId;
use syscalls::call::{Close, Exit};

use crate::machine::{Machine, reference};

const ONE: u32 = 7;
const OTHER: u32 = 8;

impl Machine {
    /// Cells that no sequence has, with something in them that one had.
    fn cells_left(&self) -> usize {
        self.workers.values().map(|worker| worker.driver().cells_left()).sum()
    }

    /// Steps in which the worker was told to clear, each with nothing given up behind that.
    fn clears(&self) -> usize {
        let clears = self.steps.iter().filter(|step| step.ops.contains(&Op::Clear));
        clears.inspect(|step| assert_eq!(step.ops.last(), Some(&Op::Clear))).count()
    }

    /// Says so much to the model, hears the answer, and closes.
    fn talk(&mut self, conn: ConnId, prompt: &str) {
        let context = self.open_with(conn, prompt);
        assert_eq!(self.generate(conn, context, 5).text, reference("", prompt, 5));
        self.call(conn, Close { context }).expect("it is there");
    }
}

#[test]
fn frame_of_another_user_is_cleared_before_anything_is_computed_in_it() {
    let (mut machine, _) = Machine::with_model("pool=128,context=128");
    let (one, other) = (machine.connect(ONE), machine.connect(OTHER));
    machine.talk(one, &"short and private ".repeat(6));
    // What is given up reaches the worker with the next step.
    machine.talk(one, "another");
    assert!(machine.cells_left() > 0, "the same user's frames are used as they are");
    assert_eq!(machine.clears(), 0);
    let context = machine.open_with(other, &"somebody else ".repeat(6));
    machine.generate(other, context, 5);
    assert_eq!((machine.clears(), machine.cells_left()), (1, 0));
    machine.generate(other, context, 5);
    assert_eq!(machine.clears(), 1, "once is enough");
}

#[test]
fn users_that_come_by_turns_keep_to_frames_of_their_own_and_nothing_is_cleared() {
    let (mut machine, _) = Machine::with_model("pool=512,context=512");
    let (one, other) = (machine.connect(ONE), machine.connect(OTHER));
    for _ in 0..10 {
        machine.talk(one, "short and private");
        machine.talk(other, "somebody else");
    }
    assert_eq!(machine.clears(), 0, "clean frames are there for both");
}

#[test]
fn frames_that_a_closed_context_has_left_are_cleared_when_they_go_to_another_user() {
    let (mut machine, _) = Machine::with_model("pool=512,context=512");
    let (one, other) = (machine.connect(ONE), machine.connect(OTHER));
    machine.talk(one, &"long and private ".repeat(20));
    machine.talk(other, "has frames of its own");
    assert_eq!(machine.clears(), 0, "what is kept for its user has gone to nobody");
    machine.talk(other, &"takes all that there is ".repeat(20));
    assert_eq!(machine.clears(), 1);
    assert!(machine.cells_left() < 512 - 64, "what it has had itself may be left");
}

#[test]
fn frames_of_a_process_that_has_ended_are_cleared_for_the_next_user() {
    let (mut machine, _) = Machine::with_model("pool=128,context=128");
    let one = machine.connect(ONE);
    let context = machine.open_with(one, &"private ".repeat(12));
    machine.generate(one, context, 5);
    machine.call(one, Exit { status: 0 }).expect("it ends");
    let other = machine.connect(OTHER);
    let context = machine.open_with(other, "somebody else");
    machine.generate(other, context, 5);
    assert_eq!((machine.clears(), machine.cells_left()), (1, 0));
}
