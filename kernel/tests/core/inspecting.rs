//! What `inspect` tells of a process: waits, page tables with those who share them, limits, and the last calls.

use kernel::core::event::ConnId;
use syscalls::call::*;
use syscalls::limits::CALLS_REMEMBERED_MAX;
use syscalls::reply::{ContextState, InspectReply, PageTable, ProcessState, Sharer};
use syscalls::{Errno, Pid, Reply, Tokens};

use crate::machine::{ADMIN, Machine, append_bytes};

impl Machine {
    fn inspect(&mut self, conn: ConnId, pid: Pid) -> InspectReply {
        match self.call(conn, Inspect { pid }) {
            Ok(Reply::Inspected(inspected)) => *inspected,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn last_calls_are_a_ring_with_names_times_and_errors() {
    let (mut machine, conn) = Machine::with_model("step_us=1000");
    let watched = machine.connect(ADMIN);
    let pid = machine.pid(watched);
    let context = machine.open_with(watched, "said in private");
    machine.generate(watched, context, 3);
    let fault = machine.call(watched, Close { context: syscalls::ContextId(99) });
    assert_eq!(fault.expect_err("no such context").errno, Errno::EBADF);
    let calls = machine.inspect(conn, pid).calls;
    let names: Vec<(&str, Option<Errno>)> = calls.iter().map(|c| (c.call.as_str(), c.errno)).collect();
    let expected = [("open", None), ("append", None), ("generate", None), ("close", Some(Errno::EBADF))];
    assert_eq!(names, expected);
    assert!(calls[2].took_us >= 3000, "three steps of a millisecond: {:?}", calls[2]);
    assert!(calls[2].at_us < calls[3].at_us && calls[3].took_us == 0);
    for _ in 0..CALLS_REMEMBERED_MAX {
        machine.call(watched, Ps { all: false }).expect("it lists");
    }
    let inspected = machine.inspect(conn, pid);
    assert_eq!(inspected.calls.len(), CALLS_REMEMBERED_MAX);
    assert!(inspected.calls.iter().all(|call| call.call == "ps"), "the oldest went first");
    let json = serde_json::to_string(&inspected).expect("it has a form");
    assert!(!json.contains("private"), "a prompt is told: {json}");
}

#[test]
fn waits_say_for_what_for_how_long_and_until_when() {
    let (mut machine, conn) = Machine::with_model("");
    let watched = machine.connect(ADMIN);
    let pid = machine.pid(watched);
    let call = machine.begin(watched, Receive { timeout_ms: Some(500) });
    machine.pass_ms(200);
    let inspected = machine.inspect(conn, pid);
    assert_eq!(inspected.process.state, ProcessState::Blocked);
    let [wait] = inspected.waits.as_slice() else { panic!("{:?}", inspected.waits) };
    assert_eq!((wait.call.as_str(), wait.waits_for.as_str()), ("receive", "a message"));
    let gives_up_us = wait.gives_up_us.expect("it has a limit");
    assert!(wait.for_us >= 200_000 && (299_000..=300_000).contains(&gives_up_us), "{wait:?}");
    machine.pass_ms(300);
    assert_eq!(machine.finish(watched, call).expect_err("nothing came").errno, Errno::ETIMEDOUT);
    assert_eq!(machine.inspect(conn, pid).waits, []);
}

#[test]
fn page_table_counts_resident_shared_and_missing_pages_with_their_owners() {
    let (mut machine, conn) = Machine::with_model("pool=1024,context=1024");
    let (one, two) = (machine.connect(ADMIN), machine.connect(ADMIN));
    let text = "x".repeat(200);
    let context = machine.open(one);
    machine.append(one, context, &text).expect("it fits");
    let pid = machine.pid(one);
    let table = |machine: &mut Machine, pid| machine.inspect(conn, pid).contexts[0].clone();
    let before = table(&mut machine, pid);
    // Nothing is computed before a generation needs it.
    let parked = PageTable { total: 4, missing: 4, ..PageTable::default() };
    assert_eq!((before.state, before.pages, before.length), (ContextState::Parked, parked, Tokens(200)));
    machine.generate(one, context, 2);
    let resident = PageTable { total: 4, resident: 4, ..PageTable::default() };
    assert_eq!(table(&mut machine, pid).pages, resident);
    let other = machine.open(two);
    machine.append(two, other, &format!("{text}{}", "y".repeat(100))).expect("it fits");
    machine.generate(two, other, 2);
    let view = table(&mut machine, pid);
    assert_eq!((view.pages.resident, view.pages.shared), (4, 3), "the fourth page is written by each");
    let two_pid = machine.pid(two);
    assert_eq!(view.shared_with, [Sharer { pid: Some(two_pid), pages: 3 }]);
    // What a closed context leaves is kept, and nobody's.
    machine.call(two, Close { context: other }).expect("it is there");
    assert_eq!(table(&mut machine, pid).shared_with, [Sharer { pid: None, pages: 3 }]);
}

#[test]
fn processes_of_other_users_who_share_a_published_segment_are_not_named() {
    let (mut machine, _) = Machine::with_model("pool=1024,context=1024");
    let (owner, own, other) = (machine.connect(7), machine.connect(7), machine.connect(8));
    let context = machine.open(owner);
    machine.append(owner, context, &"x".repeat(128)).expect("it fits");
    machine.generate(owner, context, 1);
    machine.call(owner, Truncate { context, length: Tokens(128) }).expect("own context");
    let share = Share { context, name: "rules".into(), length: None, mode: 0o644 };
    machine.call(owner, share).expect("own context");
    for conn in [own, other] {
        let open = Open { prefix: Some("rules".into()), ..crate::machine::open() };
        let Ok(Reply::Opened { context, .. }) = machine.call(conn, open) else { panic!("everyone may") };
        machine.append(conn, context, "and more").expect("it fits");
        machine.generate(conn, context, 1);
    }
    let (own_pid, other_pid) = (machine.pid(own), machine.pid(other));
    let sharers = |machine: &mut Machine, conn, pid| {
        let views = machine.inspect(conn, pid).contexts;
        let pids = views[0].shared_with.iter().map(|sharer| sharer.pid).collect::<Vec<_>>();
        assert!(views[0].pages.shared == 2 && pids.contains(&None), "{views:?}");
        pids.into_iter().flatten().collect::<Vec<_>>()
    };
    let owner_pid = machine.pid(owner);
    assert!(!sharers(&mut machine, own, own_pid).contains(&other_pid));
    let named = sharers(&mut machine, other, other_pid);
    assert!(!named.contains(&own_pid) && !named.contains(&owner_pid), "{named:?}");
}

#[test]
fn page_table_knows_what_is_swapped() {
    let (mut machine, conn) = Machine::with_swap("pool=256,context=256", 100, 0);
    let (one, two) = (machine.connect(ADMIN), machine.connect(ADMIN));
    let pid = machine.pid(one);
    let context = machine.open(one);
    machine.append(one, context, &"y".repeat(190)).expect("it fits");
    machine.generate(one, context, 2);
    let other = machine.open(two);
    machine.append(two, other, &"z".repeat(250)).expect("it fits");
    machine.generate(two, other, 2);
    machine.run();
    let pages = machine.inspect(conn, pid).contexts[0].pages;
    assert_eq!((pages.total, pages.resident), (3, 0), "the other one took all frames");
    assert!(pages.swapped_host >= 2 && pages.swapped_disk == 0, "{pages:?}");
    let stats = machine.inspect(conn, pid).stats;
    assert!(stats.pages_host >= u64::from(pages.swapped_host.min(2)), "{stats:?}");
}

#[test]
fn limits_and_signals_are_told_with_what_is_used() {
    let (mut machine, conn) = Machine::with_model("");
    let watched = machine.connect(ADMIN);
    let pid = machine.pid(watched);
    let limit = |limit, value| Setlimit { pid, limit, value: Some(value), then: None };
    machine.call(conn, limit(Limit::GeneratedTokens, 100)).expect("the administrator");
    let context = machine.open_with(watched, "count");
    machine.generate(watched, context, 7);
    machine.call(conn, Kill { pid, signal: Signal::Stop }).expect("it is there");
    let inspected = machine.inspect(conn, pid);
    let of = |wanted| *inspected.limits.iter().find(|l| l.limit == wanted).expect("all limits are told");
    let tokens = of(Limit::GeneratedTokens);
    assert_eq!((tokens.used, tokens.most, tokens.then), (7, Some(100), Some(AtLimit::Refuse)));
    assert_eq!((of(Limit::ContextTokens).used, of(Limit::ContextTokens).most), (12, None));
    assert_eq!((inspected.process.state, inspected.signals[0].signal), (ProcessState::Stopped, Signal::Stop));
    machine.call(conn, Kill { pid, signal: Signal::Cont }).expect("it is there");
    machine.begin(watched, Sigwait { timeout_ms: None });
    machine.call(conn, Kill { pid, signal: Signal::Term }).expect("it is there");
    let signals = machine.inspect(conn, pid).signals;
    assert!(signals.len() == 1 && signals[0].signal == Signal::Kill && signals[0].in_us > 0, "{signals:?}");
}

#[test]
fn process_of_another_user_is_not_looked_into() {
    let (mut machine, root) = Machine::with_model("");
    let (one, other) = (machine.connect(7), machine.connect(8));
    let child = machine.spawn(one, "child");
    let pid = machine.pid(one);
    let fault = machine.call(other, Inspect { pid }).expect_err("another user's");
    assert_eq!(fault.errno, Errno::EPERM);
    assert_eq!(machine.inspect(root, pid).children, [child]);
    machine.call_as(one, Some(child), Exit { status: 3 }).expect("it ends");
    let zombie = machine.inspect(one, child);
    assert_eq!((zombie.process.state, zombie.process.status), (ProcessState::Zombie, Some(3)));
    assert_eq!(machine.call(other, Inspect { pid: child }).expect_err("another user's").errno, Errno::EPERM);
    assert_eq!(machine.call(root, Inspect { pid: Pid(999) }).expect_err("nobody").errno, Errno::ESRCH);
    assert_eq!(machine.call(root, Inspect { pid: Pid::KERNEL }).expect_err("itself").errno, Errno::EINVAL);
}

#[test]
fn context_asleep_after_a_restart_is_told_as_such() {
    let (mut machine, _) = Machine::with_model("");
    let conn = machine.connect_lasting(ADMIN, Lifetime::Persistent);
    let pid = machine.pid(conn);
    let context = machine.open(conn);
    machine.call(conn, append_bytes(context, &"w".repeat(70))).expect("it fits");
    let mut next = machine.crashed(kernel::core::KernelConfig::default());
    let conn = next.connect(ADMIN);
    let view = next.inspect(conn, pid).contexts[0].clone();
    assert_eq!((view.state, view.pages.missing, view.context), (ContextState::Asleep, 2, context));
    next.run();
    let view = next.inspect(conn, pid).contexts[0].clone();
    assert_eq!((view.state, view.length), (ContextState::Parked, Tokens(70)));
}
