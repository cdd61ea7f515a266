//! Limits of users: over all of their processes, named with their values, and not for the administrator.

use kernel::core::event::{ConnId, Event};
use kernel::core::{KernelConfig, UserLimits};
use syscalls::call::{Exit, Fork, Kill, Receive, Signal};
use syscalls::reply::Frame;
use syscalls::{Errno, Fault};

use crate::machine::{ADMIN, Machine, credentials, open};

const USER: u32 = 1000;

/// A machine with a model, and a connection of the user, who may have so much.
fn limited(user: UserLimits) -> (Machine, ConnId) {
    let mut machine = Machine::new(KernelConfig { user, ..KernelConfig::default() });
    let admin = machine.connect(ADMIN);
    machine.mount(admin, "m", "").expect("mounts");
    let conn = machine.connect(USER);
    (machine, conn)
}

#[track_caller]
fn check(fault: &Fault, errno: Errno, has: &str, most: &str) {
    assert_eq!(fault.errno, errno, "{fault}");
    for part in ["user 1000 has ", has, most, "user_limits"] {
        assert!(fault.message.contains(part), "{fault}");
    }
}

#[test]
fn processes_of_a_user_are_bounded_over_all_connections() {
    let (mut machine, conn) = limited(UserLimits { processes: 3, ..UserLimits::default() });
    let child = machine.spawn(conn, "child");
    let other = machine.connect(USER);
    let spawn = || syscalls::client::spawn("one too many");
    let fault = machine.call(other, spawn()).expect_err("three are there");
    check(&fault, Errno::EMFILE, "3 processes", "the limit is 3");
    let silent = machine.connect_silently(USER);
    let fault = machine.call(silent, syscalls::client::hello("x")).expect_err("three are there");
    check(&fault, Errno::EMFILE, "3 processes", "the limit is 3");
    // A zombie counts until it is waited for.
    machine.call(conn, Kill { pid: child, signal: Signal::Kill }).expect("its own");
    machine.call(other, spawn()).expect_err("the zombie is there");
    machine.call(conn, syscalls::call::Wait { pid: None, timeout_ms: None }).expect("it has ended");
    machine.call(other, spawn()).expect("there is room");
    let admin = machine.connect(ADMIN);
    for _ in 0..5 {
        machine.spawn(admin, "many");
    }
    machine.connect(USER + 1);
}

#[test]
fn contexts_of_a_user_are_bounded_over_all_processes() {
    let (mut machine, conn) = limited(UserLimits { contexts: 3, ..UserLimits::default() });
    let context = machine.open_with(conn, "text");
    let other = machine.connect(USER);
    machine.open(other);
    let fork = Fork { context, copies: 2, length: None };
    let fault = machine.call(conn, fork).expect_err("one more has room");
    check(&fault, Errno::EMFILE, "2 contexts and would get 2 more", "the limit is 3");
    machine.fork(conn, context, 1);
    let fault = machine.call(other, open()).expect_err("three are there");
    check(&fault, Errno::EMFILE, "3 contexts", "the limit is 3");
    machine.call(conn, Exit { status: 0 }).expect("it ends");
    machine.open(other);
}

#[test]
fn connections_of_a_user_are_bounded_and_one_too_many_is_told_and_closed() {
    let (mut machine, conn) = limited(UserLimits { connections: 2, ..UserLimits::default() });
    machine.connect(USER);
    let refused = machine.connect_with(credentials(USER));
    let Some(Frame::Reply(_, Err(fault))) = machine.frames[&refused].first().cloned() else {
        panic!("it is told")
    };
    check(&fault, Errno::EMFILE, "2 connections", "the limit is 2");
    assert!(machine.hangups.contains(&refused));
    machine.event(Event::Disconnected { conn: refused });
    machine.event(Event::Disconnected { conn });
    machine.connect(USER);
    for _ in 0..3 {
        machine.connect(ADMIN);
    }
}

#[test]
fn calls_of_a_user_are_bounded_over_all_connections() {
    let (mut machine, conn) = limited(UserLimits { calls: 2, ..UserLimits::default() });
    let other = machine.connect(USER);
    machine.begin(conn, Receive { timeout_ms: None });
    let waiting = machine.begin(other, Receive { timeout_ms: Some(5) });
    let fault = machine.call(other, open()).expect_err("two are unanswered");
    check(&fault, Errno::EAGAIN, "2 calls", "the limit is 2");
    machine.pass_ms(6);
    machine.finish(other, waiting).expect_err("its time is over");
    machine.open(other);
}
