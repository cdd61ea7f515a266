//! Services as real programs: started with the daemon, killed, started again, stopped, and declared anew.

use std::fs;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use syscalls::Reply;
use syscalls::call::{ServiceList, ServiceRestart, ServiceStart, ServiceStatus, ServiceStop};
use syscalls::client::blocking::Client;
use syscalls::reply::{ServiceInfo, ServiceState, ServiceStatusReply};

use super::harness::{Daemon, Home, llmasos, wait_until};

/// A daemon with these services, whose program is the shell.
fn daemon(services: &str) -> (Home, Daemon) {
    let home = Home::new("exit 1");
    configure(&home, services);
    let daemon = home.start();
    (home, daemon)
}

fn configure(home: &Home, services: &str) {
    let config = format!("(devices: [], term_grace_ms: 200, services: [{services}])");
    fs::write(home.path("config.ron"), config).expect("writes");
}

fn service(name: &str, script: &str, more: &str) -> String {
    format!(r#"(name: "{name}", argv: ["/bin/sh", "-c", "{script}"], stop_grace_ms: 200, {more}),"#)
}

fn list(client: &mut Client) -> Vec<ServiceInfo> {
    match client.call(ServiceList {}).expect("answers") {
        Reply::Services(list) => list,
        other => panic!("unexpected {other:?}"),
    }
}

fn status(client: &mut Client, name: &str) -> ServiceStatusReply {
    match client.call(ServiceStatus { name: name.into(), lines: None }).expect("answers") {
        Reply::ServiceStatus(reply) => reply,
        other => panic!("unexpected {other:?}"),
    }
}

fn wait_for(client: &mut Client, name: &str, state: ServiceState) -> ServiceInfo {
    wait_until(&format!("{name} is {state:?}"), || {
        Some(status(client, name).service).filter(|service| service.state == state)
    })
}

fn printed(client: &mut Client, name: &str) -> Vec<String> {
    let program = status(client, name).program.expect("it is the caller's");
    program.output.lines.into_iter().map(|line| line.text).collect()
}

#[test]
fn services_start_with_the_daemon_and_have_their_environment() {
    let first = service(
        "first",
        "echo $WORD $LLMASOS_SOCKET_FD; exec sleep 600",
        r#"environment: {"WORD": "hello"}"#,
    );
    let second = service("second", "exec sleep 600", r#"requires: ["first"]"#);
    let (_home, daemon) = daemon(&(second + &first));
    let mut client = daemon.client();
    let (first, second) = (
        wait_for(&mut client, "first", ServiceState::Running),
        wait_for(&mut client, "second", ServiceState::Running),
    );
    assert!(first.pid < second.pid, "what is required was started first");
    wait_until("it has printed", || (printed(&mut client, "first") == ["hello 3"]).then_some(()));
}

#[test]
fn service_that_is_killed_is_started_again_and_keeps_its_output() {
    let (_home, daemon) = daemon(&service("a", "echo started; exec sleep 600", "backoff_start_ms: 10"));
    let mut client = daemon.client();
    let before = wait_for(&mut client, "a", ServiceState::Running);
    wait_until("it has printed", || (printed(&mut client, "a") == ["started"]).then_some(()));
    let os_pid = client
        .ps()
        .expect("answers")
        .into_iter()
        .find(|p| Some(p.pid) == before.pid)
        .expect("it lives")
        .os_pid;
    let killed = Instant::now();
    kill(nix::unistd::Pid::from_raw(os_pid as i32), Signal::SIGKILL).expect("it runs");
    let again = wait_until("it runs again", || {
        Some(status(&mut client, "a").service)
            .filter(|s| s.state == ServiceState::Running && s.pid > before.pid)
    });
    eprintln!("a service that was killed ran again after {:?}", killed.elapsed());
    assert_eq!((again.restarts, again.status), (1, Some(137)));
    wait_until("both starts are in its output", || {
        (printed(&mut client, "a") == ["started", "started"]).then_some(())
    });
}

#[test]
fn service_that_always_fails_reaches_its_limit() {
    // On no machine do the starts take so long that the first one counts no more.
    let rules = "backoff_start_ms: 5, start_limit_burst: 3, start_limit_interval_ms: 600000";
    let (_home, daemon) = daemon(&service("a", "echo trying >&2; exit 4", rules));
    let mut client = daemon.client();
    let info = wait_for(&mut client, "a", ServiceState::Failed);
    let reason = "started 3 times within 600000 ms, which is its start limit; it last ended with status 4";
    assert_eq!(info.reason.as_deref(), Some(reason));
    assert_eq!(printed(&mut client, "a"), ["trying"; 3]);
    let fault = client.call(ServiceStart { name: "a".into(), transient: None });
    assert!(fault.is_ok(), "its program starts, whatever becomes of it then");
}

#[test]
fn service_is_stopped_and_started_and_restarted() {
    let (_home, daemon) =
        daemon(&service("a", "trap '' INT TERM; echo trapped; while :; do sleep 0.1; done", ""));
    let mut client = daemon.client();
    let first = wait_for(&mut client, "a", ServiceState::Running);
    let restarted = match client.call(ServiceRestart { name: "a".into() }).expect("it is the caller's") {
        Reply::Service(info) => info,
        other => panic!("unexpected {other:?}"),
    };
    assert!(restarted.state == ServiceState::Running && restarted.pid > first.pid);
    wait_until("it ignores TERM", || {
        let program = status(&mut client, "a").program.expect("it is the caller's");
        program.output.lines.iter().any(|line| Some(line.pid) == restarted.pid).then_some(())
    });
    match client.call(ServiceStop { name: "a".into() }).expect("it is the caller's") {
        Reply::Service(info) => assert_eq!((info.state, info.status), (ServiceState::Inactive, Some(137))),
        other => panic!("unexpected {other:?}"),
    }
    assert!(client.ps().expect("answers").iter().all(|process| process.name != "a"));
}

#[test]
fn configuration_that_is_read_again_adds_and_removes_services() {
    let (home, daemon) = daemon(&service("old", "exec sleep 600", ""));
    let mut client = daemon.client();
    wait_for(&mut client, "old", ServiceState::Running);
    configure(&home, &service("new", "exec sleep 600", ""));
    daemon.signal(Signal::SIGHUP);
    wait_until("the old one is gone and the new one runs", || {
        let list = list(&mut client);
        (list.len() == 1 && list[0].name == "new" && list[0].state == ServiceState::Running).then_some(())
    });
}

#[test]
fn configuration_with_a_circle_is_refused_with_its_names() {
    let home = Home::new("exit 1");
    configure(&home, &(service("a", "x", r#"after: ["b"]"#) + &service("b", "x", r#"requires: ["a"]"#)));
    let config = home.path("config.ron");
    let output = llmasos().args(["daemon", "--config"]).arg(config).output().expect("runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("in a circle: a → b → a"), "{error}");
}
