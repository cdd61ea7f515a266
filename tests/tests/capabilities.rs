//! A program that the daemon has started stays within its capabilities, whichever way it speaks to the daemon.

use harness::Daemon;
use syscalls::Reply;
use syscalls::call::{Capability, Spawn, Wait};
use syscalls::client::blocking::Client;

/// Programs may use Unix sockets, or they could not connect a second time.
fn daemon() -> Daemon {
    Daemon::start_configured("(devices: [], jail: (program: (network: unix)))")
}

/// Runs `llmasos ARGS…` as a program with some capabilities, and gives its exit status.
fn run(client: &mut Client, caps: Option<Vec<Capability>>, args: &[&str]) -> u8 {
    let argv = std::iter::once("llmasos").chain(args.iter().copied()).map(str::to_owned).collect();
    let spawn = Spawn { caps, argv, ..syscalls::client::spawn("program") };
    let pid = match client.call(spawn).expect("starts") {
        Reply::Spawned { pid } => pid,
        other => panic!("{other:?}"),
    };
    match client.call(Wait { pid: Some(pid), timeout_ms: None }).expect("it ends") {
        Reply::Waited { status, .. } => status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn program_gets_no_capability_back_by_connecting_anew() {
    let daemon = daemon();
    let mut client = daemon.client();
    // The same socket by another name, so that the connection that it was born with is not taken.
    let again = format!("{}/./socket", daemon.dir().display());
    let few = || Some(vec![Capability::Store]);
    let mount = ["mount", "sim:", "--name", "m"];
    let mount_again = ["mount", "sim:", "--name", "m", "--socket", &again];
    assert_eq!(run(&mut client, few(), &mount), 1, "on the connection that it was born with");
    assert_eq!(run(&mut client, few(), &mount_again), 1, "on another one");
    assert!(client.models().expect("lists").is_empty());
    assert_eq!(run(&mut client, None, &mount_again), 0, "with its parent's capabilities");
    assert_eq!(client.models().expect("lists").len(), 1);
    let put = ["store", "--socket", &again, "put", "s", "k", "1"];
    assert_eq!(run(&mut client, few(), &put), 0, "what it has it has there too");
}

#[test]
fn daemon_without_privileges_starts_programs_of_no_other_user_and_says_what_to_do() {
    let Some(daemon) = Daemon::start_as_user(61_235) else { return };
    let spawn = Spawn { argv: vec!["/bin/true".into()], ..syscalls::client::spawn("program") };
    let fault = daemon.client().call(spawn).expect_err("this is root, and the daemon is not");
    assert_eq!(fault.errno, syscalls::Errno::EPERM);
    for part in ["runs as user 61235", "as for user 0", "start it yourself", "llmasos daemon"] {
        assert!(fault.message.contains(part), "{fault}");
    }
}
