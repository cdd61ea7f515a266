//! What subscribers are told, and what becomes of one that does not read.

use kernel::core::Event as Happening;
use syscalls::call::*;
use syscalls::event::{PageChange, ProcessChange, StepRow, WorkerChange};
use syscalls::limits::{SUBSCRIPTIONS_MAX, SUBSCRIPTIONS_PER_USER_MAX};
use syscalls::{CallId, Errno, Event, Reply};

use crate::machine::{ADMIN, Machine, append_bytes, generate, mount, open};

fn subscribe(kinds: &[&str]) -> Subscribe {
    Subscribe { kinds: kinds.iter().map(|k| (*k).to_owned()).collect(), timeout_ms: None }
}

/// A machine with a subscriber, and another connection.
fn watched(kinds: &[&str]) -> (Machine, kernel::core::event::ConnId, CallId, kernel::core::event::ConnId) {
    let (mut machine, worker) = Machine::with_model("step_us=1000,pool=256,context=256");
    let watcher = machine.connect(ADMIN);
    let call = machine.begin(watcher, subscribe(kinds));
    (machine, watcher, call, worker)
}

#[test]
fn subscriber_of_steps_hears_of_every_step_and_of_nothing_else() {
    let (mut machine, watcher, call, conn) = watched(&["step"]);
    let context = machine.open_with(conn, "what is told");
    let pid = machine.pid(conn);
    machine.generate(conn, context, 3);
    let events = machine.events(watcher, call);
    let mut rows = Vec::new();
    for event in events {
        let Event::Step { at_us, begun_us, elapsed_us, model, rows: of, .. } = event else {
            panic!("{event:?}")
        };
        assert_eq!((model.as_str(), *elapsed_us, at_us - begun_us >= 1000), ("m", 1000, true));
        rows.extend(of.iter().copied());
    }
    let decode = StepRow { pid, context, tokens: 1, prefill: false };
    let prompt = StepRow { tokens: 12, prefill: true, ..decode };
    assert_eq!(rows, [prompt, decode, decode]);
}

#[test]
fn subscriber_of_everything_hears_processes_pages_and_workers() {
    let (mut machine, watcher, call, _) = watched(&[]);
    let conn = machine.connect(ADMIN);
    let pid = machine.pid(conn);
    let context = machine.open_with(conn, "pages come and go");
    machine.generate(conn, context, 2);
    machine.kill_worker();
    machine.run();
    machine.event(Happening::Disconnected { conn });
    let events = machine.events(watcher, call).to_vec();
    let process = |wanted| {
        let is =
            |e: &&Event| matches!(e, Event::Process { pid: p, change, .. } if *p == pid && *change == wanted);
        events.iter().filter(is).count()
    };
    assert_eq!((process(ProcessChange::Started), process(ProcessChange::Ended)), (1, 1));
    let pages: Vec<_> = events
        .iter()
        .filter_map(|e| match e {
            Event::Page { context: c, change, tokens, .. } if *c == context => Some((*change, *tokens)),
            _ => None,
        })
        .collect();
    // Of 17 tokens and 2 more, the last one has no entry yet.
    assert_eq!(pages, [(PageChange::Waits, 17), (PageChange::Mapped, 0), (PageChange::Dropped, 18)]);
    let workers: Vec<_> = events
        .iter()
        .filter_map(|e| match e {
            Event::Worker { incarnation, change, .. } => Some((*incarnation, *change)),
            _ => None,
        })
        .collect();
    assert_eq!(workers, [(1, WorkerChange::Died), (2, WorkerChange::Starting), (2, WorkerChange::Ready)]);
}

#[test]
fn subscriber_that_does_not_read_loses_events_and_is_told_how_many() {
    let (mut machine, watcher, call, conn) = watched(&["process"]);
    machine.event(Happening::OutputHigh { conn: watcher });
    for _ in 0..5 {
        machine.spawn(conn, "child");
    }
    assert!(machine.events(watcher, call).is_empty(), "nothing is sent to whom does not read");
    machine.event(Happening::OutputLow { conn: watcher });
    machine.spawn(conn, "another");
    let events = machine.events(watcher, call);
    assert_eq!(events[0], Event::Lost { events: 5 });
    assert!(matches!(&events[1..], [Event::Process { name, .. }] if name == "another"), "{events:?}");
}

#[test]
fn subscription_ends_with_its_time_or_with_int() {
    let (mut machine, watcher, endless, conn) = watched(&["process"]);
    let timed = machine.begin(watcher, Subscribe { timeout_ms: Some(50), ..subscribe(&["process"]) });
    machine.pass_ms(49);
    assert_eq!(machine.reply(watcher, timed), None);
    machine.pass_ms(1);
    assert_eq!(machine.reply(watcher, timed), Some(Ok(Reply::Done {})));
    assert_eq!(machine.reply(watcher, endless), None);
    let pid = machine.pid(watcher);
    machine.call(conn, Kill { pid, signal: Signal::Int }).expect("it is there");
    let fault = machine.reply(watcher, endless).expect("it is answered").expect_err("INT ended it");
    assert_eq!(fault.errno, Errno::EINTR);
    let heard = machine.events(watcher, endless).len();
    machine.spawn(conn, "later");
    assert_eq!(machine.events(watcher, endless).len(), heard, "an ended subscription hears nothing");
}

#[test]
fn subscription_of_an_unknown_kind_or_one_too_many_is_refused() {
    let (mut machine, watcher, _, _) = watched(&["step"]);
    let fault = machine.call(watcher, subscribe(&["step", "weather"])).expect_err("no such kind");
    assert_eq!(fault.errno, Errno::EINVAL);
    assert!(fault.message.contains("\"weather\"") && fault.message.contains("process, step"), "{fault}");
    for _ in 1..SUBSCRIPTIONS_MAX {
        machine.begin(watcher, subscribe(&["step"]));
    }
    let fault = machine.call(watcher, subscribe(&["step"])).expect_err("there are enough");
    assert_eq!(fault.errno, Errno::EAGAIN);
    machine.event(Happening::Disconnected { conn: watcher });
    let other = machine.connect(ADMIN);
    machine.begin(other, subscribe(&["worker"]));
    machine.mount(other, "n", "").expect("it mounts");
    assert!(!machine.frames[&other].is_empty(), "an ended connection has no subscriptions left");
}

#[test]
fn subscriptions_of_a_user_are_bounded_and_leave_room_for_those_of_others() {
    let mut machine = Machine::default();
    let (conn, other) = (machine.connect(7), machine.connect(8));
    for _ in 0..SUBSCRIPTIONS_PER_USER_MAX {
        machine.begin(conn, subscribe(&["process"]));
    }
    let again = machine.connect(7);
    let fault = machine.call(again, subscribe(&["process"])).expect_err("one too many");
    assert_eq!(fault.errno, Errno::EAGAIN);
    assert!(fault.message.contains("user 7 has 16 subscriptions; the limit is 16"), "{fault}");
    let theirs = machine.begin(other, subscribe(&["process"]));
    assert_eq!(machine.reply(other, theirs), None, "others have room");
    machine.event(Happening::Disconnected { conn });
    let own = machine.begin(again, subscribe(&["process"]));
    assert_eq!(machine.reply(again, own), None, "there is room again");
}

#[test]
fn subscriber_changes_no_effect_on_others() {
    let history = |watch: bool| {
        let (mut machine, conn) = Machine::with_model("pool=128,context=128,step_us=10");
        let watcher = machine.connect(ADMIN);
        if watch {
            machine.begin(watcher, subscribe(&[]));
        } else {
            machine.begin(watcher, Receive { timeout_ms: None });
        }
        let calls: Vec<CallId> = (0..4)
            .map(|n| {
                let context = machine.open(conn);
                machine.begin(conn, append_bytes(context, &"text ".repeat(n + 3)));
                machine.begin(conn, generate(context, 40))
            })
            .collect();
        machine.call(watcher, mount("other", "")).expect("it mounts");
        machine.call(watcher, Open { model: Some("other".into()), ..open() }).expect("it opens");
        machine.run();
        let replies: Vec<_> = calls.into_iter().map(|call| machine.reply(conn, call)).collect();
        (machine.steps, replies)
    };
    assert!(history(true) == history(false), "watching changed what happened");
}

#[test]
fn subscriber_hears_of_processes_of_his_user_alone() {
    let (mut machine, watcher, all, _) = watched(&[]);
    let conn = machine.connect(7);
    let own = machine.begin(conn, subscribe(&[]));
    let child = machine.spawn(conn, "child");
    let other = machine.connect(8);
    let theirs = machine.open_with(other, "of somebody else");
    machine.generate(other, theirs, 2);
    let context = machine.open_with(conn, "of his own");
    machine.generate(conn, context, 2);
    let (pid, others) = (machine.pid(conn), machine.pid(other));
    let pids = |machine: &Machine, conn, call| {
        let mut pids = std::collections::BTreeSet::new();
        for event in machine.events(conn, call) {
            match event {
                Event::Process { pid, .. } | Event::Page { pid, .. } => drop(pids.insert(*pid)),
                Event::Step { rows, .. } => pids.extend(rows.iter().map(|row| row.pid)),
                _ => {}
            }
        }
        pids
    };
    assert_eq!(pids(&machine, conn, own), [pid, child].into());
    assert!(pids(&machine, watcher, all).is_superset(&[pid, child, others].into()));
}
