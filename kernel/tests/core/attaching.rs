//! Processes that outlive their connections: what goes on, what is kept, and who may take them over.

use kernel::core::Event as Input;
use kernel::core::event::ConnId;
use syscalls::call::*;
use syscalls::limits::{LASTING_PER_USER_MAX, RESULTS_KEPT_MAX};
use syscalls::reply::{AttachedReply, Finish, ProcessInfo};
use syscalls::{ContextId, Errno, Event, Fault, Pid, Reply, Tokens};

use crate::machine::{ADMIN, Machine, append_bytes, generate, generated, reference};

impl Machine {
    fn attach(&mut self, conn: ConnId, pid: Pid) -> Result<AttachedReply, Fault> {
        match self.call(conn, Attach { pid, force: false })? {
            Reply::Attached(attached) => Ok(attached),
            other => panic!("{other:?}"),
        }
    }

    fn process(&mut self, conn: ConnId, pid: Pid) -> Option<ProcessInfo> {
        self.ps(conn).into_iter().find(|p| p.pid == pid)
    }
}

fn errno<T: std::fmt::Debug>(result: Result<T, Fault>) -> Errno {
    result.expect_err("the call must fail").errno
}

/// A machine with a process of user 7 that generates 60 tokens and has had some of them when its connection ends.
fn detached(lifetime: Lifetime) -> (Machine, Pid, ContextId, usize) {
    let (mut machine, _) = Machine::with_model("");
    let conn = machine.connect_lasting(7, lifetime);
    let (pid, context) = (machine.pid(conn), machine.open_with(conn, "a long story"));
    let call = machine.begin(conn, generate(context, 60));
    while machine.events(conn, call).len() < 10 {
        assert!(machine.turn());
    }
    let heard = machine.events(conn, call).len();
    machine.event(Input::Disconnected { conn });
    (machine, pid, context, heard)
}

fn text_of(events: &[Event]) -> String {
    let text = |event: &Event| match event {
        Event::Tokens { text, .. } => text.clone(),
        _ => String::new(),
    };
    events.iter().map(text).collect()
}

#[test]
fn generation_of_a_detached_process_goes_on_and_is_followed_from_its_beginning() {
    let (mut machine, pid, context, heard) = detached(Lifetime::Detached);
    (0..10).for_each(|_| assert!(machine.turn()));
    let conn = machine.connect(7);
    let info = machine.process(conn, pid).expect("it lives");
    assert!(info.detached && info.tokens_generated > heard as u64, "it went on");
    let attached = machine.attach(conn, pid).expect("his own");
    assert_eq!(attached.contexts[0].context, context);
    let [call] = attached.calls.as_slice() else { panic!("{:?}", attached.calls) };
    assert_eq!((call.call.as_str(), call.context, call.ended), ("generate", Some(context), false));
    let id = machine.begin_as(conn, Some(pid), Follow { call: call.ticket, replay: true });
    let so_far = text_of(machine.events(conn, id));
    let whole = reference("", "a long story", 60);
    assert!(!so_far.is_empty() && whole.starts_with(&so_far), "{so_far:?} is what has come");
    let reply = generated(machine.finish(conn, id));
    assert_eq!((reply.text.as_str(), text_of(machine.events(conn, id))), (whole.as_str(), whole.clone()));
    let read = ReadTokens { context, from: Tokens(12), to: None };
    assert_eq!(machine.call_as(conn, Some(pid), read), Ok(Reply::Tokens(reply.tokens)));
}

#[test]
fn reply_of_a_call_that_ended_unheard_is_kept_until_it_is_fetched_once() {
    let (mut machine, pid, _, _) = detached(Lifetime::Detached);
    machine.run();
    let conn = machine.connect(7);
    let attached = machine.attach(conn, pid).expect("his own");
    let call = attached.calls[0].clone();
    assert!(call.ended);
    let follow = Follow { call: call.ticket, replay: true };
    let reply = generated(machine.call_as(conn, Some(pid), follow.clone()));
    assert_eq!((reply.finish, reply.text), (Finish::Length, reference("", "a long story", 60)));
    assert_eq!(errno(machine.call_as(conn, Some(pid), follow)), Errno::ENOENT);
}

#[test]
fn results_kept_are_bounded_and_the_oldest_goes() {
    let (mut machine, conn) = Machine::with_model("");
    let owner = machine.connect_lasting(7, Lifetime::Detached);
    let (pid, context) = (machine.pid(owner), machine.open_with(owner, "x"));
    machine.begin(owner, generate(context, 1));
    for _ in 0..60 {
        machine.begin(owner, append_bytes(context, "y"));
    }
    machine.event(Input::Disconnected { conn: owner });
    machine.run();
    let attached = machine.attach(conn, pid).expect("the administrator");
    assert_eq!(attached.calls.len(), 61);
    for _ in 0..10 {
        machine.begin_as(conn, Some(pid), generate(context, 3));
    }
    machine.call(conn, Detach { pid: Some(pid) }).expect("it acts for it");
    machine.run();
    let again = machine.attach(conn, pid).expect("the administrator");
    assert_eq!(again.calls.len(), RESULTS_KEPT_MAX);
    assert!(again.calls.iter().all(|call| call.ended));
    assert_eq!(again.calls[0].ticket, attached.calls[7].ticket, "the oldest went");
}

#[test]
fn detach_answers_the_calls_that_nobody_will_hear_and_hangs_up() {
    let (mut machine, admin) = Machine::with_model("");
    let conn = machine.connect(7);
    let (pid, context) = (machine.pid(conn), machine.open_with(conn, "bye"));
    let child = machine.spawn(conn, "child");
    let running = machine.begin(conn, generate(context, 30));
    let receiving = machine.begin(conn, Receive { timeout_ms: None });
    assert!(machine.call(conn, Detach { pid: None }).is_ok());
    let fault = machine.finish(conn, running).expect_err("its reply comes to another");
    assert!(fault.message.contains("follow"), "{fault}");
    assert_eq!(errno(machine.finish(conn, receiving)), Errno::ECANCELED);
    assert_eq!(machine.hangups, [conn]);
    machine.event(Input::Disconnected { conn });
    machine.run();
    for (pid, parent) in [(pid, Pid::KERNEL), (child, pid)] {
        let info = machine.process(admin, pid).expect("it lives");
        assert_eq!((info.detached, info.lifetime, info.parent), (true, Lifetime::Detached, parent));
    }
    let taken = machine.attach(admin, pid).expect("the administrator");
    assert_eq!(taken.calls.len(), 1);
    assert!(!machine.process(admin, child).expect("it lives").detached, "it comes with its parent");
}

#[test]
fn process_attached_is_a_child_that_can_be_waited_for() {
    let (mut machine, pid, _, _) = detached(Lifetime::Detached);
    machine.run();
    let conn = machine.connect(7);
    assert_eq!(errno(machine.call(conn, Wait { pid: Some(pid), timeout_ms: Some(0) })), Errno::ECHILD);
    machine.attach(conn, pid).expect("his own");
    let waiting = machine.begin(conn, Wait { pid: Some(pid), timeout_ms: None });
    machine.call_as(conn, Some(pid), Exit { status: 3 }).expect("it acts for it");
    assert_eq!(machine.finish(conn, waiting), Ok(Reply::Waited { pid, status: 3 }));
    let (mut machine, pid, _, _) = detached(Lifetime::Detached);
    let conn = machine.connect(7);
    machine.attach(conn, pid).expect("his own");
    let waiting = machine.begin(conn, Wait { pid: Some(pid), timeout_ms: None });
    let other = machine.connect(7);
    machine.call(other, Attach { pid, force: true }).expect("his own too");
    assert_eq!(errno(machine.finish(conn, waiting)), Errno::ECHILD);
    machine.event(Input::Disconnected { conn: other });
    assert!(machine.process(conn, pid).expect("it lives").detached, "it goes on without its second owner");
}

#[test]
fn attach_is_for_the_user_and_the_administrator() {
    let (mut machine, pid, context, _) = detached(Lifetime::Detached);
    let (owner, stranger, admin) = (machine.connect(7), machine.connect(8), machine.connect(ADMIN));
    assert_eq!(errno(machine.attach(stranger, pid)), Errno::EPERM);
    assert_eq!(errno(machine.attach(owner, Pid(999))), Errno::ESRCH);
    assert_eq!(errno(machine.attach(owner, Pid::KERNEL)), Errno::EPERM);
    let own = machine.pid(owner);
    assert_eq!(errno(machine.attach(owner, own)), Errno::EINVAL);
    assert_eq!(errno(machine.call_as(owner, Some(pid), Close { context })), Errno::EPERM);
    machine.attach(admin, pid).expect("the administrator may");
    assert_eq!(errno(machine.attach(owner, pid)), Errno::EBUSY);
    machine.call(owner, Attach { pid, force: true }).expect("by force");
    assert_eq!(errno(machine.call_as(admin, Some(pid), Close { context })), Errno::EPERM);
    machine.call_as(owner, Some(pid), Close { context }).expect("its owner again");
    assert!(machine.hangups.is_empty(), "it was nobody's first process");
}

#[test]
fn signals_reach_a_detached_process() {
    let (mut machine, pid, _, _) = detached(Lifetime::Detached);
    let conn = machine.connect(7);
    machine.call(conn, Kill { pid, signal: Signal::Stop }).expect("his own");
    machine.run();
    let had = machine.process(conn, pid).expect("it lives").tokens_generated;
    assert!(had < 60);
    machine.call(conn, Kill { pid, signal: Signal::Cont }).expect("his own");
    (0..4).for_each(|_| assert!(machine.turn()));
    machine.call(conn, Kill { pid, signal: Signal::Int }).expect("his own");
    let attached = machine.attach(conn, pid).expect("his own");
    let follow = Follow { call: attached.calls[0].ticket, replay: false };
    assert_eq!(generated(machine.call_as(conn, Some(pid), follow)).finish, Finish::Interrupted);
    machine.call(conn, Kill { pid, signal: Signal::Term }).expect("his own");
    machine.call(conn, Wait { pid: Some(pid), timeout_ms: Some(0) }).expect("a zombie");
    let stats = machine.stat(conn);
    assert_eq!((stats.contexts, stats.frames_free + stats.frames_cached), (0, stats.frames_total));
}

#[test]
fn reader_too_slow_does_not_hold_a_process_that_is_taken_off() {
    let (mut machine, admin) = Machine::with_model("");
    let conn = machine.connect_lasting(7, Lifetime::Detached);
    let (pid, context) = (machine.pid(conn), machine.open_with(conn, "slow"));
    machine.begin(conn, generate(context, 40));
    machine.event(Input::OutputHigh { conn });
    machine.run();
    assert!(machine.process(admin, pid).expect("it lives").tokens_generated < 40);
    machine.event(Input::Disconnected { conn });
    machine.run();
    assert_eq!(machine.process(admin, pid).expect("it lives").tokens_generated, 40);
}

#[test]
fn processes_that_outlive_their_connections_are_bounded_for_each_user() {
    let (mut machine, conn) = Machine::with_model("");
    machine.check_every = 100;
    for _ in 0..LASTING_PER_USER_MAX {
        machine.connect_lasting(7, Lifetime::Detached);
    }
    let one_more = machine.connect(7);
    assert_eq!(errno(machine.call(one_more, Detach { pid: None })), Errno::EMFILE);
    machine.connect_lasting(8, Lifetime::Detached);
    let gone = machine.ps(conn).into_iter().find(|p| p.uid == 7 && p.lifetime == Lifetime::Detached);
    machine.call(conn, Kill { pid: gone.expect("many").pid, signal: Signal::Kill }).expect("administrator");
    assert!(machine.call(one_more, Detach { pid: None }).is_ok());
}
