//! Signals that ask a process to end, and limits that are used up.

use kernel::core::KernelConfig;
use kernel::core::event::ConnId;
use syscalls::call::*;
use syscalls::reply::{Finish, ProcessState};
use syscalls::{CallId, Errno, Pid, Reply};

use crate::machine::{ADMIN, Machine, generate, generated, reference};

const GRACE_MS: u64 = 10_000;

/// A child that waits for signals and generates.
fn catching(script: &str) -> (Machine, ConnId, Pid, [CallId; 2]) {
    let (mut machine, conn) = Machine::with_model(script);
    let pid = machine.spawn(conn, "child");
    let Ok(Reply::Opened { context, .. }) = machine.call_as(conn, Some(pid), crate::machine::open()) else {
        panic!("it opens")
    };
    machine.call_as(conn, Some(pid), crate::machine::append_bytes(context, "finish")).expect("it fits");
    let waiting = machine.begin_as(conn, Some(pid), Sigwait { timeout_ms: None });
    let running = machine.begin_as(conn, Some(pid), generate(context, 40));
    while machine.events(conn, running).len() < 5 {
        assert!(machine.turn());
    }
    (machine, conn, pid, [waiting, running])
}

fn status(machine: &mut Machine, conn: ConnId, pid: Pid) -> Option<u8> {
    match machine.call(conn, Wait { pid: Some(pid), timeout_ms: Some(0) }) {
        Ok(Reply::Waited { status, .. }) => Some(status),
        _ => None,
    }
}

#[test]
fn term_that_is_waited_for_leaves_time_to_finish() {
    let (mut machine, conn, pid, [waiting, running]) = catching("");
    machine.call(conn, Kill { pid, signal: Signal::Term }).expect("its parent");
    let told = machine.finish(conn, waiting);
    assert_eq!(told, Ok(Reply::Signalled { signal: Signal::Term, grace_ms: GRACE_MS }));
    assert_eq!(generated(machine.finish(conn, running)).text, reference("", "finish", 40));
    machine.call(conn, Kill { pid, signal: Signal::Term }).expect("its parent, who is impatient");
    machine.call_as(conn, Some(pid), Exit { status: 0 }).expect("it has finished");
    assert_eq!(status(&mut machine, conn, pid), Some(0));
    machine.pass_ms(2 * GRACE_MS);
}

#[test]
fn process_that_does_not_finish_in_its_time_is_killed() {
    let (mut machine, conn, pid, [waiting, running]) = catching("");
    machine.call(conn, Kill { pid, signal: Signal::Stop }).expect("its parent");
    machine.run();
    machine.call(conn, Kill { pid, signal: Signal::Term }).expect("its parent");
    machine.finish(conn, waiting).expect("it is told, stopped or not");
    let again = machine.begin_as(conn, Some(pid), Sigwait { timeout_ms: None });
    machine.pass_ms(GRACE_MS - 1000);
    machine.call(conn, Kill { pid, signal: Signal::Term }).expect("its parent");
    let Ok(Reply::Signalled { grace_ms, .. }) = machine.finish(conn, again) else { panic!("it is told") };
    assert!(grace_ms <= 1000, "a second signal gives no more time: {grace_ms}");
    assert_eq!(status(&mut machine, conn, pid), None);
    machine.pass_ms(1000);
    assert_eq!(status(&mut machine, conn, pid), Some(128 + 9));
    assert_eq!(generated(machine.finish(conn, running)).finish, Finish::Interrupted);
}

#[test]
fn process_that_is_stopped_and_asked_to_end_goes_on_so_that_it_can_finish() {
    let (mut machine, conn, pid, [waiting, running]) = catching("");
    machine.call(conn, Kill { pid, signal: Signal::Stop }).expect("its parent");
    machine.run();
    machine.call(conn, Kill { pid, signal: Signal::Term }).expect("its parent");
    machine.finish(conn, waiting).expect("it is told");
    assert_eq!(generated(machine.finish(conn, running)).text, reference("", "finish", 40));
}

#[test]
fn process_waits_for_signals_once_at_a_time_and_ends_at_once_where_it_does_not() {
    let (mut machine, conn, pid, [waiting, _]) = catching("");
    let second = machine.call_as(conn, Some(pid), Sigwait { timeout_ms: None });
    assert_eq!(second.expect_err("one at a time").errno, Errno::EBUSY);
    machine.call(conn, Kill { pid, signal: Signal::Int }).expect("its parent");
    assert_eq!(machine.finish(conn, waiting).expect_err("INT ends calls").errno, Errno::EINTR);
    machine.call(conn, Kill { pid, signal: Signal::Xcpu }).expect("its parent");
    assert_eq!(status(&mut machine, conn, pid), Some(128 + 24));
}

#[test]
fn limit_used_up_ends_stops_or_refuses_as_it_was_set() {
    let (mut machine, conn) = Machine::with_model("step_us=1000");
    let limited = |machine: &mut Machine, limit, value, then| {
        let owner = machine.connect(7);
        let (pid, context) = (machine.pid(owner), machine.open_with(owner, "limits"));
        machine.call(conn, Setlimit { pid, limit, value: Some(value), then }).expect("the administrator");
        let call = machine.begin(owner, generate(context, 30));
        machine.run();
        (owner, pid, call)
    };
    let tokens = Limit::GeneratedTokens;
    let (owner, pid, call) = limited(&mut machine, tokens, 8, Some(AtLimit::Signal));
    let reply = generated(machine.finish(owner, call));
    assert_eq!((reply.finish, reply.tokens.len()), (Finish::Interrupted, 8));
    assert!(machine.hangups.contains(&owner) && machine.ps(conn).iter().all(|p| p.pid != pid));

    let (owner, pid, call) = limited(&mut machine, tokens, 8, Some(AtLimit::Stop));
    let info = machine.ps(conn).into_iter().find(|p| p.pid == pid).expect("it lives");
    assert_eq!((info.state, info.tokens_generated), (ProcessState::Stopped, 8));
    let weaker = Setlimit { pid, limit: tokens, value: Some(8), then: Some(AtLimit::Refuse) };
    assert_eq!(machine.call(owner, weaker).expect_err("it is no better than it was").errno, Errno::EPERM);
    let raise = Setlimit { pid, limit: tokens, value: Some(1000), then: Some(AtLimit::Stop) };
    machine.call(conn, raise).expect("the administrator");
    machine.call(conn, Kill { pid, signal: Signal::Cont }).expect("the administrator");
    let reply = generated(machine.finish(owner, call));
    assert_eq!(reply.text, reference("step_us=1000", "limits", 30), "nothing is lost and nothing repeated");

    let (owner, _, call) = limited(&mut machine, Limit::ServiceUs, 5_000, None);
    let reply = generated(machine.finish(owner, call));
    assert_eq!(reply.finish, Finish::Interrupted);
    assert!((4..8).contains(&reply.tokens.len()), "{} tokens of a millisecond", reply.tokens.len());
    let (owner, pid, call) = limited(&mut machine, Limit::ServiceUs, 5_000, Some(AtLimit::Refuse));
    let reply = generated(machine.finish(owner, call));
    let fault = machine.call(owner, generate(syscalls::ContextId(4), 1)).expect_err("used up");
    assert_eq!((reply.finish, fault.errno), (Finish::Length, Errno::E2BIG), "{pid}");
    assert!((4..8).contains(&reply.tokens.len()), "{} tokens of a millisecond", reply.tokens.len());
    let wrong = Setlimit { pid, limit: Limit::Contexts, value: Some(1), then: Some(AtLimit::Stop) };
    assert_eq!(machine.call(conn, wrong).expect_err("not used up").errno, Errno::EINVAL);
}

#[test]
fn process_stopped_gives_its_frames_to_others_and_goes_on_exactly_where_it_was() {
    let script = "pool=512,context=512";
    let (mut machine, conn) = Machine::with_model(script);
    let owner = machine.connect(7);
    let prompt = "stopped ".repeat(40);
    let (pid, context) = (machine.pid(owner), machine.open_with(owner, &prompt));
    let running = machine.begin(owner, generate(context, 60));
    while machine.events(owner, running).len() < 20 {
        assert!(machine.turn());
    }
    machine.call(conn, Kill { pid, signal: Signal::Stop }).expect("the administrator");
    machine.run();
    let frames =
        |machine: &mut Machine| machine.ps(conn).into_iter().find(|p| p.pid == pid).expect("it lives").frames;
    assert!(frames(&mut machine) > 0, "nobody needs them yet");
    let other = machine.open_with(conn, &"other ".repeat(70));
    machine.generate(conn, other, 60);
    assert!(frames(&mut machine) <= 1, "another one got them");
    machine.call(conn, Kill { pid, signal: Signal::Cont }).expect("the administrator");
    let text = generated(machine.finish(owner, running)).text;
    assert_eq!(text, reference(script, &prompt, 60));
}

#[test]
fn process_in_its_time_to_finish_does_not_come_back_after_a_restart() {
    let (mut before, admin) = Machine::with_model("");
    let conn = before.connect_lasting(7, Lifetime::Persistent);
    let (pid, context) = (before.pid(conn), before.open_with(conn, "ends"));
    before.begin(conn, generate(context, 60));
    before.begin(conn, Sigwait { timeout_ms: None });
    before.call(admin, Kill { pid, signal: Signal::Term }).expect("the administrator");
    let mut machine = before.crashed(KernelConfig::default());
    machine.run();
    let admin = machine.connect(ADMIN);
    assert!(machine.ps(admin).iter().all(|p| p.pid != pid));
    assert_eq!((machine.images.contexts.len(), machine.stat(admin).tokens_generated), (0, 0));
}
