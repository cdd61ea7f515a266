//! Frames and slots that go from one user to another, and what is left in them.

use drivers::wire::{Op, Slot};
use kernel::core::KernelConfig;
use kernel::core::event::ConnId;
use syscalls::ContextId;
use syscalls::call::{Close, Exit, Lifetime, Snapshot};

use crate::machine::{ADMIN, Job, Machine, reference};

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

    /// Slots with something in them that no page has any more, or is to have.
    pub fn slots_left(&mut self, conn: ConnId) -> usize {
        // A worker that was started late for a model which had gone by then has the area of its name, too.
        let areas: Vec<_> = self.swap.values().collect();
        let again = |n: usize| areas[..n].iter().any(|earlier| earlier.is(areas[n]));
        let has: usize = (0..areas.len()).filter(|n| !again(*n)).map(|n| areas[n].pages()).sum();
        let stats = self.stat(conn);
        has.saturating_sub((stats.pages_host + stats.pages_disk) as usize)
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

/// Four frames, and pages that are cheaper to save and load than to compute.
const SWAPPED: &str = "pool=256,context=256,token_us=1000,save_us=10,load_us=10";

/// A context of a user that has lost its pages to the host tier and has them again.
fn swapped(machine: &mut Machine, conn: ConnId) -> ContextId {
    let context = machine.open_with(conn, &"long and private ".repeat(12)[..195]);
    machine.generate(conn, context, 2);
    let passing = machine.open_with(conn, &"passes by ".repeat(24)[..230]);
    machine.generate(conn, passing, 2);
    machine.call(conn, Close { context: passing }).expect("own context");
    machine.generate(conn, context, 2);
    context
}

fn is_move(op: &Op) -> bool {
    matches!(op, Op::Move { from: Slot::Host(_), to: Slot::Disk(_) })
}

#[test]
fn page_that_is_moved_to_disk_leaves_nothing_in_the_slot_that_it_had() {
    let (mut machine, admin) = Machine::with_swap(SWAPPED, 16, 16);
    let one = machine.connect(ONE);
    let context = swapped(&mut machine, one);
    assert!(machine.stat(admin).pages_host >= 3 && machine.slots_left(admin) == 0);
    machine.call(one, Snapshot { context, name: "kept".into() }).expect("own context");
    machine.run();
    let moves = machine.steps.iter().flat_map(|step| &step.ops).filter(|op| is_move(op)).count();
    assert!(moves >= 3 && machine.stat(admin).pages_disk >= 3, "{moves} pages were moved");
    assert_eq!(machine.slots_left(admin), 0);
}

#[test]
fn page_keeps_its_slot_until_it_is_in_the_other_one_and_gives_it_back_if_the_worker_dies() {
    let (mut machine, admin) = Machine::with_swap(SWAPPED, 16, 16);
    let one = machine.connect(ONE);
    let context = swapped(&mut machine, one);
    let host = machine.stat(admin).pages_host;
    machine.call(one, Snapshot { context, name: "kept".into() }).expect("own context");
    let moves = |job: &Job| matches!(job, Job::Step(_, step) if step.ops.iter().any(is_move));
    while !machine.jobs.front().is_some_and(moves) {
        assert!(machine.turn());
    }
    assert_eq!(machine.stat(admin).pages_host, host, "nobody else has the room yet");
    machine.kill_worker();
    machine.run();
    assert!(machine.stat(admin).pages_host < host);
    assert_eq!(machine.slots_left(admin), 0);
}

#[test]
fn page_that_is_damaged_leaves_nothing_in_its_slot() {
    let (mut machine, admin) = Machine::with_swap(&format!("{SWAPPED},corrupt_every=1"), 16, 0);
    let one = machine.connect(ONE);
    swapped(&mut machine, one);
    assert!(machine.stat(admin).pages_corrupted > 0);
    assert_eq!(machine.slots_left(admin), 0);
}

#[test]
fn pages_that_a_smaller_disk_tier_has_no_room_for_are_cleared_at_the_next_start() {
    let config = |pages: u64| KernelConfig { swap_disk_bytes: pages * 4096, ..KernelConfig::default() };
    let mut machine = Machine::new(config(64));
    let admin = machine.connect(ADMIN);
    machine
        .mount(admin, "m", "pool=1024,context=1024,token_us=1000,save_us=10,load_us=10")
        .expect("it mounts");
    let one = machine.connect_lasting(ONE, Lifetime::Persistent);
    let context = machine.open_with(one, &"private ".repeat(80));
    machine.generate(one, context, 2);
    machine.run();
    assert!(machine.stat(admin).pages_disk >= 10 && machine.slots_left(admin) == 0);
    let mut next = machine.crashed(config(4));
    next.run();
    let admin = next.connect(ADMIN);
    assert_eq!((next.stat(admin).pages_disk, next.slots_left(admin)), (4, 0));
}
