//! Programs that the daemon starts in the jail, as real processes.

use std::fs;
use std::path::Path;

use syscalls::call::{Kill, Signal, Spawn, Wait};
use syscalls::client::blocking::Client;
use syscalls::{Errno, Fault, Pid, Reply};

use super::harness::{Daemon, Home, wait_until};

/// A daemon whose jail is on, and which is not patient.
fn daemon() -> (Home, Daemon) {
    let home = Home::new("exit 1");
    fs::write(home.path("config.ron"), "(devices: [], term_grace_ms: 100)").expect("writes");
    let daemon = home.start();
    (home, daemon)
}

fn spawn(client: &mut Client, argv: &[&str]) -> Result<Pid, Fault> {
    let argv = argv.iter().map(|&word| word.to_owned()).collect();
    let spawn = Spawn {
        name: "program".into(),
        class: None,
        nice: None,
        group: None,
        lifetime: None,
        caps: None,
        argv,
    };
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

/// Whether anything is left of the process group.
fn is_gone(group: u32) -> bool {
    let group = nix::unistd::Pid::from_raw(i32::try_from(group).expect("a process number"));
    nix::sys::signal::killpg(group, None).is_err()
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
    let pid = script(&mut client, "trap '' TERM; sleep 600 & while :; do sleep 600; done");
    let os_pid = os_pid(&mut client, pid);
    client.call(Kill { pid, signal: Signal::Term }).expect("it is the caller's");
    assert_eq!(status(&mut client, pid), 128 + 15);
    wait_until("the whole group is gone", || is_gone(os_pid).then_some(()));
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
    let (home, daemon) = daemon();
    let mut client = daemon.client();
    assert!(Path::new(&home.path("data")).is_dir());
    let line = format!("ls {} || exit 7", home.path("data").display());
    let pid = script(&mut client, &line);
    assert_eq!(status(&mut client, pid), 7);
    let pid = script(&mut client, "kill -0 $PPID || exit 8");
    assert_eq!(status(&mut client, pid), 8, "it cannot signal the daemon");
}

#[test]
fn programs_end_with_a_daemon_that_is_killed() {
    let (_home, daemon) = daemon();
    let mut client = daemon.client();
    let pid = script(&mut client, "exec sleep 600");
    let os_pid = os_pid(&mut client, pid);
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.end();
    wait_until("the program is gone", || is_gone(os_pid).then_some(()));
}
