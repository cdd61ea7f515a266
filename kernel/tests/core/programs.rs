//! Programs that the daemon starts as processes: what the kernel makes of their starts and ends.

use kernel::core::KernelConfig;
use kernel::core::event::{ConnId, Event};
use kernel::core::printed::Printed;
use syscalls::call::{Attach, Class, Hello, Kill, Lifetime, Output, Ps, Signal, Spawn, Train, Wait};
use syscalls::event::Stream;
use syscalls::limits::{
    ABI_VERSION, PRINTED_BYTES_MAX, PRINTED_ENDED_MAX, PRINTED_LINE_BYTES_MAX, PRINTED_LINES_MAX,
    PROGRAMS_PER_USER_MAX, RANKS_MAX,
};
use syscalls::reply::OutputReply;
use syscalls::{CallId, Errno, Fault, Pid, Reply};

use super::machine::{ADMIN, Machine};

/// Where the host puts the connection of a program.
const BORN: ConnId = ConnId(9000);

fn spawn(argv: &[&str]) -> Spawn {
    let argv = argv.iter().map(|&word| word.to_owned()).collect();
    Spawn { argv, ..syscalls::client::spawn("program") }
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
fn programs_of_a_user_are_bounded_and_leave_room_for_those_of_others() {
    let mut machine = Machine::default();
    let conn = machine.connect(1000);
    for _ in 0..PROGRAMS_PER_USER_MAX {
        machine.begin(conn, spawn(&["/bin/program"]));
    }
    let again = machine.connect(1000);
    let fault = machine.call(again, spawn(&["/bin/program"])).expect_err("one too many");
    assert_eq!(fault.errno, Errno::EAGAIN);
    assert!(fault.message.contains("user 1000 has 64 programs; the limit is 64"), "{fault}");
    for uid in [1001, ADMIN] {
        let other = machine.connect(uid);
        let call = machine.begin(other, spawn(&["/bin/program"]));
        assert_eq!(machine.reply(other, call), None, "user {uid} has room");
    }
    let (pid, _) = machine.programs.remove(0);
    machine.event(Event::ProgramStarted { pid, conn: BORN, os_pid: 77 });
    machine.event(Event::ProgramEnded { pid, status: 0 });
    let call = machine.begin(again, spawn(&["/bin/program"]));
    assert_eq!(machine.reply(again, call), None, "there is room again");
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
fn program_that_is_being_started_is_attached_by_nobody_and_its_start_is_answered() {
    let (mut machine, conn, call, pid) = begun();
    let other = machine.connect(ADMIN);
    let fault =
        machine.call(other, Attach { pid, force: true }).expect_err("it is about to have a connection");
    assert_eq!(fault.errno, Errno::EBUSY);
    machine.event(Event::ProgramStarted { pid, conn: BORN, os_pid: 77 });
    assert_eq!(machine.reply(conn, call), Some(Ok(Reply::Spawned { pid })));
}

#[test]
fn program_started_when_its_parent_has_been_attached_keeps_its_own_connection() {
    let mut machine = Machine::default();
    let conn = machine.connect_lasting(1000, Lifetime::Detached);
    let parent = machine.pid(conn);
    machine.begin(conn, spawn(&["/bin/program"]));
    let (pid, _) = machine.programs.pop().expect("the host is asked to start it");
    machine.event(Event::Disconnected { conn });
    let other = machine.connect(1000);
    machine.call(other, Attach { pid: parent, force: false }).expect("his own");
    machine.event(Event::ProgramStarted { pid, conn: BORN, os_pid: 77 });
    machine.event(Event::Disconnected { conn: other });
    machine.call(BORN, Ps { all: false }).expect("it acts for itself");
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
    let (mut machine, conn, pid) = started();
    machine.call(conn, Kill { pid, signal: Signal::Kill }).expect("it is the caller's own");
    assert_eq!(machine.programs_told_to_end, [pid]);
    assert_eq!(waited(&mut machine, conn), Reply::Waited { pid, status: 128 + 9 });
    machine.event(Event::ProgramEnded { pid, status: 128 + 9 });
}

#[test]
fn program_that_is_asked_to_end_has_its_own_status() {
    for (signal, status) in [(Signal::Term, 0), (Signal::Term, 128 + 15), (Signal::Xcpu, 128 + 24)] {
        let (mut machine, conn, pid) = started();
        machine.call(conn, Kill { pid, signal }).expect("it is the caller's own");
        assert_eq!(machine.program_signals, [(pid, signal), (pid, Signal::Cont)]);
        machine.call(BORN, Ps { all: false }).expect("it has time to finish");
        machine.event(Event::ProgramEnded { pid, status });
        assert_eq!(waited(&mut machine, conn), Reply::Waited { pid, status });
        assert!(machine.programs_told_to_end.is_empty(), "it has ended by itself");
    }
}

#[test]
fn program_that_is_asked_to_end_and_does_not_is_killed() {
    let (mut machine, conn, pid) = started();
    machine.call(conn, Kill { pid, signal: Signal::Term }).expect("it is the caller's own");
    machine.pass_ms(9_000);
    assert!(machine.programs_told_to_end.is_empty(), "its time is not over");
    machine.pass_ms(1_000);
    assert_eq!(machine.programs_told_to_end, [pid]);
    assert_eq!(waited(&mut machine, conn), Reply::Waited { pid, status: 128 + 9 });
}

#[test]
fn signals_of_a_process_reach_its_program() {
    let (mut machine, conn, pid) = started();
    for signal in [Signal::Stop, Signal::Cont, Signal::Int] {
        machine.call(conn, Kill { pid, signal }).expect("it is the caller's own");
        assert_eq!(machine.program_signals.pop(), Some((pid, signal)));
    }
}

#[test]
fn program_that_is_stopped_before_it_runs_is_stopped_when_it_does() {
    let (mut machine, conn, _, pid) = begun();
    machine.call(conn, Kill { pid, signal: Signal::Stop }).expect("it is the caller's own");
    assert!(machine.program_signals.is_empty(), "there is nothing to signal yet");
    machine.event(Event::ProgramStarted { pid, conn: BORN, os_pid: 77 });
    assert_eq!(machine.program_signals, [(pid, Signal::Stop)]);
}

fn prints(machine: &mut Machine, pid: Pid, lines: std::ops::Range<usize>) {
    let line = |n| Printed { stream: Stream::Stdout, text: format!("line {n}"), cut: false };
    machine.event(Event::ProgramPrinted { pid, lines: lines.map(line).collect() });
}

fn read(machine: &mut Machine, conn: ConnId, pid: Pid) -> OutputReply {
    match machine.call(conn, Output { pid, lines: None, follow: false }) {
        Ok(Reply::Output(reply)) => reply,
        other => panic!("unexpected {other:?}"),
    }
}

/// The numbers of the lines that a follower was told, and how many he lost.
fn told(machine: &Machine, conn: ConnId, call: CallId) -> (Vec<u64>, u64) {
    let (mut numbers, mut lost) = (vec![], 0);
    for event in machine.events(conn, call) {
        match event {
            syscalls::Event::Output { lines } => numbers.extend(lines.iter().map(|line| line.number)),
            syscalls::Event::Lost { events } => lost += events,
            other => panic!("unexpected {other:?}"),
        }
    }
    (numbers, lost)
}

#[test]
fn output_of_a_program_is_kept_to_its_limit_and_beyond_its_process() {
    let (mut machine, conn, pid) = started();
    prints(&mut machine, pid, 0..PRINTED_LINES_MAX + 5);
    machine.event(Event::ProgramEnded { pid, status: 0 });
    waited(&mut machine, conn);
    let reply = read(&mut machine, conn, pid);
    assert_eq!((reply.lines.len(), reply.dropped, reply.ended), (PRINTED_LINES_MAX, 5, true));
    assert_eq!(reply.lines[0].text, "line 5");
    match machine.call(conn, Output { pid, lines: Some(2), follow: true }) {
        Ok(Reply::Output(reply)) => assert_eq!(reply.lines.len(), 2, "nothing is left to follow"),
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn long_lines_of_a_program_are_kept_to_their_bytes() {
    let (mut machine, conn, pid) = started();
    for _ in 0..100 {
        let text = "x".repeat(PRINTED_LINE_BYTES_MAX);
        let line = Printed { stream: Stream::Stderr, text, cut: true };
        machine.event(Event::ProgramPrinted { pid, lines: vec![line] });
    }
    let kept = read(&mut machine, conn, pid).lines.len();
    assert_eq!(kept, PRINTED_BYTES_MAX / PRINTED_LINE_BYTES_MAX);
}

#[test]
fn follower_hears_what_was_printed_and_what_comes_until_the_end() {
    let (mut machine, conn, pid) = started();
    prints(&mut machine, pid, 0..3);
    let call = machine.begin(conn, Output { pid, lines: Some(1), follow: true });
    prints(&mut machine, pid, 3..5);
    assert_eq!(told(&machine, conn, call), (vec![2, 3, 4], 0));
    machine.event(Event::ProgramEnded { pid, status: 0 });
    match machine.reply(conn, call) {
        Some(Ok(Reply::Output(reply))) => assert!(reply.lines.is_empty() && reply.ended),
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn follower_that_does_not_read_goes_on_where_it_was_or_hears_what_it_lost() {
    let (mut machine, conn, pid) = started();
    let call = machine.begin(conn, Output { pid, lines: None, follow: true });
    machine.event(Event::OutputHigh { conn });
    prints(&mut machine, pid, 0..4);
    assert_eq!(told(&machine, conn, call), (vec![], 0), "nothing is sent to it");
    machine.event(Event::OutputLow { conn });
    assert_eq!(told(&machine, conn, call), (vec![0, 1, 2, 3], 0));
    machine.event(Event::OutputHigh { conn });
    prints(&mut machine, pid, 4..PRINTED_LINES_MAX + 10);
    machine.event(Event::OutputLow { conn });
    let (numbers, lost) = told(&machine, conn, call);
    assert_eq!((numbers.len(), lost), (4 + PRINTED_LINES_MAX, 6));
}

#[test]
fn output_is_for_the_user_of_the_program_alone() {
    let (mut machine, _, pid) = started();
    let stranger = machine.connect(1000);
    let refused = machine.call(stranger, Output { pid, lines: None, follow: false });
    assert_eq!(refused.expect_err("it is not his").errno, Errno::EPERM);
    let own = machine.pid(stranger);
    let refused = machine.call(stranger, Output { pid: own, lines: None, follow: false });
    assert_eq!(refused.expect_err("it is no program").errno, Errno::ESRCH);
}

#[test]
fn output_of_programs_that_ended_long_ago_is_forgotten() {
    let mut machine = Machine::default();
    let conn = machine.connect(ADMIN);
    let run = |machine: &mut Machine, n: u64| {
        machine.begin(conn, spawn(&["/bin/program"]));
        let (pid, _) = machine.programs.pop().expect("the host is asked to start it");
        machine.event(Event::ProgramStarted { pid, conn: ConnId(BORN.0 + n), os_pid: 77 });
        machine.event(Event::ProgramEnded { pid, status: 0 });
        machine.event(Event::Disconnected { conn: ConnId(BORN.0 + n) });
        pid
    };
    let first = run(&mut machine, 0);
    read(&mut machine, conn, first);
    for n in 1..=PRINTED_ENDED_MAX as u64 {
        run(&mut machine, n);
    }
    let gone = machine.call(conn, Output { pid: first, lines: None, follow: false });
    assert_eq!(gone.expect_err("others have ended since").errno, Errno::ESRCH);
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

#[test]
fn program_reads_what_its_caller_names_and_lets_no_other_read_anything() {
    let mut machine = Machine::default();
    let conn = machine.connect(ADMIN);
    let reading = |read: &str| Spawn { read: vec![read.to_owned()], ..spawn(&["/bin/program"]) };
    let fault = machine.call(conn, reading("model")).expect_err("it is not absolute");
    assert!(fault.errno == Errno::EINVAL && fault.message.contains("`model`"), "{fault}");
    let without = Spawn { argv: vec![], ..reading("/model") };
    assert_eq!(machine.call(conn, without).expect_err("it is no program").errno, Errno::EINVAL);
    machine.begin(conn, reading("/model"));
    let (pid, program) = machine.programs.pop().expect("the host is asked to start it");
    assert_eq!(program.reach.read, ["/model"]);
    assert!(program.reach.write.is_none() && !program.reach.computes);
    machine.event(Event::ProgramStarted { pid, conn: BORN, os_pid: 77 });
    let fault = machine.call(BORN, reading("/secret")).expect_err("it is in the jail");
    assert_eq!(fault.errno, Errno::EPERM, "{fault}");
    assert_eq!(machine.call(BORN, train("/secret", "/run")).expect_err("as before").errno, Errno::EPERM);
    assert!(machine.programs.is_empty());
}

fn train(data: &str, out: &str) -> Train {
    let spec = serde_json::json!({ "data": { "train": { "Text": [data] } }, "out": out });
    Train { spec, resume: false, ranks: None, name: None, class: None, nice: None, group: None }
}

#[test]
fn training_is_a_program_of_class_batch_that_reaches_what_its_specification_names() {
    let mut machine = Machine::default();
    let conn = machine.connect(ADMIN);
    let fault = machine.call(conn, train("/text", "relative")).expect_err("the daemon has no folder");
    assert!(fault.errno == Errno::EINVAL && fault.message.contains("`out`"), "{fault}");
    let fault = machine.call(conn, train(&format!("/{}", "t".repeat(65_536)), "/run")).expect_err("too long");
    assert!(
        fault.errno == Errno::E2BIG && fault.message.contains("name the folder that the files"),
        "{fault}"
    );
    let mut asked = Train { resume: true, ..train("/text", "/run") };
    asked.spec["samples"] = serde_json::json!({ "prompt": "/" });
    asked.spec["loss"] = serde_json::json!({ "CrossEntropy": { "ignore": "/etc" } });
    let call = machine.begin(conn, asked);
    let (pid, program) = machine.programs.pop().expect("the host is asked to start it");
    assert_eq!(program.argv[0], "llmasos-trainer");
    assert!(program.argv.iter().any(|word| word == "--resume"), "{:?}", program.argv);
    assert!(program.reach.computes);
    assert_eq!(program.reach.read, ["/run", "/text"], "texts of other parts are no paths");
    assert_eq!(program.reach.write.as_deref(), Some("/run"));
    machine.event(Event::ProgramStarted { pid, conn: BORN, os_pid: 77 });
    assert_eq!(machine.reply(conn, call), Some(Ok(Reply::Spawned { pid })));
    let process = machine.ps(conn).into_iter().find(|process| process.pid == pid).expect("it is listed");
    assert_eq!((process.class, process.name.as_str()), (Class::Batch, "train"));
}

#[test]
fn training_is_over_as_many_ranks_as_are_asked_for_again_too() {
    let mut machine = Machine::default();
    let conn = machine.connect(7);
    for ranks in [0, RANKS_MAX + 1] {
        let fault = machine.call(conn, Train { ranks: Some(ranks), ..train("/text", "/run") });
        let fault = fault.expect_err("so many there cannot be");
        assert!(fault.errno == Errno::EINVAL && fault.message.contains(&ranks.to_string()), "{fault}");
    }
    machine.begin(conn, Train { ranks: Some(2), ..train("/text", "/run") });
    let over_two = |argv: &[String]| argv.windows(2).any(|pair| pair == ["--ranks", "2"]);
    let (pid, program) = machine.programs.pop().expect("the host is asked to start it");
    assert!(over_two(&program.argv), "{:?}", program.argv);
    machine.event(Event::ProgramStarted { pid, conn: BORN, os_pid: 77 });
    let mut machine = machine.crashed(KernelConfig::default());
    let (_, program) = machine.programs.pop().expect("the host is asked to start it again");
    assert!(over_two(&program.argv), "{:?}", program.argv);
}

#[test]
fn training_is_started_again_by_the_next_daemon_as_the_same_process() {
    let mut machine = Machine::default();
    let conn = machine.connect(7);
    machine.begin(conn, Train { nice: Some(3), ..train("/text", "/run") });
    let (pid, before) = machine.programs.pop().expect("the host is asked to start it");
    machine.event(Event::ProgramStarted { pid, conn: BORN, os_pid: 77 });
    machine.call(conn, Kill { pid, signal: Signal::Stop }).expect("it is its own");
    let mut machine = machine.crashed(KernelConfig::default());
    let (again, program) = machine.programs.pop().expect("the host is asked to start it again");
    assert_eq!((again, program.uid, &program.reach), (pid, 7, &before.reach));
    assert!(program.argv.contains(&"--go-on".to_owned()) && !before.argv.contains(&"--go-on".to_owned()));
    let admin = machine.connect(ADMIN);
    let process = machine.ps(admin).into_iter().find(|process| process.pid == pid).expect("it is listed");
    assert_eq!((process.uid, process.class, process.nice), (7, Class::Batch, 3));
    machine.event(Event::ProgramStarted { pid, conn: BORN, os_pid: 78 });
    assert_eq!(machine.program_signals, [(pid, Signal::Stop)], "it is still held");
    // It is started as often as daemons die, and not when it has ended.
    let mut machine = machine.crashed(KernelConfig::default());
    assert_eq!(machine.programs.pop().map(|(pid, _)| pid), Some(pid));
    machine.event(Event::ProgramStarted { pid, conn: BORN, os_pid: 79 });
    machine.event(Event::ProgramEnded { pid, status: 0 });
    assert!(machine.crashed(KernelConfig::default()).programs.is_empty());
}
