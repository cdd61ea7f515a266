//! Traces of real programs, and their replay: against the daemon's model and against the kernel's core alone.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use harness::{Daemon, exit_code, starter, stdout, wait_for};
use serde_json::Value;
use syscalls::call::{Append, Generate, Kill, Mount, Signal};
use syscalls::client::mount;
use syscalls::reply::ProcessState;

const SIM: &str = "template=chatml,eos=50,step_us=100";

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Records a whole program, and gives the file.
fn record(daemon: &Daemon, name: &str, program: &[&str]) -> PathBuf {
    let output = daemon.llmasos([&["trace", "-t", "-f", "-o", name, "--"], program].concat());
    assert_eq!(exit_code(output.status), 0, "{}", stderr(&output));
    daemon.dir().join(name)
}

/// Changes one token of the last generation in a recording.
fn alter(recording: &Path, altered: &Path) -> usize {
    let text = fs::read_to_string(recording).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let generated = lines.iter_mut().rev().find(|l| l["result"]["generated"]["tokens"].is_array()).unwrap();
    let tokens = generated["result"]["generated"]["tokens"].as_array_mut().unwrap();
    let at = tokens.len() / 2;
    tokens[at] = Value::from(if tokens[at] == 98 { 99 } else { 98 });
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(altered, text).unwrap();
    at + 1
}

#[test]
fn recording_of_an_application_replays_identically_and_an_altered_token_is_named() {
    let daemon = Daemon::start();
    daemon.mount_sim("m", SIM);
    fs::write(daemon.dir().join("doc.txt"), "The cat sat on the mat. The dog slept.").unwrap();
    let file = record(&daemon, "run.jsonl", &["summariser", "--words", "5", "doc.txt"]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "prompts are in it");
    for target in [&["replay", "run.jsonl"][..], &["replay", "--sim", "run.jsonl"]] {
        let shown = stdout(daemon.llmasos(target));
        assert!(shown.starts_with("identical: "), "{target:?}: {shown}");
        let tokens: u64 = shown.split_whitespace().nth(3).unwrap().parse().unwrap();
        assert!(tokens > 0, "{target:?}: {shown}");
    }
    let at = alter(&file, &daemon.dir().join("altered.jsonl"));
    for target in [&["replay", "altered.jsonl"][..], &["replay", "--sim", "altered.jsonl"]] {
        let output = daemon.llmasos(target);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(exit_code(output.status), 1, "{target:?}: {shown}");
        assert!(
            shown.contains("generate on context") && shown.contains(&format!("token {at} of")),
            "{shown}"
        );
        assert!(shown.contains("recorded 9") && shown.contains("now "), "{shown}");
    }
    let output = daemon.llmasos(["replay", "--json", "altered.jsonl"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["identical"], false);
}

#[test]
fn recording_of_a_real_model_replays_on_the_daemon_and_not_in_the_simulation() {
    let daemon = Daemon::start();
    // The replay finds the prompt's beginning in memory, so its steps have other rows: on other mounts they round differently.
    let starter = starter();
    let mount = Mount { deterministic: true, ..mount(starter.to_str().unwrap(), "starter") };
    daemon.client().mount_with(mount, |_| {}).unwrap();
    let program = ["generate", "--raw", "--seed", "3", "-n", "12", "It was a dark night, and"];
    record(&daemon, "run.jsonl", &[&["llmasos"], &program[..]].concat());
    let shown = stdout(daemon.llmasos(["replay", "run.jsonl"]));
    assert!(shown.starts_with("identical: ") && shown.contains(" 12 tokens"), "{shown}");
    let output = daemon.llmasos(["replay", "--sim", "run.jsonl"]);
    assert!(stderr(&output).contains("no simulated model"), "{}", stderr(&output));
}

#[test]
fn recording_of_a_process_that_runs_begins_with_what_it_holds() {
    let daemon = Daemon::start();
    daemon.mount_sim("m", "step_us=100");
    let mut client = daemon.client();
    let context = client.open(None).unwrap().context;
    client.append_text(context, "before the trace").unwrap();
    let mut tracer = daemon.command("llmasos");
    let mut tracer = tracer.args(["trace", "-o", "run.jsonl", &client.pid().to_string()]).spawn().unwrap();
    let pid = wait_for("the tracer", || {
        let list = client.ps().unwrap();
        list.iter().find(|p| p.name == "trace" && p.state == ProcessState::Blocked).map(|p| p.pid)
    });
    let copy = client.fork(context, 1).unwrap()[0];
    let text = Some(" and after it".to_owned());
    client.append(Append { context: copy, text, tokens: None, messages: None, special: false }).unwrap();
    let generate = serde_json::json!({"context": copy, "max_tokens": 30});
    client.generate(serde_json::from_value::<Generate>(generate).unwrap(), |_| {}).unwrap();
    client.call(Kill { pid, signal: Signal::Int }).unwrap();
    assert!(tracer.wait().unwrap().success());
    for target in [&["replay", "run.jsonl"][..], &["replay", "--sim", "run.jsonl"]] {
        let shown = stdout(daemon.llmasos(target));
        assert!(shown.starts_with("identical: 3 calls, 30 tokens\n"), "{target:?}: {shown}");
        assert!(shown.contains("kill 1"), "what was left out is said: {shown}");
    }
}

#[test]
fn recording_that_is_torn_of_another_version_or_another_model_is_refused_in_a_sentence() {
    let daemon = Daemon::start();
    daemon.mount_sim("m", "seed=1");
    let file = record(&daemon, "run.jsonl", &["llmasos", "generate", "--raw", "-n", "5", "once"]);
    let whole = fs::read_to_string(&file).unwrap();
    let refused = |text: &str| {
        fs::write(&file, text).unwrap();
        let output = daemon.llmasos(["replay", "run.jsonl"]);
        assert_eq!(exit_code(output.status), 1);
        let said = stderr(&output);
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    assert!(refused(&whole[..whole.len() - 20]).contains("is torn"));
    assert!(refused(&whole.replacen("\"recording\":1", "\"recording\":7", 1)).contains("of version 7"));
    assert!(refused("no recording\n").contains("is no recording"));
    let unknown = whole.replacen("{\"generated\":", "{\"produced\":", 1);
    assert_ne!(unknown, whole);
    assert!(refused(&unknown).contains("has a reply to generate that is not known"));
    daemon.client().unmount("m", false).unwrap();
    daemon.mount_sim("m", "seed=2");
    assert!(refused(&whole).contains("recorded with another model than is mounted here: m was sim:seed=1"));
}

#[test]
fn trace_of_a_program_shows_its_calls_and_has_its_status() {
    let daemon = Daemon::start();
    daemon.mount_sim("m", "");
    let output = daemon.llmasos(["trace", "-t", "--", "llmasos", "generate", "--raw", "-n", "4", "once"]);
    let (text, lines) = (String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output));
    assert_eq!(exit_code(output.status), 0, "{lines}");
    assert_eq!(text.len(), 4, "the program has standard output to itself: {text:?}");
    for expected in [
        "open(",
        "append(context=",
        "text=\"once\"",
        "generate(context=",
        "token(context=",
        "+++ exited with",
    ] {
        assert!(lines.contains(expected), "{expected} is missing:\n{lines}");
    }
    assert_eq!(exit_code(daemon.llmasos(["trace", "--", "sh", "-c", "exit 5"]).status), 5);
    assert_eq!(exit_code(daemon.llmasos(["trace", "--", "no-such-program"]).status), 127);
    let log = daemon.log();
    assert!(!log.contains("once"), "a prompt is in the log:\n{log}");
}
