//! Capabilities: what takes which, and that they only shrink.

use kernel::core::KernelConfig;
use kernel::core::event::{ConnId, Credentials, Event};
use syscalls::call::*;
use syscalls::{Call, Errno, Fault, Pid, Reply};

use crate::machine::{ADMIN, Machine, credentials, mount, open};

/// A user who is not the administrator.
const USER: u32 = 1000;

fn spawn(name: &str, caps: Option<&[Capability]>) -> Spawn {
    Spawn { caps: caps.map(Into::into), ..syscalls::client::spawn(name) }
}

impl Machine {
    fn spawn_with(&mut self, conn: ConnId, parent: Option<Pid>, caps: &[Capability]) -> Pid {
        match self.call_as(conn, parent, spawn("child", Some(caps))) {
            Ok(Reply::Spawned { pid }) => pid,
            other => panic!("{other:?}"),
        }
    }

    fn caps(&mut self, conn: ConnId, pid: Pid) -> Vec<Capability> {
        self.ps(conn).into_iter().find(|p| p.pid == pid).expect("it is there").caps
    }
}

/// Refused, with the name of the capability and how to get it.
#[track_caller]
fn lacks(reply: Result<Reply, Fault>, capability: Capability) {
    let fault = reply.expect_err("it has not the capability");
    assert_eq!(fault.errno, Errno::EPERM, "{fault}");
    let named = format!("takes the capability {}, which this process has not; ", capability.name());
    assert!(fault.message.contains(&named), "{fault}");
}

fn train(spec: serde_json::Value) -> Train {
    Train { spec, resume: false, ranks: None, name: None, class: None, nice: None, group: None }
}

/// Calls that each take a capability, and which one.
fn taking(process: Pid) -> Vec<(Capability, Call)> {
    let context = syscalls::ContextId(1);
    let program = Spawn { argv: vec!["/bin/true".into()], ..spawn("program", None) };
    let put = StorePut { store: "s".into(), key: "k".into(), value: 1.into() };
    let share = Share { context, name: "s".into(), length: None, mode: 0o600 };
    let lower = Setpriority { pid: process, class: None, nice: Some(-5) };
    let group =
        Setgroup { group: "/user.1".into(), weight: Some(5), limit: None, value: None, remove: false };
    let own_group = Setgroup { group: "a".into(), ..group.clone() };
    vec![
        (Capability::Spawn, spawn("child", None).into()),
        (Capability::Exec, program.into()),
        (Capability::Ipc, Send { pid: process, data: 1.into() }.into()),
        (Capability::Share, share.into()),
        (Capability::Share, Unshare { name: "s".into() }.into()),
        (Capability::Persist, Snapshot { context, name: "s".into() }.into()),
        (Capability::Persist, Detach { pid: None }.into()),
        (Capability::Store, put.into()),
        (Capability::Store, StoreList { store: "s".into(), prefix: String::new() }.into()),
        (Capability::Train, train(1.into()).into()),
        (Capability::Mount, mount("n", "").into()),
        (Capability::Umount, Unmount { name: "m".into(), force: true }.into()),
        (Capability::Policy, Setpolicy { policy: "rr".into() }.into()),
        (Capability::Nice, lower.into()),
        (Capability::Signal, own_group.into()),
        (Capability::Resource, group.into()),
        (Capability::Shutdown, Shutdown {}.into()),
    ]
}

#[test]
fn call_without_its_capability_is_refused_by_name_and_changes_nothing() {
    let (mut machine, conn) = Machine::with_model("");
    let child = machine.spawn_with(conn, None, &[]);
    assert_eq!(machine.caps(conn, child), []);
    for (capability, call) in taking(child) {
        lacks(machine.call_as(conn, Some(child), call), capability);
    }
    // What it needs for its own work takes none.
    machine.call_as(conn, Some(child), open()).expect("every process may");
    assert!(machine.programs.is_empty() && !machine.exited);
}

#[test]
fn capabilities_of_a_child_are_its_parents_or_fewer() {
    let (mut machine, conn) = Machine::with_model("");
    let heir = machine.spawn(conn, "heir");
    assert_eq!(machine.caps(conn, heir), Capability::ALL);
    let child = machine.spawn_with(conn, None, &[Capability::Spawn, Capability::Store]);
    let fault = machine.call_as(conn, Some(child), spawn("more", Some(&[Capability::Mount])));
    let fault = fault.expect_err("it has not that itself");
    assert!(fault.errno == Errno::EPERM && fault.message.contains("caps names mount"), "{fault}");
    let grandchild = machine.spawn_with(conn, Some(child), &[Capability::Store]);
    assert_eq!(machine.caps(conn, grandchild), [Capability::Store]);
    let Ok(Reply::Spawned { pid }) = machine.call_as(conn, Some(child), spawn("same", None)) else {
        panic!("it may")
    };
    assert_eq!(machine.caps(conn, pid), [Capability::Spawn, Capability::Store]);
    lacks(machine.call_as(conn, Some(grandchild), spawn("none", None)), Capability::Spawn);
}

#[test]
fn hello_gives_capabilities_up_and_asks_for_no_more_than_the_user_has() {
    let mut machine = Machine::default();
    let conn = machine.connect_silently(USER);
    let asking = |caps: &[Capability]| Hello { caps: Some(caps.into()), ..syscalls::client::hello("x") };
    let fault = machine.call(conn, asking(&[Capability::Shutdown])).expect_err("a user has not that");
    assert_eq!(fault.errno, Errno::EPERM);
    machine.call(conn, asking(&[Capability::Store])).expect("he has that");
    let pid = machine.pid(conn);
    assert_eq!(machine.caps(conn, pid), [Capability::Store]);
    lacks(machine.call(conn, spawn("child", None)), Capability::Spawn);
    let other = machine.connect(USER);
    let pid = machine.pid(other);
    let caps = machine.caps(other, pid);
    assert!(caps.contains(&Capability::Train) && !caps.contains(&Capability::Mount), "{caps:?}");
}

#[test]
fn process_without_signal_reaches_itself_and_its_descendants_alone() {
    let mut machine = Machine::default();
    let conn = machine.connect(USER);
    let sibling = machine.spawn(conn, "sibling");
    let child = machine.spawn_with(conn, None, &[Capability::Spawn]);
    let grandchild = machine.spawn_with(conn, Some(child), &[]);
    let stop = |pid| Kill { pid, signal: Signal::Stop };
    lacks(machine.call_as(conn, Some(child), stop(sibling)), Capability::Signal);
    machine.call_as(conn, Some(child), stop(grandchild)).expect("its own child");
    machine.call_as(conn, Some(child), stop(child)).expect("itself");
    machine.call(conn, stop(sibling)).expect("its parent has the capability");
    let stranger = machine.connect(USER + 1);
    lacks(machine.call(stranger, stop(sibling)), Capability::Kill);
}

#[test]
fn process_that_is_attached_gets_no_more_than_whoever_attaches_it_has() {
    let mut machine = Machine::default();
    let conn = machine.connect_lasting(USER, Lifetime::Persistent);
    let (pid, child) = (machine.pid(conn), machine.spawn(conn, "child"));
    machine.event(Event::Disconnected { conn });
    let conn = machine.connect_silently(USER);
    let few = [Capability::Signal, Capability::Persist];
    let hello = Hello { caps: Some(few.into()), ..syscalls::client::hello("few") };
    machine.call(conn, hello).expect("it says hello");
    machine.call(conn, Attach { pid, force: false }).expect("it is its user's");
    for pid in [pid, child] {
        assert_eq!(machine.caps(conn, pid), few, "process {pid}");
    }
    lacks(machine.call_as(conn, Some(pid), spawn("more", None)), Capability::Spawn);
    machine.event(Event::Disconnected { conn });
    // The next daemon knows what it began with; whoever has all of it gives it back.
    let mut next = machine.crashed(KernelConfig::default());
    let conn = next.connect(USER);
    next.call(conn, Attach { pid, force: false }).expect("it is its user's");
    let own = next.pid(conn);
    assert_eq!(next.caps(conn, pid), next.caps(conn, own));
}

#[test]
fn process_of_few_capabilities_outlives_the_daemon_with_them() {
    let mut machine = Machine::default();
    let conn = machine.connect_silently(ADMIN);
    let few = [Capability::Persist, Capability::Mount];
    let hello =
        Hello { caps: Some(few.into()), lifetime: Lifetime::Persistent, ..syscalls::client::hello("few") };
    machine.call(conn, hello).expect("it says hello");
    let pid = machine.pid(conn);
    let mut next = machine.crashed(KernelConfig::default());
    let conn = next.connect(ADMIN);
    assert_eq!(next.caps(conn, pid), [Capability::Persist], "who its user is, nobody has said yet");
    next.call(conn, Attach { pid, force: false }).expect("it is its user's");
    assert_eq!(next.caps(conn, pid), few);
}

#[test]
fn program_that_connects_anew_has_the_group_and_the_limits_that_it_was_started_with() {
    let mut machine = Machine::default();
    let conn = machine.connect(USER);
    let pid = machine.pid(conn);
    machine
        .call(conn, Setlimit { pid, limit: Limit::Contexts, value: Some(3), then: None })
        .expect("its own limit");
    let argv = vec!["/bin/program".to_owned()];
    machine.begin(conn, Spawn { argv, group: Some("box".into()), ..spawn("program", None) });
    let (pid, _) = machine.programs.pop().expect("the host is asked to start it");
    machine.event(Event::ProgramStarted { pid, conn: ConnId(9000), os_pid: 77 });
    let again = machine.connect_with(Credentials { program: Some(pid), ..credentials(USER) });
    let hello = Hello { group: Some("inner".into()), ..syscalls::client::hello("again") };
    machine.call(again, hello).expect("it may");
    let pid = machine.pid(again);
    let Ok(Reply::Inspected(inspected)) = machine.call(again, Inspect { pid }) else { panic!("itself") };
    assert_eq!(inspected.process.group, "user.1000/box/inner");
    let most =
        inspected.limits.iter().find(|limit| limit.limit == Limit::Contexts).and_then(|limit| limit.most);
    assert_eq!(most, Some(3));
}

#[test]
fn users_see_their_own_processes_and_the_kernel() {
    let mut machine = Machine::default();
    let (conn, other, admin) = (machine.connect(USER), machine.connect(USER + 1), machine.connect(ADMIN));
    let child = machine.spawn(conn, "child");
    let seen = |machine: &mut Machine, conn| machine.ps(conn).iter().map(|p| p.pid).collect::<Vec<_>>();
    let (own, others) = (machine.pid(conn), machine.pid(other));
    assert_eq!(seen(&mut machine, conn), [Pid::KERNEL, own, child]);
    assert_eq!(seen(&mut machine, other), [Pid::KERNEL, others]);
    assert_eq!(seen(&mut machine, admin).len(), 5);
}

/// Starts a program with these capabilities, and gives its process.
fn program(machine: &mut Machine, conn: ConnId, caps: &[Capability]) -> Pid {
    let spawn = Spawn { argv: vec!["/bin/program".into()], ..spawn("program", Some(caps)) };
    machine.begin(conn, spawn);
    let (pid, _) = machine.programs.pop().expect("the host is asked to start it");
    machine.event(Event::ProgramStarted { pid, conn: ConnId(9000), os_pid: 77 });
    pid
}

#[test]
fn program_that_connects_anew_gets_no_more_than_it_was_started_with() {
    let mut machine = Machine::default();
    let conn = machine.connect(ADMIN);
    let pid = program(&mut machine, conn, &[Capability::Store]);
    lacks(machine.call(ConnId(9000), spawn("child", None)), Capability::Spawn);
    let inside = |pid| Credentials { program: Some(pid), ..credentials(ADMIN) };
    let again = machine.connect_with(inside(pid));
    machine.call(again, syscalls::client::hello("again")).expect("it may");
    lacks(machine.call(again, mount("m", "")), Capability::Mount);
    let own = machine.pid(again);
    assert_eq!(machine.caps(again, own), [Capability::Store]);
    // Whoever comes out of a program that has ended has nothing.
    machine.event(Event::ProgramEnded { pid, status: 0 });
    let late = machine.connect_with(inside(pid));
    machine.call(late, syscalls::client::hello("late")).expect("it may");
    let own = machine.pid(late);
    assert_eq!(machine.caps(conn, own), []);
}
