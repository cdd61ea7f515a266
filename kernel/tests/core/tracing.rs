//! What tracers are told, who may trace, and that nobody waits for one.

use kernel::core::Event as Happening;
use kernel::core::event::{ConnId, Credentials};
use syscalls::call::*;
use syscalls::event::ProcessChange;
use syscalls::limits::{OUTPUT_BYTES_MAX, TRACE_EVENT_BYTES_MAX, TRACES_MAX, TRACES_PER_USER_MAX};
use syscalls::{CallId, ContextId, Errno, Event, Pid, Reply, Token, Tokens};

use crate::machine::{ADMIN, Machine, append_bytes, credentials, generate, open};

fn trace(pid: Pid) -> Trace {
    Trace { pid: Some(pid), os_pid: None, follow: false, tokens: false, whole: false }
}

/// A machine with a tracer of another connection's process.
fn traced(args: Trace) -> (Machine, ConnId, CallId, ConnId) {
    let (mut machine, conn) = Machine::with_model("step_us=1000,pool=1024,context=1024");
    let tracer = machine.connect(ADMIN);
    let pid = machine.pid(conn);
    let call = machine.begin(tracer, Trace { pid: Some(pid), ..args });
    (machine, tracer, call, conn)
}

/// Names of what was told, in its order.
fn told(events: &[Event]) -> Vec<String> {
    let name = |event: &Event| match event {
        Event::Called { call, .. } => format!("{call}("),
        Event::Returned { call, fault: None, .. } => format!("){call}"),
        Event::Returned { fault: Some(fault), .. } => format!("){}", fault.errno),
        Event::Sampled { .. } => "token".into(),
        Event::Signalled { signal, .. } => format!("{signal:?}"),
        Event::Process { change, .. } => format!("{change:?}"),
        Event::Step { .. } => "step".into(),
        Event::Held { .. } => "held".into(),
        Event::Lost { events } => format!("lost {events}"),
        other => panic!("a tracer is told {other:?}"),
    };
    events.iter().map(name).collect()
}

#[test]
fn tracer_hears_every_call_with_its_arguments_answer_and_time() {
    let (mut machine, tracer, call, conn) = traced(trace(Pid(0)));
    let context = machine.open_with(conn, "what is asked");
    machine.generate(conn, context, 3);
    machine.call(conn, Close { context: ContextId(99) }).expect_err("no such context");
    let events = machine.events(tracer, call).to_vec();
    let expected = ["open(", ")open", "append(", ")append", "generate(", ")generate", "close(", ")EBADF"];
    assert_eq!(told(&events), expected, "without tokens, neither tokens nor steps");
    let Event::Called { args, number, .. } = &events[4] else { panic!("{:?}", events[4]) };
    assert_eq!((args["context"].as_u64(), args["max_tokens"].as_u64()), (Some(context.0), Some(3)));
    let Event::Returned { number: same, took_us, result: Some(result), .. } = &events[5] else {
        panic!("{:?}", events[5])
    };
    assert!(same == number && *took_us >= 3000, "three steps of a millisecond took {took_us}");
    assert_eq!(result["generated"]["tokens"].as_array().map(Vec::len), Some(3));
}

#[test]
fn tracer_of_tokens_hears_each_token_and_the_steps_of_its_process_alone() {
    let (mut machine, tracer, call, conn) = traced(Trace { tokens: true, ..trace(Pid(0)) });
    let other = machine.connect(ADMIN);
    let (context, neighbour) = (machine.open_with(conn, "mine"), machine.open_with(other, "not mine"));
    let beside = machine.begin(other, generate(neighbour, 5));
    let text = machine.generate(conn, context, 5).text;
    machine.finish(other, beside).expect("it generates");
    let events = machine.events(tracer, call).to_vec();
    let pieces: String = events
        .iter()
        .filter_map(|event| match event {
            Event::Sampled { context: of, text, .. } if *of == context => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(pieces, text);
    let rows: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Step { rows, .. } => Some(rows.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    assert!(rows.len() >= 5 && rows.iter().all(|row| row.context == context), "{rows:?}");
}

#[test]
fn arguments_are_cut_unless_all_is_asked_for() {
    let prompt = "secret ".repeat(100);
    for whole in [false, true] {
        let (mut machine, tracer, call, conn) = traced(Trace { whole, ..trace(Pid(0)) });
        let context = machine.open(conn);
        machine.append(conn, context, &prompt).expect("it fits");
        let args = machine.events(tracer, call).iter().find_map(|event| match event {
            Event::Called { call, args, .. } if call == "append" => args["tokens"].as_array().cloned(),
            _ => None,
        });
        let shown = args.expect("it was told").len();
        assert_eq!(shown, if whole { prompt.len() } else { 65 });
    }
}

#[test]
fn trace_that_is_whole_begins_with_what_contexts_hold() {
    let (mut machine, conn) = Machine::with_model("pool=1024,context=1024");
    let (tracer, pid) = (machine.connect(ADMIN), machine.pid(conn));
    let (before, busy) = (machine.open_with(conn, "held"), machine.open_with(conn, "busy"));
    machine.begin(conn, generate(busy, 50));
    let call = machine.begin(tracer, Trace { whole: true, ..trace(pid) });
    let held: Vec<(ContextId, usize, bool)> = machine
        .events(tracer, call)
        .iter()
        .map(|event| match event {
            Event::Held { context, tokens, busy, .. } => (*context, tokens.len(), *busy),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(held, [(before, 4, false), (busy, 4, true)]);
    // What a segment brings into a context is told, too.
    machine.call(conn, Share { context: before, name: "s".into(), length: None, mode: 0o600 }).expect("own");
    machine.call(conn, Open { prefix: Some("s".into()), ..open() }).expect("it is there");
    let names = told(machine.events(tracer, call));
    assert_eq!(names[names.len() - 2..], [")open", "held"], "{names:?}");
}

#[test]
fn trace_that_is_whole_tells_no_more_at_once_than_its_reader_can_be_owed() {
    let (mut machine, conn) = Machine::with_model("pool=131072,context=131072");
    let context = machine.open_with(conn, &"x".repeat(TRACE_EVENT_BYTES_MAX / 8));
    machine.fork(conn, context, 79);
    let (tracer, pid) = (machine.connect(ADMIN), machine.pid(conn));
    let call = machine.begin(tracer, Trace { whole: true, ..trace(pid) });
    let held = machine.events(tracer, call).len();
    assert_eq!(held, OUTPUT_BYTES_MAX / TRACE_EVENT_BYTES_MAX);
    machine.call(conn, Ps { all: false }).expect("it lists");
    let names = told(&machine.events(tracer, call)[held..]);
    assert_eq!(names, [format!("lost {}", 80 - held).as_str(), "ps(", ")ps"]);
}

#[test]
fn signals_and_the_end_are_told_and_end_the_trace() {
    let (mut machine, tracer, call, conn) = traced(trace(Pid(0)));
    let pid = machine.pid(conn);
    let waiting = machine.begin(conn, Receive { timeout_ms: None });
    let killer = machine.connect(ADMIN);
    machine.call(killer, Kill { pid, signal: Signal::Int }).expect("it is there");
    assert_eq!(machine.finish(conn, waiting).expect_err("INT").errno, Errno::EINTR);
    assert_eq!(machine.reply(tracer, call), None);
    machine.call(killer, Kill { pid, signal: Signal::Kill }).expect("it is there");
    let names = told(machine.events(tracer, call));
    assert_eq!(names, ["receive(", "Int", ")EINTR", "Kill", "Ended"]);
    assert_eq!(machine.reply(tracer, call), Some(Ok(Reply::Done {})), "nobody is left to trace");
}

#[test]
fn children_are_followed_where_that_is_asked_for() {
    for follow in [false, true] {
        let (mut machine, tracer, call, conn) = traced(Trace { follow, ..trace(Pid(0)) });
        let child = machine.spawn(conn, "child");
        machine.call_as(conn, Some(child), Ps { all: false }).expect("it lists");
        let grandchild = syscalls::client::spawn("grandchild");
        machine.call_as(conn, Some(child), grandchild).expect("there is room");
        machine.call_as(conn, Some(child), Exit { status: 0 }).expect("it ends");
        let of_child = |event: &&Event| match event {
            Event::Called { pid, .. } | Event::Returned { pid, .. } | Event::Process { pid, .. } => {
                *pid == child
            }
            _ => false,
        };
        let events: Vec<Event> = machine.events(tracer, call).iter().filter(of_child).cloned().collect();
        let expected: &[&str] = match follow {
            true => &["Started", "ps(", ")ps", "spawn(", ")spawn", "exit(", ")exit", "Ended"],
            false => &[],
        };
        assert_eq!(told(&events), expected);
    }
}

#[test]
fn program_that_a_traced_process_starts_is_followed_from_its_beginning() {
    let (mut machine, tracer, call, conn) = traced(Trace { follow: true, ..trace(Pid(0)) });
    let argv = vec!["/bin/program".to_owned()];
    machine.begin(conn, Spawn { argv, ..syscalls::client::spawn("program") });
    let (pid, _) = machine.programs.pop().expect("the host is asked to start it");
    let born = ConnId(9000);
    machine.event(Happening::ProgramStarted { pid, conn: born, os_pid: 77 });
    machine.call(born, Ps { all: false }).expect("it lists");
    machine.event(Happening::ProgramEnded { pid, status: 0 });
    let of_program = |event: &&Event| match event {
        Event::Called { pid: of, .. } | Event::Returned { pid: of, .. } | Event::Process { pid: of, .. } => {
            *of == pid
        }
        _ => false,
    };
    let events: Vec<Event> = machine.events(tracer, call).iter().filter(of_program).cloned().collect();
    assert_eq!(told(&events), ["Started", "ps(", ")ps", "Ended"]);
}

#[test]
fn program_is_traced_from_its_first_call_by_its_number_in_the_system() {
    let (mut machine, conn) = Machine::with_model("");
    let tracer = machine.connect(ADMIN);
    let args = Trace { pid: None, os_pid: Some(6000), follow: true, ..trace(Pid(0)) };
    let call = machine.begin(tracer, args);
    let connect = |machine: &mut Machine, number: u64, os_pid: u32, os_parent: Option<u32>| {
        let conn = ConnId(1000 + number);
        let credentials = Credentials { os_pid, os_parent, ..credentials(1000) };
        machine.event(Happening::Connected { conn, credentials });
        let hello = Hello {
            version: 1,
            name: None,
            class: Class::Normal,
            nice: 0,
            group: None,
            lifetime: Lifetime::Connection,
            caps: None,
        };
        machine.call(conn, hello).expect("it says hello");
        machine.pid(conn)
    };
    let program = connect(&mut machine, 1, 6000, Some(1));
    let child = connect(&mut machine, 2, 6001, Some(6000));
    let below = connect(&mut machine, 3, 6002, Some(6001));
    let stranger = connect(&mut machine, 4, 7000, Some(1));
    let started: Vec<Pid> = machine
        .events(tracer, call)
        .iter()
        .filter_map(|event| match event {
            Event::Process { pid, change: ProcessChange::Started, .. } => Some(*pid),
            _ => None,
        })
        .collect();
    assert_eq!(started, [program, child, below]);
    assert!(!started.contains(&stranger) && !started.contains(&machine.pid(conn)));
    for number in 1..=3 {
        machine.event(Happening::Disconnected { conn: ConnId(1000 + number) });
    }
    assert_eq!(machine.reply(tracer, call), None, "another one may come");
    let pid = machine.pid(tracer);
    machine.call(conn, Kill { pid, signal: Signal::Int }).expect("it is there");
    assert_eq!(machine.finish(tracer, call).expect_err("INT").errno, Errno::EINTR);
}

#[test]
fn tracer_that_does_not_read_loses_events_and_the_traced_one_waits_for_nothing() {
    let (mut machine, tracer, call, conn) = traced(Trace { tokens: true, ..trace(Pid(0)) });
    let context = machine.open_with(conn, "never slowed");
    let heard = machine.events(tracer, call).len();
    machine.event(Happening::OutputHigh { conn: tracer });
    let begun = machine.now;
    machine.generate(conn, context, 20);
    let slow_us = machine.now - begun;
    assert_eq!(machine.events(tracer, call).len(), heard, "nothing is sent to whom does not read");
    machine.event(Happening::OutputLow { conn: tracer });
    // Call and answer, and a token and a step for each of 20.
    assert_eq!(told(&machine.events(tracer, call)[heard..]), ["lost 42"]);
    let begun = machine.now;
    let again = machine.open_with(conn, "never slowed");
    machine.generate(conn, again, 20);
    assert!(slow_us <= machine.now - begun, "a tracer that does not read costs no time");
    let pid = machine.pid(tracer);
    machine.event(Happening::OutputHigh { conn: tracer });
    machine.call(conn, Ps { all: false }).expect("it lists");
    let other = machine.connect(ADMIN);
    machine.call(other, Kill { pid, signal: Signal::Int }).expect("it is there");
    let names = told(machine.events(tracer, call));
    assert_eq!(names.last().map(String::as_str), Some("lost 2"), "what was lost last is told before the end");
}

#[test]
fn event_that_is_too_large_is_lost_and_counted() {
    let (mut machine, tracer, call, conn) = traced(Trace { whole: true, ..trace(Pid(0)) });
    let texts = vec!["x".repeat(TRACE_EVENT_BYTES_MAX + 1)];
    machine.call(conn, Send { pid: Pid(2), data: serde_json::json!(texts) }).expect_err("too long a message");
    machine.call(conn, Ps { all: false }).expect("it lists");
    let names = told(machine.events(tracer, call));
    assert_eq!(names, ["lost 1", ")EMSGSIZE", "ps(", ")ps"]);
}

#[test]
fn process_of_another_user_or_ones_own_is_not_traced() {
    let (mut machine, root) = Machine::with_model("");
    let (one, two) = (machine.connect(7), machine.connect(8));
    let (own, other) = (machine.pid(one), machine.pid(two));
    let errno =
        |machine: &mut Machine, conn, args: Trace| machine.call(conn, args).expect_err("refused").errno;
    assert_eq!(errno(&mut machine, one, trace(other)), Errno::EPERM);
    assert_eq!(errno(&mut machine, one, trace(own)), Errno::EINVAL);
    assert_eq!(errno(&mut machine, one, Trace { pid: None, ..trace(own) }), Errno::EINVAL);
    assert_eq!(errno(&mut machine, one, Trace { os_pid: Some(1), ..trace(own) }), Errno::EINVAL);
    assert_eq!(errno(&mut machine, root, trace(Pid(999))), Errno::ESRCH);
    // By the number in the system another user's program is not traced, either: nothing is told of it.
    let call = machine.begin(one, Trace { pid: None, os_pid: Some(5000), ..trace(own) });
    let later = machine.connect(8);
    machine.call(later, Ps { all: false }).expect("it lists");
    assert_eq!(machine.events(one, call), []);
    let watcher = machine.connect(ADMIN);
    for _ in 1..TRACES_MAX {
        machine.begin(watcher, trace(other));
    }
    assert_eq!(errno(&mut machine, watcher, trace(other)), Errno::EAGAIN);
    machine.event(Happening::Disconnected { conn: watcher });
    let again = machine.begin(root, trace(other));
    assert_eq!(machine.reply(root, again), None, "there is room again");
}

#[test]
fn traces_of_a_user_are_bounded_and_leave_room_for_those_of_others() {
    let mut machine = Machine::default();
    let (conn, other) = (machine.connect(7), machine.connect(8));
    let (own, theirs) = (machine.spawn(conn, "own"), machine.spawn(other, "theirs"));
    for _ in 0..TRACES_PER_USER_MAX {
        machine.begin(conn, trace(own));
    }
    let fault = machine.call(conn, trace(own)).expect_err("one too many");
    assert_eq!(fault.errno, Errno::EAGAIN);
    assert!(fault.message.contains("user 7 has 16 traces; the limit is 16"), "{fault}");
    let call = machine.begin(other, trace(theirs));
    assert_eq!(machine.reply(other, call), None, "others have room");
}

#[test]
fn tracing_changes_no_effect_on_others() {
    let history = |watch: bool| {
        let (mut machine, conn) = Machine::with_model("pool=128,context=128,step_us=10");
        let (tracer, pid) = (machine.connect(ADMIN), machine.pid(conn));
        if watch {
            machine.begin(tracer, Trace { follow: true, tokens: true, whole: true, ..trace(pid) });
        } else {
            machine.begin(tracer, Receive { timeout_ms: None });
        }
        let calls: Vec<CallId> = (0..4)
            .map(|n| {
                let context = machine.open(conn);
                machine.begin(conn, append_bytes(context, &"text ".repeat(n + 3)));
                machine.begin(conn, generate(context, 40))
            })
            .collect();
        machine.run();
        let replies: Vec<_> = calls.into_iter().map(|call| machine.reply(conn, call)).collect();
        (machine.steps, replies)
    };
    assert!(history(true) == history(false), "tracing changed what happened");
}

#[test]
fn call_that_is_left_and_followed_is_answered_in_the_trace() {
    let (mut machine, _) = Machine::with_model("");
    let conn = machine.connect_lasting(ADMIN, Lifetime::Detached);
    let (tracer, pid) = (machine.connect(ADMIN), machine.pid(conn));
    let call = machine.begin(tracer, trace(pid));
    let context = machine.open_with(conn, "left");
    machine.begin(conn, generate(context, 10));
    machine.begin(conn, Detach { pid: None });
    machine.run();
    let names = told(machine.events(tracer, call));
    assert_eq!(names[names.len() - 4..], ["generate(", "detach(", ")detach", ")generate"], "{names:?}");
    let tokens = machine.events(tracer, call).iter().find_map(|event| match event {
        Event::Returned { call, result: Some(result), .. } if call == "generate" => {
            serde_json::from_value(result["generated"]["tokens"].clone()).ok()
        }
        _ => None,
    });
    let tokens: Vec<Token> = tokens.expect("it generated");
    assert_eq!(Tokens(tokens.len() as u32), Tokens(10));
}
