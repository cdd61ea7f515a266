//! Scheduling: batches, chunks, classes, weights, readers that do not read.

use kernel::core::Event;
use syscalls::call::*;
use syscalls::reply::ProcessState;
use syscalls::{CallId, ContextId, Errno};

use crate::machine::{ADMIN, Machine, generate, generated, reference};

use kernel::core::event::ConnId;

/// Time as on a machine where a prompt token takes a hundredth of a decode step.
const TIMED: &str = "step_us=9000,row_us=1000,token_us=100,pool=65536,context=8192";

impl Machine {
    fn until_tokens(&mut self, conn: ConnId, call: CallId, tokens: usize) {
        while self.events(conn, call).len() < tokens {
            assert!(self.turn(), "{} of {tokens} tokens", self.events(conn, call).len());
        }
    }
}

#[test]
fn processes_that_decode_share_every_step() {
    let (mut machine, conn) = Machine::with_model(TIMED);
    let conns: Vec<ConnId> = (0..8).map(|_| machine.connect(ADMIN)).collect();
    let contexts: Vec<ContextId> =
        conns.iter().enumerate().map(|(n, c)| machine.open_with(*c, &format!("process {n}"))).collect();
    let before = machine.steps.len();
    let calls: Vec<CallId> =
        conns.iter().zip(&contexts).map(|(conn, c)| machine.begin(*conn, generate(*c, 40))).collect();
    for (n, (conn, call)) in conns.iter().zip(calls).enumerate() {
        let text = generated(machine.finish(*conn, call)).text;
        assert_eq!(text, reference("", &format!("process {n}"), 40));
    }
    let steps = machine.steps.len() - before;
    assert!(steps <= 43, "{steps} steps for 40 tokens each");
    assert_eq!(machine.stat(conn).tokens_generated, 8 * 40);
}

#[test]
fn prompt_beside_decoding_is_cut_into_chunks() {
    let (mut machine, conn) = Machine::with_model(TIMED);
    let reader = machine.open_with(conn, "somebody reads along");
    let reading = machine.begin(conn, generate(reader, 2000));
    machine.until_tokens(conn, reading, 50);
    let other = machine.connect(ADMIN);
    let long = machine.open_with(other, &"long ".repeat(1000));
    let waiting = machine.begin(other, generate(long, 1));
    let before = machine.now;
    let first_step = machine.steps.len();
    machine.until_tokens(other, waiting, 1);
    let tokens =
        machine.steps[first_step..].iter().map(|s| s.rows.iter().map(|r| r.tokens.len()).sum::<usize>());
    let largest = tokens.max().unwrap_or(0);
    assert!(
        (80..=120).contains(&largest),
        "a step had {largest} tokens, so it took twice as long as a decode step or not"
    );
    assert!(machine.now - before < 60 * 25_000, "the prompt gets on");
    let stats = machine.stat(conn);
    assert!(stats.tokens_generated > 90, "the reader got {} tokens meanwhile", stats.tokens_generated);
}

#[test]
fn prompts_alone_fill_the_batch() {
    let (mut machine, conn) = Machine::with_model(TIMED);
    let context = machine.open_with(conn, &"p".repeat(5000));
    machine.generate(conn, context, 1);
    let rows: Vec<usize> = machine.steps.iter().flat_map(|s| &s.rows).map(|r| r.tokens.len()).collect();
    assert_eq!(rows, [2048, 2048, 904]);
}

#[test]
fn higher_class_prompt_goes_first() {
    let (mut machine, normal) = Machine::with_model(TIMED);
    let interactive = machine.connect_as(ADMIN, Class::Interactive, 0);
    let slow = machine.open_with(normal, &"n".repeat(6000));
    let fast = machine.open_with(interactive, &"i".repeat(6000));
    let first = machine.begin(normal, generate(slow, 1));
    let second = machine.begin(interactive, generate(fast, 1));
    while machine.reply(interactive, second).is_none() {
        assert!(machine.turn());
    }
    assert!(machine.reply(normal, first).is_none(), "the class goes before the order of arrival");
}

#[test]
fn nice_process_decodes_less_often() {
    let (mut machine, conn) = Machine::with_model(TIMED);
    let nice = machine.connect_as(ADMIN, Class::Normal, 5);
    let (one, two) = (machine.open_with(conn, "important"), machine.open_with(nice, "less so"));
    let first = machine.begin(conn, generate(one, 3000));
    let second = machine.begin(nice, generate(two, 3000));
    machine.until_tokens(conn, first, 600);
    let (fast, slow) = (machine.events(conn, first).len(), machine.events(nice, second).len());
    assert!((150..260).contains(&slow), "{fast} to {slow} tokens at weights of three to one");
    assert_eq!(generated(machine.finish(nice, second)).tokens.len(), 3000, "and alone it is not held back");
}

#[test]
fn batch_gets_what_is_left() {
    // A row costs as much as the step: every further one makes it noticeably longer.
    let (mut machine, conn) = Machine::with_model("step_us=1000,row_us=9000,pool=65536,context=8192");
    let batch = machine.connect_as(ADMIN, Class::Batch, 0);
    let (one, two) = (machine.open_with(conn, "watched"), machine.open_with(batch, "whenever"));
    let second = machine.begin(batch, generate(two, 400));
    machine.until_tokens(batch, second, 30);
    let first = machine.begin(conn, generate(one, 300));
    machine.until_tokens(conn, first, 50);
    let had = machine.events(batch, second).len();
    machine.until_tokens(conn, first, 250);
    let got = machine.events(batch, second).len() - had;
    assert!(got < 20, "batch got {got} tokens while the other got 200");
    assert_eq!(generated(machine.finish(batch, second)).tokens.len(), 400);
}

#[test]
fn newcomer_neither_waits_for_others_nor_holds_them_up() {
    let (mut machine, conn) = Machine::with_model(TIMED);
    let long = machine.open_with(conn, "old hand");
    let running = machine.begin(conn, generate(long, 4000));
    machine.until_tokens(conn, running, 1000);
    let newcomer = machine.connect(ADMIN);
    let context = machine.open_with(newcomer, "newcomer");
    let call = machine.begin(newcomer, generate(context, 100));
    machine.until_tokens(newcomer, call, 100);
    let got = machine.events(conn, running).len() - 1000;
    assert!((95..110).contains(&got), "the old hand got {got} tokens while the newcomer got 100");
}

#[test]
fn service_is_charged_by_measured_time() {
    let (mut machine, conn) = Machine::with_model(TIMED);
    let (one, two) = (machine.connect(ADMIN), machine.connect(ADMIN));
    for (conn, tokens) in [(one, 100), (two, 300)] {
        let context = machine.open_with(conn, "service");
        machine.generate(conn, context, tokens);
    }
    let (first, second) = (machine.pid(one), machine.pid(two));
    let list = machine.ps(conn);
    let service = |pid| list.iter().find(|p| p.pid == pid).map_or(0, |p| p.service_us);
    let (first, second) = (service(first), service(second));
    assert!(second > first * 28 / 10 && second < first * 32 / 10, "{first} and {second} µs");
    assert_eq!(machine.stat(conn).step_us, first + second);
}

#[test]
fn reader_that_does_not_read_stops_generating_until_it_does() {
    let (mut machine, conn) = Machine::with_model("");
    let other = machine.connect(ADMIN);
    let context = machine.open_with(other, "nobody reads");
    let running = machine.begin(other, generate(context, 100));
    machine.until_tokens(other, running, 10);
    machine.event(Event::OutputHigh { conn: other });
    machine.run();
    let had = machine.events(other, running).len();
    assert!(had <= 11, "{had}");
    let pid = machine.pid(other);
    let info = machine.ps(conn).into_iter().find(|p| p.pid == pid).expect("it lives");
    assert_eq!((info.state, info.waits_for.as_deref()), (ProcessState::Blocked, Some("its reader")));
    let neighbour = machine.open_with(conn, "neighbour");
    assert_eq!(machine.generate(conn, neighbour, 20).text, reference("", "neighbour", 20));
    machine.event(Event::OutputLow { conn: other });
    assert_eq!(generated(machine.finish(other, running)).text, reference("", "nobody reads", 100));
}

#[test]
fn ten_thousand_processes_all_finish() {
    let (mut machine, conn) = Machine::with_model("pool=16384");
    machine.check_every = 5000;
    let main = machine.connect(ADMIN);
    let pids: Vec<_> = (0..10_000).map(|n| machine.spawn(main, &format!("p{n}"))).collect();
    let mut calls = Vec::new();
    for (n, pid) in pids.iter().enumerate() {
        // Calls in flight are bounded, so the crowd comes in waves.
        if n % 1000 == 0 {
            machine.run();
        }
        let Ok(syscalls::Reply::Opened { context, .. }) =
            machine.call_as(main, Some(*pid), crate::machine::open())
        else {
            panic!("it opens")
        };
        let text = crate::machine::append_bytes(context, &format!("process {}", n % 7));
        machine.begin_as(main, Some(*pid), text);
        calls.push((
            n % 7,
            machine.begin_as(main, Some(*pid), Generate { stream: false, ..generate(context, 3) }),
        ));
    }
    machine.run();
    let expected: Vec<String> = (0..7).map(|n| reference("", &format!("process {n}"), 3)).collect();
    let stats = machine.stat(conn);
    assert_eq!((stats.tokens_generated, stats.processes), (30_000, 10_002));
    for frame in &machine.frames[&main] {
        if let syscalls::Frame::Reply(id, Err(fault)) = frame {
            panic!("call {id}: {fault}");
        }
    }
    let (kind, last) = calls[calls.len() - 1];
    assert_eq!(generated(machine.finish(main, last)).text, expected[kind]);
}

#[test]
fn class_changed_in_mid_generation_takes_effect() {
    let (mut machine, conn) = Machine::with_model(TIMED);
    let other = machine.connect(ADMIN);
    let pid = machine.pid(other);
    let (one, two) = (machine.open_with(conn, "one"), machine.open_with(other, "two"));
    let first = machine.begin(conn, generate(one, 2000));
    let second = machine.begin(other, generate(two, 2000));
    machine.until_tokens(conn, first, 100);
    let call = Setpriority { pid, class: None, nice: Some(19) };
    machine.call(conn, call).expect("the administrator");
    let had = machine.events(other, second).len();
    machine.until_tokens(conn, first, 400);
    let got = machine.events(other, second).len() - had;
    assert!(got < 20, "nice 19 got {got} of 300 tokens");
    let call = Setpriority { pid, class: None, nice: Some(50) };
    assert_eq!(machine.call(conn, call).expect_err("out of range").errno, Errno::EINVAL);
}

#[test]
fn crowd_of_one_process_does_not_keep_another_out() {
    let (mut machine, crowd) = Machine::with_model("sequences=4,pool=65536");
    let contexts: Vec<ContextId> = (0..30).map(|n| machine.open_with(crowd, &format!("crowd {n}"))).collect();
    let calls: Vec<CallId> = contexts.iter().map(|c| machine.begin(crowd, generate(*c, 20))).collect();
    machine.until_tokens(crowd, calls[0], 5);
    let single = machine.connect(ADMIN);
    let context = machine.open_with(single, "single");
    machine.generate(single, context, 20);
    let done = calls.iter().filter(|c| machine.reply(crowd, **c).is_some()).count();
    assert!(done <= 6, "{done} of the crowd were done before the one that came second");
    machine.run();
    assert!(calls.iter().all(|c| machine.reply(crowd, *c).is_some()));
}

#[test]
fn process_moved_to_another_class_is_not_held_back_there() {
    let (mut machine, conn) = Machine::with_model(TIMED);
    let slow = machine.connect_as(ADMIN, Class::Normal, 19);
    let (pid, context) = (machine.pid(slow), machine.open_with(slow, "promoted"));
    let moved = machine.begin(slow, generate(context, 3000));
    machine.until_tokens(slow, moved, 500);
    let watched = machine.connect_as(ADMIN, Class::Interactive, 0);
    let context = machine.open_with(watched, "watched");
    let watching = machine.begin(watched, generate(context, 3000));
    machine.until_tokens(watched, watching, 10);
    let call = Setpriority { pid, class: Some(Class::Interactive), nice: Some(0) };
    machine.call(conn, call).expect("the administrator");
    let had = machine.events(slow, moved).len();
    machine.until_tokens(watched, watching, 110);
    let got = machine.events(slow, moved).len() - had;
    assert!((95..=101).contains(&got), "it got {got} tokens while its new class got 100");
}
