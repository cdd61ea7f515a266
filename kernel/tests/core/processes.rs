//! Processes: birth, signals, waiting, the end, and who may do what to whom.

use kernel::core::event::ConnId;
use kernel::core::{Event, Now};
use syscalls::call::*;
use syscalls::client::spawn;
use syscalls::reply::{Finish, ProcessInfo, ProcessState};
use syscalls::{Errno, Pid, Reply};

use crate::machine::{ADMIN, Machine, generate, generated};

const USER: u32 = 1000;

fn kill(pid: Pid, signal: Signal) -> Kill {
    Kill { pid, signal }
}

fn errno(reply: Result<Reply, syscalls::Fault>) -> Errno {
    reply.expect_err("the call must fail").errno
}

impl Machine {
    fn state(&mut self, conn: ConnId, pid: Pid) -> Option<ProcessInfo> {
        self.ps(conn).into_iter().find(|p| p.pid == pid)
    }
}

#[test]
fn call_before_hello_is_a_protocol_fault() {
    let mut machine = Machine::default();
    let conn = machine.connect_silently(ADMIN);
    assert_eq!(errno(machine.call(conn, Ps { all: false })), Errno::EPROTO);
    let hello = Hello {
        version: 2,
        name: None,
        class: Class::Normal,
        nice: 0,
        group: None,
        lifetime: Lifetime::Connection,
        caps: None,
    };
    assert_eq!(errno(machine.call(conn, hello.clone())), Errno::EPROTONOSUPPORT);
    assert!(machine.call(conn, Hello { version: 1, ..hello.clone() }).is_ok());
    assert_eq!(errno(machine.call(conn, hello)), Errno::EPROTO);
    assert_eq!(machine.ps(conn)[1].name, "tester", "the executable's name stands in");
}

#[test]
fn child_killed_is_a_zombie_until_waited_for() {
    let mut machine = Machine::default();
    let conn = machine.connect(ADMIN);
    let child = machine.spawn(conn, "child");
    let wait = Wait { pid: Some(child), timeout_ms: None };
    let waiting = machine.begin(conn, wait.clone());
    let second = machine.begin(conn, wait.clone());
    assert!(machine.reply(conn, waiting).is_none());
    machine.call(conn, kill(child, Signal::Term)).expect("own child");
    assert_eq!(machine.finish(conn, waiting), Ok(Reply::Waited { pid: child, status: 143 }));
    assert_eq!(errno(machine.finish(conn, second)), Errno::ECHILD);

    let child = machine.spawn(conn, "another");
    machine.call_as(conn, Some(child), Exit { status: 7 }).expect("it acts for its child");
    let info = machine.state(conn, child).expect("a zombie is listed");
    assert_eq!((info.state, info.status), (ProcessState::Zombie, Some(7)));
    assert!(machine.call(conn, kill(child, Signal::Kill)).is_ok(), "a zombie can be signalled");
    let any = Wait { pid: None, timeout_ms: Some(0) };
    assert_eq!(machine.call(conn, any.clone()), Ok(Reply::Waited { pid: child, status: 7 }));
    assert_eq!(errno(machine.call(conn, any)), Errno::ECHILD);
    assert_eq!(machine.state(conn, child), None);
}

#[test]
fn wait_with_timeout_ends_at_its_time() {
    let mut machine = Machine::default();
    let conn = machine.connect(ADMIN);
    machine.spawn(conn, "child");
    assert_eq!(errno(machine.call(conn, Wait { pid: None, timeout_ms: Some(0) })), Errno::ETIMEDOUT);
    let waiting = machine.begin(conn, Wait { pid: None, timeout_ms: Some(50) });
    let at = machine.wake.expect("the kernel wants to be woken");
    assert_eq!(at, Now(machine.now + 50_000));
    machine.pass_ms(49);
    assert!(machine.reply(conn, waiting).is_none());
    machine.pass_ms(1);
    assert_eq!(errno(machine.finish(conn, waiting)), Errno::ETIMEDOUT);
    assert_eq!(machine.wake, None);
}

#[test]
fn interrupt_ends_the_calls_and_not_the_process() {
    let (mut machine, conn) = Machine::with_model("");
    let pid = machine.pid(conn);
    let context = machine.open_with(conn, "interrupt");
    let running = machine.begin(conn, generate(context, 1000));
    let queued = machine.begin(conn, generate(context, 10));
    let receiving = machine.begin(conn, Receive { timeout_ms: None });
    while machine.events(conn, running).len() < 7 {
        assert!(machine.turn());
    }
    machine.call(conn, kill(pid, Signal::Int)).expect("itself");
    let reply = generated(machine.finish(conn, running));
    assert_eq!((reply.finish, reply.tokens.len()), (Finish::Interrupted, 7));
    assert_eq!(errno(machine.finish(conn, queued)), Errno::EINTR);
    assert_eq!(errno(machine.finish(conn, receiving)), Errno::EINTR);
    let more = machine.generate(conn, context, 10).text;
    let whole = crate::machine::reference("", "interrupt", 17);
    assert_eq!(format!("{}{more}", reply.text), whole, "nothing is lost and nothing repeated");
}

#[test]
fn stop_holds_a_process_and_cont_lets_it_go() {
    let (mut machine, conn) = Machine::with_model("");
    let other = machine.connect(ADMIN);
    let pid = machine.pid(other);
    let context = machine.open_with(other, "stop and go");
    let running = machine.begin(other, generate(context, 50));
    while machine.events(other, running).len() < 10 {
        assert!(machine.turn());
    }
    machine.call(conn, kill(pid, Signal::Stop)).expect("the administrator");
    machine.run();
    let had = machine.events(other, running).len();
    assert!((10..12).contains(&had), "{had} tokens, so it did not stop after the step");
    assert_eq!(machine.state(conn, pid).expect("it lives").state, ProcessState::Stopped);
    machine.call(conn, kill(pid, Signal::Cont)).expect("the administrator");
    let text = generated(machine.finish(other, running)).text;
    assert_eq!(text, crate::machine::reference("", "stop and go", 50));
}

#[test]
fn kill_of_own_process_answers_then_hangs_up() {
    let (mut machine, conn) = Machine::with_model("");
    let other = machine.connect(ADMIN);
    let context = machine.open_with(other, "bye");
    let running = machine.begin(other, generate(context, 1000));
    machine.turn();
    let pid = machine.pid(other);
    assert!(machine.call(other, kill(pid, Signal::Kill)).is_ok());
    assert_eq!(generated(machine.finish(other, running)).finish, Finish::Interrupted);
    assert_eq!(machine.hangups, [other]);
    assert_eq!(errno(machine.call(other, Ps { all: false })), Errno::ESRCH);
    machine.event(Event::Disconnected { conn: other });
    machine.run();
    assert_eq!(machine.state(conn, pid), None, "a child of the kernel is reaped at once");
    let stats = machine.stat(conn);
    assert_eq!((stats.frames_free, stats.contexts), (stats.frames_total, 0));
}

#[test]
fn connection_lost_ends_its_processes_and_frees_everything() {
    let (mut machine, conn) = Machine::with_model("");
    let other = machine.connect(ADMIN);
    let child = machine.spawn(other, "child");
    let context = match machine.call_as(other, Some(child), crate::machine::open()) {
        Ok(Reply::Opened { context, .. }) => context,
        reply => panic!("{reply:?}"),
    };
    let text = crate::machine::append(context, "work");
    machine.call_as(other, Some(child), text).expect("it fits");
    machine.begin_as(other, Some(child), generate(context, 1000));
    (0..5).for_each(|_| assert!(machine.turn()));
    machine.event(Event::Disconnected { conn: other });
    machine.run();
    let stats = machine.stat(conn);
    assert_eq!((stats.processes, stats.contexts, stats.frames_free), (1, 0, stats.frames_total));
}

#[test]
fn acting_for_others_than_descendants_is_refused() {
    let mut machine = Machine::default();
    let (one, two) = (machine.connect(ADMIN), machine.connect(ADMIN));
    let child = machine.spawn(one, "child");
    let grandchild = match machine.call_as(one, Some(child), spawn("grandchild")) {
        Ok(Reply::Spawned { pid }) => pid,
        reply => panic!("{reply:?}"),
    };
    assert!(machine.call_as(one, Some(grandchild), Ps { all: false }).is_ok());
    assert_eq!(errno(machine.call_as(two, Some(child), Ps { all: false })), Errno::EPERM);
    assert_eq!(errno(machine.call_as(one, Some(Pid(99)), Ps { all: false })), Errno::ESRCH);
    // The orphan belongs to the kernel, and is out of its grandparent's reach.
    machine.call_as(one, Some(child), Exit { status: 0 }).expect("own child");
    assert_eq!(errno(machine.call_as(one, Some(grandchild), Ps { all: false })), Errno::EPERM);
    let wait = Wait { pid: Some(grandchild), timeout_ms: None };
    assert_eq!(errno(machine.call(one, wait)), Errno::ECHILD);
}

#[test]
fn users_are_kept_apart() {
    let mut machine = Machine::default();
    let (admin, user, other) = (machine.connect(ADMIN), machine.connect(USER), machine.connect(USER + 1));
    let pid = machine.pid(user);
    assert_eq!(errno(machine.call(other, kill(pid, Signal::Term))), Errno::EPERM);
    assert_eq!(errno(machine.call(other, kill(Pid::KERNEL, Signal::Term))), Errno::EPERM);
    assert_eq!(errno(machine.call(other, kill(Pid(77), Signal::Term))), Errno::ESRCH);
    let data = serde_json::json!("hi");
    assert_eq!(errno(machine.call(other, Send { pid, data: data.clone() })), Errno::EPERM);
    let set = |nice, class| Setpriority { pid, class, nice };
    assert_eq!(errno(machine.call(user, set(Some(-1), None))), Errno::EPERM);
    assert!(machine.call(user, set(Some(5), Some(Class::Interactive))).is_ok());
    assert_eq!(errno(machine.call(user, set(Some(0), None))), Errno::EPERM);
    assert_eq!(errno(machine.call(user, set(None, Some(Class::Realtime)))), Errno::EPERM);
    assert!(machine.call(admin, set(Some(-20), Some(Class::Realtime))).is_ok());
    assert_eq!(errno(machine.call(admin, set(Some(20), None))), Errno::EINVAL);
    let limit = |value| Setlimit { pid, limit: Limit::Contexts, value, then: None };
    assert!(machine.call(user, limit(Some(5))).is_ok());
    assert_eq!(errno(machine.call(user, limit(None))), Errno::EPERM);
    assert!(machine.call(admin, limit(None)).is_ok());
    let mounted = machine.call(user, crate::machine::mount("m", ""));
    assert_eq!(errno(mounted), Errno::EPERM);
    assert_eq!(errno(machine.call(user, Shutdown {})), Errno::EPERM);
    let stat = Stat { pid: Some(pid), model: None };
    assert_eq!(errno(machine.call(other, stat.clone())), Errno::EPERM);
    assert!(machine.call(admin, stat).is_ok());
}

#[test]
fn messages_arrive_in_order_and_wake_who_waits() {
    let mut machine = Machine::default();
    let (one, two) = (machine.connect(USER), machine.connect(USER));
    let (from, pid) = (machine.pid(one), machine.pid(two));
    let waiting = machine.begin(two, Receive { timeout_ms: None });
    for n in 0..3 {
        machine.call(one, Send { pid, data: serde_json::json!(n) }).expect("the same user");
    }
    let message = |n: i32| Ok(Reply::Message { from, data: serde_json::json!(n) });
    assert_eq!(machine.finish(two, waiting), message(0));
    assert_eq!(machine.call(two, Receive { timeout_ms: Some(0) }), message(1));
    assert_eq!(machine.call(two, Receive { timeout_ms: None }), message(2));
    assert_eq!(errno(machine.call(two, Receive { timeout_ms: Some(0) })), Errno::ETIMEDOUT);
    for n in 0..256 {
        machine.call(one, Send { pid, data: serde_json::json!(n) }).expect("there is room");
    }
    assert_eq!(errno(machine.call(one, Send { pid, data: serde_json::json!(0) })), Errno::EAGAIN);
}

#[test]
fn requests_with_one_number_at_once_are_refused() {
    let mut machine = Machine::default();
    let conn = machine.connect(ADMIN);
    let id = machine.begin(conn, Receive { timeout_ms: None });
    let request = syscalls::Request { id, pid: None, call: Ps { all: false }.into() };
    machine.event(Event::Request { conn, request });
    assert_eq!(errno(machine.reply(conn, id).expect("it is refused")), Errno::EINVAL);
}

#[test]
fn calls_in_flight_beyond_the_limit_are_refused() {
    let mut machine = Machine::default();
    let conn = machine.connect(ADMIN);
    for _ in 0..1024 {
        machine.begin(conn, Receive { timeout_ms: None });
    }
    assert_eq!(errno(machine.call(conn, Ps { all: false })), Errno::EAGAIN);
}

#[test]
fn calls_that_the_kernel_lacks_say_what_to_do() {
    let mut machine = Machine::default();
    let conn = machine.connect(ADMIN);
    let spec = serde_json::json!({"model": "m"});
    let fault = machine.call(conn, Compress { spec }).expect_err("not there");
    assert_eq!(fault.errno, Errno::ENOSYS);
    assert!(fault.message.contains("another tool"), "{fault}");
}

#[test]
fn shutdown_answers_everybody_and_exits() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "shutdown");
    let running = machine.begin(conn, generate(context, 1000));
    let receiving = machine.begin(conn, Receive { timeout_ms: None });
    machine.turn();
    machine.turn();
    assert!(machine.call(conn, Shutdown {}).is_ok());
    assert_eq!(generated(machine.finish(conn, running)).finish, Finish::Interrupted);
    assert_eq!(errno(machine.finish(conn, receiving)), Errno::ECANCELED);
    assert!(machine.exited && machine.workers.is_empty());
    assert_eq!(machine.records.len(), 1, "the mount outlives the daemon");
}
