//! Programs that the daemon starts in the jail, as real processes.

use std::fs;
use std::path::Path;

use syscalls::call::{Kill, Output, Signal, Spawn, Wait};
use syscalls::client::blocking::Client;
use syscalls::event::{Event, Stream};
use syscalls::reply::OutputReply;
use syscalls::{Errno, Fault, Pid, Reply};

use super::harness::{Daemon, Home, not_checked, wait_until};

/// A daemon whose jail is on, and which is not patient.
fn daemon() -> (Home, Daemon) {
    let home = Home::new("exit 1");
    fs::write(home.path("config.ron"), "(devices: [], term_grace_ms: 100)").expect("writes");
    let daemon = home.start();
    (home, daemon)
}

/// One that gives programs more time to end than they need on any machine.
fn patient_daemon() -> (Home, Daemon) {
    let home = Home::new("exit 1");
    fs::write(home.path("config.ron"), "(devices: [], term_grace_ms: 30000)").expect("writes");
    let daemon = home.start();
    (home, daemon)
}

fn spawn(client: &mut Client, argv: &[&str]) -> Result<Pid, Fault> {
    let argv = argv.iter().map(|&word| word.to_owned()).collect();
    let spawn = Spawn { argv, ..syscalls::client::spawn("program") };
    match client.call(spawn)? {
        Reply::Spawned { pid } => Ok(pid),
        other => panic!("unexpected {other:?}"),
    }
}

fn script(client: &mut Client, script: &str) -> Pid {
    spawn(client, &["/bin/sh", "-c", script]).expect("starts")
}

fn status(client: &mut Client, pid: Pid) -> u8 {
    match client.call(Wait { pid: Some(pid), timeout_ms: None }).expect("it ends") {
        Reply::Waited { status, .. } => status,
        other => panic!("unexpected {other:?}"),
    }
}

fn os_pid(client: &mut Client, pid: Pid) -> u32 {
    let all = client.ps().expect("answers");
    all.iter().find(|p| p.pid == pid).expect("it lives").os_pid
}

/// Whether nothing of a process group runs any more. What has ended and is reaped by nobody, as in a container whose first
/// process is none that reaps, is gone.
fn is_gone(group: u32) -> bool {
    let leader = nix::unistd::Pid::from_raw(i32::try_from(group).expect("a process number"));
    let runs = |stat: String| {
        // Behind the name: the state, the parent, and the group.
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or(vec![], |(_, rest)| rest.split(' ').collect());
        fields.get(2) == Some(&group.to_string().as_str()) && fields[0] != "Z" && fields[0] != "X"
    };
    let stats = || {
        let processes = fs::read_dir("/proc").expect("Linux has it");
        processes.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok())
    };
    nix::sys::signal::killpg(leader, None).is_err() || !stats().any(runs)
}

#[test]
fn program_ends_with_the_status_that_it_has() {
    let (_home, daemon) = daemon();
    let mut client = daemon.client();
    for (line, expected) in [("exit 0", 0), ("exit 3", 3), ("kill -SEGV $$", 128 + 11)] {
        let pid = script(&mut client, line);
        assert_eq!(status(&mut client, pid), expected, "{line}");
    }
}

#[test]
fn program_speaks_as_its_process_on_the_descriptor_that_it_inherits() {
    let (_home, daemon) = daemon();
    let mut client = daemon.client();
    let exit =
        r#"printf '{"id":1,"call":"exit","args":{"status":5}}\n' >&$LLMASOS_SOCKET_FD; exec sleep 600"#;
    let pid = script(&mut client, exit);
    let os_pid = os_pid(&mut client, pid);
    assert_eq!(status(&mut client, pid), 5, "the process has ended although its program has not");
    wait_until("the program was ended with its process", || is_gone(os_pid).then_some(()));
}

#[test]
fn program_that_ignores_term_is_killed_with_all_that_it_has_started() {
    let (_home, daemon) = daemon();
    let mut client = daemon.client();
    let pid = script(&mut client, "trap '' TERM; sleep 600 & echo trapped; while :; do sleep 600; done");
    let os_pid = os_pid(&mut client, pid);
    wait_for_line(&mut client, pid, "trapped");
    client.call(Kill { pid, signal: Signal::Term }).expect("it is the caller's");
    assert_eq!(status(&mut client, pid), 128 + 9);
    wait_until("the whole group is gone", || is_gone(os_pid).then_some(()));
}

#[test]
fn program_that_catches_term_ends_as_it_likes() {
    let (_home, daemon) = patient_daemon();
    let mut client = daemon.client();
    let pid =
        script(&mut client, "trap 'echo ending; exit 5' TERM; echo trapped; while :; do sleep 0.1; done");
    wait_for_line(&mut client, pid, "trapped");
    client.call(Kill { pid, signal: Signal::Term }).expect("it is the caller's");
    assert_eq!(status(&mut client, pid), 5);
    let reply = output(&mut client, pid);
    let said = reply.lines.iter().filter(|line| line.stream == Stream::Stdout).map(|line| line.text.as_str());
    assert!(said.eq(["trapped", "ending"]), "{reply:?}");
}

#[test]
fn program_is_held_and_goes_on_and_is_interrupted_with_its_process() {
    let (_home, daemon) = daemon();
    let mut client = daemon.client();
    let pid = script(&mut client, "trap 'exit 6' INT; sleep 600 & echo trapped; wait");
    let os_pid = os_pid(&mut client, pid);
    wait_for_line(&mut client, pid, "trapped");
    let is = |state: &'static str| move || (os_state(os_pid) == state).then_some(());
    client.call(Kill { pid, signal: Signal::Stop }).expect("it is the caller's");
    wait_until("the program is held", is("T"));
    client.call(Kill { pid, signal: Signal::Cont }).expect("it is the caller's");
    wait_until("the program goes on", is("S"));
    client.call(Kill { pid, signal: Signal::Int }).expect("it is the caller's");
    assert_eq!(status(&mut client, pid), 6);
}

#[test]
fn program_that_is_held_ends_when_it_is_asked_to() {
    let (_home, daemon) = patient_daemon();
    let mut client = daemon.client();
    let pid = script(&mut client, "exec sleep 600");
    let os_pid = os_pid(&mut client, pid);
    client.call(Kill { pid, signal: Signal::Stop }).expect("it is the caller's");
    wait_until("the program is held", || (os_state(os_pid) == "T").then_some(()));
    client.call(Kill { pid, signal: Signal::Term }).expect("it is the caller's");
    assert_eq!(status(&mut client, pid), 128 + 15, "not 137, as of one that had to be killed");
}

#[test]
fn output_of_a_program_is_read_and_followed_and_is_not_in_the_log() {
    let (home, daemon) = daemon_with_log();
    let mut client = daemon.client();
    let pid = script(&mut client, "echo one; echo two >&2; read line; echo never");
    assert_eq!(status(&mut client, pid), 0);
    let reply = output(&mut client, pid);
    let mut lines: Vec<_> = reply.lines.iter().map(|line| (line.stream, line.text.as_str())).collect();
    lines.sort_by_key(|(_, text)| *text);
    assert_eq!(lines, [(Stream::Stdout, "never"), (Stream::Stdout, "one"), (Stream::Stderr, "two")]);
    assert!(reply.ended && reply.dropped == 0);

    let pid = script(&mut client, "for n in 1 2 3; do echo secret $n; sleep 0.05; done");
    let mut heard = vec![];
    let call = Output { pid, lines: None, follow: true };
    let ended = client.call_with(call, |event| match event {
        Event::Output { lines } => heard.extend(lines.into_iter().map(|line| line.text)),
        other => panic!("unexpected {other:?}"),
    });
    assert!(matches!(ended, Ok(Reply::Output(reply)) if reply.ended));
    assert_eq!(heard, ["secret 1", "secret 2", "secret 3"]);
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.end();
    let log = fs::read_to_string(home.path("log")).expect("the daemon logs");
    assert!(log.contains("has ended") && !log.contains("secret"), "{log}");
}

#[test]
fn program_that_prints_without_end_takes_no_memory_and_leaves_others_alone() {
    let (_home, daemon) = daemon();
    let mut client = daemon.client();
    let pids: Vec<Pid> = (0..4).map(|_| script(&mut client, "exec yes 'a line of some length'")).collect();
    let printed = |client: &mut Client, pid| output(client, pid).dropped;
    wait_until("all have printed much", || {
        pids.iter().all(|pid| printed(&mut client, *pid) > 20_000).then_some(())
    });
    let before = daemon.resident_bytes();
    let enough = printed(&mut client, pids[0]) + 100_000;
    wait_until("they have printed more", || (printed(&mut client, pids[0]) > enough).then_some(()));
    let grown = daemon.resident_bytes().saturating_sub(before);
    assert!(grown < 2 << 20, "the daemon has grown by {grown} bytes");
    for pid in pids {
        client.call(Kill { pid, signal: Signal::Kill }).expect("it is the caller's");
        assert_eq!(status(&mut client, pid), 128 + 9);
    }
}

#[test]
fn programs_have_time_to_finish_when_the_daemon_ends() {
    let home = Home::new("exit 1");
    let done = home.path("work");
    fs::create_dir(&done).expect("a folder");
    let config = format!("(devices: [], jail: (program: (write: [{done:?}])))");
    fs::write(home.path("config.ron"), config).expect("writes");
    let daemon = home.start();
    let mut client = daemon.client();
    let line = format!(
        "trap 'echo done > {}/done; exit 0' TERM; echo trapped; while :; do sleep 0.1; done",
        done.display()
    );
    let pid = script(&mut client, &line);
    wait_for_line(&mut client, pid, "trapped");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(daemon.end().success());
    assert!(done.join("done").is_file(), "it got TERM and its time");
}

/// A daemon that logs into a file.
fn daemon_with_log() -> (Home, Daemon) {
    let home = Home::new("exit 1");
    fs::write(home.path("config.ron"), "(devices: [], term_grace_ms: 100, log: \"trace\")").expect("writes");
    let daemon = home.start_with(|command| {
        command.stderr(fs::File::create(home.path("log")).expect("creates"));
    });
    (home, daemon)
}

fn output(client: &mut Client, pid: Pid) -> OutputReply {
    match client.call(Output { pid, lines: None, follow: false }).expect("it is the caller's") {
        Reply::Output(reply) => reply,
        other => panic!("unexpected {other:?}"),
    }
}

fn texts(reply: &OutputReply) -> Vec<&str> {
    reply.lines.iter().map(|line| line.text.as_str()).collect()
}

fn wait_for_line(client: &mut Client, pid: Pid, text: &str) {
    wait_until(text, || texts(&output(client, pid)).contains(&text).then_some(()));
}

/// The state of a process of the system, as its `ps` shows it.
fn os_state(os_pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{os_pid}/stat")).expect("it runs");
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').next());
    state.expect("the format is the system's").to_owned()
}

#[test]
fn program_that_is_not_there_is_refused_with_a_reason() {
    let (_home, daemon) = daemon();
    let mut client = daemon.client();
    let refused = |client: &mut Client, name: &str| spawn(client, &[name]).expect_err("it is not there");
    assert_eq!(refused(&mut client, "/nonexistent/program").errno, Errno::ENOENT);
    assert_eq!(refused(&mut client, "no-such-program").errno, Errno::ENOENT);
    assert_eq!(refused(&mut client, "a/b").errno, Errno::EINVAL);
    assert_eq!(refused(&mut client, "/etc").errno, Errno::EACCES);
    let none = client.call(Wait { pid: None, timeout_ms: Some(0) }).expect_err("there is no child");
    assert_eq!(none.errno, Errno::ECHILD);
}

#[test]
fn program_reaches_neither_the_data_nor_the_socket_of_the_daemon() {
    let support = kernel::jail::support();
    if !support.is_whole() {
        return not_checked(&format!(
            "what programs reach: this system has {support}, which does not close all"
        ));
    }
    let (home, daemon) = daemon();
    let mut client = daemon.client();
    assert!(Path::new(&home.path("data")).is_dir());
    let line = format!("ls {} || exit 7", home.path("data").display());
    let pid = script(&mut client, &line);
    assert_eq!(status(&mut client, pid), 7);
    let pid = script(&mut client, "kill -0 $PPID || exit 8");
    assert_eq!(status(&mut client, pid), 8, "it cannot signal the daemon");
}

/// A line that leaves a child behind when its shell is killed.
const WITH_A_CHILD: &str = "sleep 600 & echo started; wait";

#[test]
fn programs_and_what_they_have_started_end_with_a_daemon_that_is_killed() {
    for jail in ["", "jail: (strictness: off)"] {
        let home = Home::new("exit 1");
        fs::write(home.path("config.ron"), format!("(devices: [], {jail})")).expect("writes");
        end_with_a_daemon_that_is_killed(home.start());
    }
}

#[test]
fn programs_and_what_they_have_started_end_with_a_daemon_that_has_no_helper_and_is_killed() {
    let home = Home::new("exit 1");
    fs::write(home.path("config.ron"), "(devices: [])").expect("writes");
    end_with_a_daemon_that_is_killed(home.start_alone());
}

fn end_with_a_daemon_that_is_killed(daemon: Daemon) {
    let mut client = daemon.client();
    let pid = script(&mut client, WITH_A_CHILD);
    let held = script(&mut client, WITH_A_CHILD);
    let os_pids = [pid, held].map(|pid| os_pid(&mut client, pid));
    [pid, held].into_iter().for_each(|pid| wait_for_line(&mut client, pid, "started"));
    client.call(Kill { pid: held, signal: Signal::Stop }).expect("it is the caller's");
    wait_until("one is held", || (os_state(os_pids[1]) == "T").then_some(()));
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.end();
    for os_pid in os_pids {
        wait_until("the program is gone with its child", || is_gone(os_pid).then_some(()));
    }
}

#[test]
fn program_that_was_given_long_to_end_does_not_keep_the_daemon() {
    let home = Home::new("exit 1");
    fs::write(home.path("config.ron"), "(devices: [], term_grace_ms: 600000)").expect("writes");
    let daemon = home.start();
    let mut client = daemon.client();
    let exit = r#"printf '{"id":1,"call":"exit","args":{"status":5}}\n' >&$LLMASOS_SOCKET_FD"#;
    let pid = script(&mut client, &format!("trap '' TERM; sleep 600 & {exit}; while :; do sleep 600; done"));
    let os_pid = os_pid(&mut client, pid);
    assert_eq!(status(&mut client, pid), 5, "the process has ended, and its program ignores that");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(daemon.end().success());
    wait_until("the program is gone with its child", || is_gone(os_pid).then_some(()));
}
