//! Programs that the daemon starts as processes: what the kernel makes of their starts and ends.

use kernel::core::event::{ConnId, Event};
use syscalls::call::{Hello, Kill, Ps, Signal, Spawn, Wait};
use syscalls::limits::ABI_VERSION;
use syscalls::{CallId, Errno, Fault, Pid, Reply};

use super::machine::{ADMIN, Machine};

/// Where the host puts the connection of a program.
const BORN: ConnId = ConnId(9000);

fn spawn(argv: &[&str]) -> Spawn {
    let argv = argv.iter().map(|&word| word.to_owned()).collect();
    Spawn { name: "program".into(), class: None, nice: None, group: None, lifetime: None, caps: None, argv }
}

fn hello() -> Hello {
    syscalls::client::hello("somebody else")
}

/// A caller that waits for the start of a program.
fn begun() -> (Machine, ConnId, CallId, Pid) {
    let mut machine = Machine::default();
    let conn = machine.connect(ADMIN);
    let call = machine.begin(conn, spawn(&["/bin/program", "argument"]));
    let (pid, program) = machine.programs.pop().expect("the host is asked to start it");
    assert_eq!((program.argv.len(), program.uid), (2, ADMIN), "as its caller and nobody else");
    assert!(machine.reply(conn, call).is_none(), "it does not run yet");
    (machine, conn, call, pid)
}

fn started() -> (Machine, ConnId, Pid) {
    let (mut machine, conn, call, pid) = begun();
    machine.event(Event::ProgramStarted { pid, conn: BORN, os_pid: 77 });
    assert_eq!(machine.reply(conn, call), Some(Ok(Reply::Spawned { pid })));
    (machine, conn, pid)
}

fn waited(machine: &mut Machine, conn: ConnId) -> Reply {
    machine.call(conn, Wait { pid: None, timeout_ms: Some(0) }).expect("the child has ended")
}

#[test]
fn program_is_its_process_on_the_connection_that_it_was_born_with() {
    let (mut machine, conn, pid) = started();
    machine.call(BORN, Ps { all: false }).expect("no hello is needed");
    for _ in 0..2 {
        match machine.call(BORN, hello()) {
            Ok(Reply::Hello(reply)) => assert_eq!((reply.pid, reply.version), (pid, ABI_VERSION)),
            other => panic!("unexpected {other:?}"),
        }
    }
    machine.event(Event::ProgramEnded { pid, status: 3 });
    assert_eq!(waited(&mut machine, conn), Reply::Waited { pid, status: 3 });
    assert!(machine.programs_told_to_end.is_empty(), "it has ended by itself");
}

#[test]
fn program_that_closes_its_connection_is_a_process_until_it_ends() {
    let (mut machine, conn, pid) = started();
    machine.event(Event::Disconnected { conn: BORN });
    let running = machine.call(conn, Wait { pid: Some(pid), timeout_ms: Some(0) });
    assert_eq!(running.expect_err("it runs").errno, Errno::ETIMEDOUT);
    machine.event(Event::ProgramEnded { pid, status: 0 });
    assert_eq!(waited(&mut machine, conn), Reply::Waited { pid, status: 0 });
}

#[test]
fn program_that_cannot_be_started_is_no_child() {
    let (mut machine, conn, call, pid) = begun();
    let fault = Fault::new(Errno::ENOENT, "there is no /bin/program");
    machine.event(Event::ProgramRefused { pid, fault: fault.clone() });
    assert_eq!(machine.reply(conn, call), Some(Err(fault)));
    let none = machine.call(conn, Wait { pid: None, timeout_ms: Some(0) });
    assert_eq!(none.expect_err("there is no child").errno, Errno::ECHILD);
}

#[test]
fn process_that_is_killed_takes_its_program_with_it() {
    for signal in [Signal::Term, Signal::Kill] {
        let (mut machine, conn, pid) = started();
        machine.call(conn, Kill { pid, signal }).expect("it is the caller's own");
        assert_eq!(machine.programs_told_to_end, [pid]);
        assert_eq!(waited(&mut machine, conn), Reply::Waited { pid, status: 128 + signal.number() });
        machine.event(Event::ProgramEnded { pid, status: 143 });
    }
}

#[test]
fn program_whose_process_was_killed_before_it_ran_is_ended() {
    let (mut machine, conn, call, pid) = begun();
    machine.call(conn, Kill { pid, signal: Signal::Kill }).expect("it is the caller's own");
    let fault = machine.reply(conn, call).expect("is answered").expect_err("it never ran");
    assert_eq!(fault.errno, Errno::ECANCELED);
    machine.event(Event::ProgramStarted { pid, conn: BORN, os_pid: 77 });
    assert_eq!(machine.programs_told_to_end, [pid]);
    assert!(machine.hangups.contains(&BORN), "nobody is at home there");
}

#[test]
fn program_outlives_its_parent_and_is_reaped_by_the_kernel() {
    let (mut machine, conn, pid) = started();
    machine.event(Event::Disconnected { conn });
    machine.event(Event::ProgramEnded { pid, status: 0 });
    let other = machine.connect(ADMIN);
    let Ok(Reply::Processes(list)) = machine.call(other, Ps { all: true }) else { panic!("ps answers") };
    assert!(list.iter().all(|p| p.pid != pid));
}
