//! Workers that load, die, and talk nonsense. All of them are shell scripts.

use std::fs;

use nix::sys::signal::Signal;
use syscalls::Errno;
use syscalls::reply::ModelState;

use super::harness::{Home, READY_WORKER, wait_until};

fn mount_fails(worker: &str) -> syscalls::Fault {
    let home = Home::new(worker);
    let daemon = home.start();
    let mut client = daemon.client();
    let fault = client.mount("sim:", "m", |_| {}).expect_err("the worker is no good");
    assert_eq!(client.models(), Ok(vec![]), "the daemon goes on without the model");
    fault
}

/// The number of the worker's process; the worker writes it to `pid`.
fn worker_pid(home: &Home) -> u32 {
    wait_until("the worker writes its number", || {
        fs::read_to_string(home.path("pid")).ok()?.trim().parse().ok()
    })
}

fn wait_for_end(pid: u32) {
    wait_until("the worker is gone", || {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // One that nobody waited for yet is gone, too.
        (state.is_empty() || state.contains(") Z ")).then_some(())
    });
}

#[test]
fn worker_that_dies_while_it_loads_fails_the_mount() {
    let fault = mount_fails("kill -SEGV $$");
    assert!(fault.message.contains("SIGSEGV"), "{fault}");
}

#[test]
fn worker_that_speaks_nonsense_fails_the_mount() {
    let fault = mount_fails("echo 'this is no message' >&0; exec cat <&0");
    assert_eq!(fault.errno, Errno::EIO);
    assert!(fault.message.contains("nonsense"), "{fault}");
}

#[test]
fn worker_that_loads_is_listed_and_ends_with_its_model() {
    let home = Home::new(&format!("echo $$ >pid; {READY_WORKER}"));
    let daemon = home.start();
    let mut client = daemon.client();
    let model = client.mount("sim:", "m", |_| {}).expect("mounts");
    let pid = worker_pid(&home);
    assert_eq!((model.state, model.worker_os_pid, model.driver.as_str()), (ModelState::Ready, pid, "script"));
    client.unmount("m", false).expect("nobody uses it");
    wait_for_end(pid);
    assert_eq!(client.models(), Ok(vec![]));
}

#[test]
fn what_a_worker_leaves_behind_ends_with_it() {
    let home = Home::new("sleep 600 & echo $! >pid; cat ready >&0; head -c 1 <&0 >/dev/null; exit 3");
    let daemon = home.start();
    let mut client = daemon.client();
    client.mount("sim:", "m", |_| {}).expect("mounts");
    let left = worker_pid(&home);
    client.unmount("m", false).expect("nobody uses it");
    wait_for_end(left);
}

#[test]
fn model_mounted_is_mounted_again_after_the_daemon_was_killed() {
    // It does not notice the end of its socket; the system has to kill it.
    let home = Home::new("echo $$ >pid; cat ready >&0; exec sleep 600");
    let daemon = home.start();
    daemon.client().mount("sim:", "m", |_| {}).expect("mounts");
    let first = worker_pid(&home);
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    wait_for_end(first);

    let daemon = home.start();
    let mut client = daemon.client();
    let ready = |m: &syscalls::reply::ModelInfo| m.name == "m" && m.state == ModelState::Ready;
    wait_until("the model is back", || client.models().expect("lists").iter().any(ready).then_some(()));
    assert_ne!(worker_pid(&home), first);
}

#[test]
fn search_for_devices_ends_with_a_daemon_that_is_killed() {
    let home = Home::new("echo $$ >pid; exec sleep 600");
    let config = format!("(driver: {:?}, jail: (strictness: off))", home.path("worker"));
    fs::write(home.path("config.ron"), config).expect("writes");
    let daemon = home.start();
    let searching = worker_pid(&home);
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    wait_for_end(searching);
}

#[test]
fn model_of_the_configuration_is_mounted_at_the_start() {
    let home = Home::new(READY_WORKER);
    let worker = home.path("worker");
    let config = format!(
        "(driver: {worker:?}, devices: [], jail: (strictness: off), mounts: [(path: \"sim:\", name: \"configured\")])"
    );
    fs::write(home.path("config.ron"), config).expect("writes");
    let daemon = home.start();
    assert_eq!(daemon.client().models().expect("lists")[0].name, "configured");
}

#[test]
fn daemon_that_ends_takes_a_stubborn_worker_with_it() {
    let home = Home::new("trap '' TERM INT; echo $$ >pid; cat ready >&0; while :; do sleep 60; done");
    let daemon = home.start();
    daemon.client().mount("sim:", "m", |_| {}).expect("mounts");
    let pid = worker_pid(&home);
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.end().success());
    wait_for_end(pid);
}
