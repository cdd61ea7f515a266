//! `llmasos timeline` on a real daemon.

use std::process::Stdio;

use harness::{Daemon, wait_for, wait_until};
use serde_json::Value;
use syscalls::call::{Kill, Signal};
use syscalls::reply::ProcessState;

/// The events of a timeline file.
fn events(daemon: &Daemon, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(daemon.dir().join(name)).expect("the file was written");
    let trace: Value = serde_json::from_str(&text).expect("it is JSON");
    trace.as_array().expect("it is a list of events").clone()
}

#[test]
fn timeline_of_a_daemon_has_its_steps_and_processes() {
    let daemon = Daemon::start();
    daemon.mount_sim("m", "step_us=500");
    let mut recorder = daemon.command("llmasos");
    recorder.args(["timeline", "run.json"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let recorder = recorder.spawn().expect("llmasos can be started");
    let mut client = daemon.client();
    let watcher = wait_for("the subscription", || {
        let list = client.ps().expect("the daemon serves");
        list.iter().find(|p| p.name == "timeline" && p.state == ProcessState::Blocked).map(|p| p.pid)
    });
    let context = client.open(None).expect("it opens").context;
    client.append_text(context, "a timeline shows what happened").expect("it fits");
    let generate = serde_json::from_value(serde_json::json!({"context": context, "max_tokens": 20}));
    client.generate(generate.expect("it is a call"), |_| {}).expect("it generates");
    client.call(Kill { pid: watcher, signal: Signal::Int }).expect("the recorder is there");
    let output = recorder.wait_with_output().expect("it ends");
    assert!(harness::stdout(output).contains("20 steps in"));
    let events = events(&daemon, "run.json");
    let lines: Vec<_> =
        events.iter().filter(|e| e["name"] == "thread_name").map(|e| &e["args"]["name"]).collect();
    assert!(lines.contains(&&Value::from("m: steps")), "{lines:?}");
    assert!(lines.iter().any(|l| l.as_str().is_some_and(|l| l.starts_with("test ("))), "{lines:?}");
    let decode = events.iter().filter(|e| e["name"] == "decode 1" && e["ph"] == "X" && e["pid"] == 1);
    assert_eq!(decode.count(), 19, "the first token comes with the prompt");
}

#[test]
fn timeline_of_a_daemon_that_is_killed_has_what_came_until_then() {
    let mut daemon = Daemon::start();
    daemon.mount_sim("m", "step_us=500");
    let mut recorder = daemon.command("llmasos");
    recorder.args(["timeline", "cut.json"]).stdin(Stdio::null()).stderr(Stdio::piped());
    let recorder = recorder.spawn().expect("llmasos can be started");
    let mut client = daemon.client();
    wait_until("the subscription", || {
        let list = client.ps().expect("the daemon serves");
        list.iter().any(|p| p.name == "timeline" && p.state == ProcessState::Blocked)
    });
    let context = client.open(None).expect("it opens").context;
    client.append_text(context, "until it is killed").expect("it fits");
    let generate = serde_json::from_value(serde_json::json!({"context": context, "max_tokens": 5}));
    client.generate(generate.expect("it is a call"), |_| {}).expect("it generates");
    let written = daemon.dir().join("cut.json");
    // Not ended yet, it is a list without its end already.
    wait_until("the steps are in the file", || {
        std::fs::read_to_string(&written).is_ok_and(|text| text.matches("\"decode 1\"").count() >= 4)
    });
    daemon.kill9();
    let output = recorder.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "it says that the daemon has gone");
    assert!(events(&daemon, "cut.json").iter().any(|e| e["name"] == "decode 1"));
}

#[test]
fn timeline_ends_after_its_time_and_leaves_a_file_that_can_be_read() {
    let daemon = Daemon::start();
    let output = daemon.llmasos(["timeline", "idle.json", "--seconds", "1"]);
    assert!(harness::stdout(output).contains("0 steps in"));
    assert!(!events(&daemon, "idle.json").is_empty());
    let output = daemon.llmasos(["timeline", "no/such/folder.json", "--seconds", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no/such/folder.json cannot be written"));
    wait_until("the recorder's end", || {
        daemon.client().ps().is_ok_and(|list| list.iter().all(|p| p.name != "timeline"))
    });
}
