//! Training as a process of the daemon: it is listed, stopped, continued and ended like any other, and it outlives the
//! daemon.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use harness::process;
use harness::{Daemon, exit_code, wait_until};
use nix::sys::signal::Signal as SystemSignal;
use syscalls::Pid;
use syscalls::call::{AtLimit, Class, Limit, Setlimit, Setpriority, Signal};
use syscalls::client::blocking::Client;
use syscalls::reply::{ProcessInfo, ProcessState};

/// A run that takes some seconds, and as many steps as are wanted.
fn spec(daemon: &Daemon, name: &str, steps: u32) -> PathBuf {
    let text: String =
        (0..400).map(|n| format!("line {n} of a text that says what line {n} says\n")).collect();
    fs::write(daemon.dir().join("text.txt"), text).unwrap();
    let (folder, path) = (daemon.dir().display(), daemon.dir().join(format!("{name}.ron")));
    let spec = format!(
        r#"(
    model: Gpt(layers: 2, heads: 2, width: 32, context: 16),
    data: (train: Text(["{folder}/text.txt"])),
    tokeniser: (kind: Train(Char)),
    batch: 4,
    steps: {steps},
    checkpoint: (every: 50),
    threads: 1,
    out: "{folder}/{name}",
)"#
    );
    fs::write(&path, spec).unwrap();
    path
}

fn train(daemon: &Daemon, name: &str, steps: u32, options: &[&str]) -> Child {
    let mut command = daemon.command("llmasos");
    command
        .arg("train")
        .arg(spec(daemon, name, steps))
        .args(["--quiet", "--cache"])
        .arg(daemon.dir().join("cache"));
    command.args(options).stdin(Stdio::null()).spawn().unwrap()
}

/// What `ps` has of the runs, the one that began first before the others.
fn runs(client: &mut Client) -> Vec<ProcessInfo> {
    client.ps().unwrap().into_iter().filter(|p| p.name == "train").collect()
}

/// Waits until a run has computed for so many microseconds more.
fn computes(client: &mut Client, pid: Pid, us: u64) {
    let service =
        |client: &mut Client| runs(client).into_iter().find(|p| p.pid == pid).map_or(0, |p| p.service_us);
    let before = service(client);
    wait_until("the run computes", || service(client) >= before + us);
}

#[test]
fn run_is_a_process_of_class_batch_that_stops_and_goes_on() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let mut first = train(&daemon, "first", 100_000, &[]);
    wait_until("the run is listed", || runs(&mut client).len() == 1);
    let pid = runs(&mut client)[0].pid;
    assert_eq!(runs(&mut client)[0].class, Class::Batch);
    computes(&mut client, pid, 50_000);
    let mut second = train(&daemon, "second", 100_000, &[]);
    wait_until("both are listed", || runs(&mut client).len() == 2);
    let other = runs(&mut client).iter().find(|p| p.pid != pid).unwrap().pid;
    client.kill(pid, Signal::Stop).unwrap();
    // The quantum that it had is over when the other has had some.
    computes(&mut client, other, 200_000);
    let stopped = runs(&mut client).into_iter().find(|p| p.pid == pid).unwrap();
    assert_eq!(stopped.state, ProcessState::Stopped);
    computes(&mut client, other, 200_000);
    let still = runs(&mut client).into_iter().find(|p| p.pid == pid).unwrap();
    assert_eq!(still.service_us, stopped.service_us, "it computes although it is stopped");
    client.kill(pid, Signal::Cont).unwrap();
    computes(&mut client, pid, 50_000);
    for (pid, child) in [(pid, &mut first), (other, &mut second)] {
        client.kill(pid, Signal::Term).unwrap();
        assert_eq!(exit_code(child.wait().unwrap()), 143);
    }
    for name in ["first", "second"] {
        assert!(
            daemon.dir().join(name).join("checkpoints/last").exists(),
            "{name} has something to go on from"
        );
    }
}

#[test]
fn run_that_its_process_ended_goes_on_where_it_was() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let mut child = train(&daemon, "run", 1_000_000, &[]);
    wait_until("the run is listed", || runs(&mut client).len() == 1);
    let pid = runs(&mut client)[0].pid;
    computes(&mut client, pid, 20_000);
    client.kill(pid, Signal::Kill).unwrap();
    assert_eq!(exit_code(child.wait().unwrap()), 143);
    let last = fs::read_link(daemon.dir().join("run/checkpoints/last")).unwrap();
    let was = last.to_str().unwrap().trim_start_matches("step-").parse::<u32>().unwrap();
    let steps = was + 50;
    let resumed = train(&daemon, "run", steps, &["--resume"]).wait().unwrap();
    assert_eq!(exit_code(resumed), 0);
    let log = fs::read_to_string(daemon.dir().join("run/log.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(last["step"], steps, "{last}");
}

#[test]
fn run_outlives_the_daemon() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client();
    let mut child = train(&daemon, "run", 1000, &[]);
    wait_until("the run is listed", || runs(&mut client).len() == 1);
    let pid = runs(&mut client)[0].pid;
    computes(&mut client, pid, 20_000);
    daemon.kill9();
    assert_eq!(exit_code(child.wait().unwrap()), 0);
}

/// The run sees nothing of the time between: when it asks for its next turn, another daemon answers.
#[test]
fn run_becomes_a_process_of_the_daemon_that_was_started_again() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client();
    let mut child = train(&daemon, "run", 1_000_000, &["--nice", "3"]);
    wait_until("the run is listed", || runs(&mut client).len() == 1);
    for _ in 0..2 {
        // Each daemon counts pids anew.
        let pid = runs(&mut client)[0].pid;
        computes(&mut client, pid, 20_000);
        process::kill(child.id(), SystemSignal::SIGSTOP);
        daemon.kill9();
        daemon.restart();
        process::kill(child.id(), SystemSignal::SIGCONT);
        client = daemon.client();
        wait_until("the run is listed again", || runs(&mut client).len() == 1);
        let run = runs(&mut client)[0].clone();
        assert_eq!((run.class, run.nice), (Class::Batch, 3));
        computes(&mut client, run.pid, 20_000);
        assert!(child.try_wait().unwrap().is_none(), "it goes on");
    }
    let run = runs(&mut client)[0].clone();
    client.kill(run.pid, Signal::Kill).unwrap();
    assert_eq!(exit_code(child.wait().unwrap()), 143, "this daemon has ended it");
}

/// Two runs, of which one is to get more; what each of them has computed when that one has had a second.
fn shares(options: [&[&str]; 2]) -> [u64; 2] {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let mut children = ["more", "less"].map(|name| {
        let options = options[usize::from(name == "less")];
        train(&daemon, name, 1_000_000, options)
    });
    wait_until("both are listed", || runs(&mut client).len() == 2);
    let pids = children.each_ref().map(|child| {
        let of = |run: &ProcessInfo| run.os_pid == child.id();
        runs(&mut client).into_iter().find(of).unwrap().pid
    });
    let service = |client: &mut Client| {
        let list = runs(client);
        pids.map(|pid| list.iter().find(|p| p.pid == pid).unwrap().service_us)
    };
    pids.iter().for_each(|pid| computes(&mut client, *pid, 20_000));
    let before = service(&mut client);
    computes(&mut client, pids[0], 1_000_000);
    let after = service(&mut client);
    children.iter_mut().for_each(|child| child.kill().unwrap());
    children.iter_mut().for_each(|child| assert!(child.wait().is_ok()));
    [0, 1].map(|run| after[run] - before[run])
}

/// Each step of a nice value is about a quarter of what a process gets, so twelve are fourteen times.
#[test]
fn run_with_a_lower_nice_value_gets_more_of_the_device() {
    let [more, less] = shares([&["--nice", "0"], &["--nice", "12"]]);
    // On a machine that has much else to do, turns end late, and part of what is due to either is nobody's.
    assert!(more > 2 * less, "{more} µs against {less}");
}

/// A class below others computes when these do not, such as between their turns.
#[test]
fn run_of_a_higher_class_goes_before_one_of_batch() {
    let [more, less] = shares([&["--class", "normal"], &[]]);
    assert!(more > 2 * less, "{more} µs against {less}");
}

#[test]
fn run_that_has_used_up_its_time_is_stopped_or_ended_with_a_checkpoint() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let mut child = train(&daemon, "run", 1_000_000, &[]);
    wait_until("the run is listed", || runs(&mut client).len() == 1);
    let pid = runs(&mut client)[0].pid;
    computes(&mut client, pid, 50_000);
    let limit = |client: &mut Client, more: u64, then: AtLimit| {
        let value = runs(client)[0].service_us + more;
        client.call(Setlimit { pid, limit: Limit::ServiceUs, value: Some(value), then: Some(then) }).unwrap();
        value
    };
    let most = limit(&mut client, 300_000, AtLimit::Stop);
    wait_until("it is stopped", || runs(&mut client)[0].state == ProcessState::Stopped);
    let had = runs(&mut client)[0].service_us;
    assert!(had >= most, "{had} of {most}");
    limit(&mut client, 300_000, AtLimit::Signal);
    client.kill(pid, Signal::Cont).unwrap();
    assert_eq!(exit_code(child.wait().unwrap()), 143);
    assert!(daemon.dir().join("run/checkpoints/last").exists(), "it can be gone on from");
}

/// What a run over ranks is, is said by its command line alone: a specification that needs two would be refused by one.
#[test]
fn run_over_ranks_is_started_by_the_daemon_and_goes_on_when_it_was_killed() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client();
    let spec = spec(&daemon, "run", 1_000_000);
    let spec = spec.to_str().unwrap();
    let two = ["train", "--detach", spec, "--set", "ranks.tensor=2", "--ranks", "2", "--nice", "4"];
    let started = daemon.llmasos(two);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let pid = Pid(String::from_utf8_lossy(&started.stdout).trim().parse().unwrap());
    computes(&mut client, pid, 50_000);
    let run = runs(&mut client)[0].clone();
    assert_eq!((run.class, run.nice), (Class::Batch, 4));
    let last = daemon.dir().join("run/checkpoints/last");
    wait_until("there is a checkpoint", || last.exists());
    daemon.kill9();
    daemon.restart();
    let mut client = daemon.client();
    wait_until("the run is there again", || runs(&mut client).iter().any(|p| p.pid == pid));
    computes(&mut client, pid, 50_000);
    client.kill(pid, Signal::Term).unwrap();
    wait_until("it has ended", || runs(&mut client).is_empty());
    let refused = daemon.llmasos(["train", "--detach", spec, "--ranks", "0"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("--ranks"), "{said}");
}

#[test]
fn run_that_is_detached_goes_on_from_its_checkpoint_when_the_daemon_was_killed() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client();
    // Few enough for each step to have an entry of its own.
    let spec = spec(&daemon, "run", 10_000);
    let started = daemon.llmasos(["train", "--detach", spec.to_str().unwrap()]);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let pid = Pid(String::from_utf8_lossy(&started.stdout).trim().parse().unwrap());
    client.call(Setpriority { pid, class: None, nice: Some(7) }).unwrap();
    let folder = daemon.dir().join("run");
    let last = || fs::read_link(folder.join("checkpoints/last")).ok();
    wait_until("there is a checkpoint", || last().is_some());
    daemon.kill9();
    let before = last();
    daemon.restart();
    let mut client = daemon.client();
    wait_until("the run is there again", || runs(&mut client).iter().any(|p| p.pid == pid));
    assert_eq!(runs(&mut client)[0].nice, 7);
    wait_until("it gets on", || last() != before);
    let log = fs::read_to_string(folder.join("log.jsonl")).unwrap();
    let steps: Vec<u64> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|entry| entry["event"] == "step")
        .map(|entry| entry["step"].as_u64().unwrap())
        .collect();
    let whole = steps.iter().enumerate().all(|(at, step)| *step == at as u64 + 1);
    assert!(whole, "no step is told twice, and none is missing: {steps:?}");
    client.kill(pid, Signal::Term).unwrap();
    wait_until("it has ended", || runs(&mut client).is_empty());
    // One that was ended by somebody is not started again.
    daemon.kill9();
    daemon.restart();
    let mut client = daemon.client();
    assert!(runs(&mut client).is_empty());
}

#[test]
fn run_that_is_detached_is_started_by_the_daemon_and_needs_nobody() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let spec = spec(&daemon, "run", 1_000_000);
    let refused = daemon.llmasos(["train", "--detach", spec.to_str().unwrap(), "--set", "stepss=3"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("`steps`"), "{said}");
    let started = daemon.llmasos(["train", "--detach", spec.to_str().unwrap()]);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let pid = Pid(String::from_utf8_lossy(&started.stdout).trim().parse().unwrap());
    assert_eq!(runs(&mut client)[0].class, Class::Batch);
    computes(&mut client, pid, 50_000);
    wait_until("`top` draws its loss", || {
        let seen = String::from_utf8(daemon.llmasos(["top", "-n", "1"]).stdout).unwrap();
        seen.contains(&format!("{pid} {}", daemon.dir().join("run").display())) && seen.contains('█')
    });
    client.kill(pid, Signal::Stop).unwrap();
    let stopped = runs(&mut client)[0].clone();
    assert_eq!(stopped.state, ProcessState::Stopped);
    client.kill(pid, Signal::Cont).unwrap();
    computes(&mut client, pid, 50_000);
    client.kill(pid, Signal::Term).unwrap();
    wait_until("it has ended", || runs(&mut client).is_empty());
    let last = daemon.dir().join("run/checkpoints/last");
    wait_until("its checkpoint is there", || last.join("manifest.json").exists());
    let spec = spec.to_str().unwrap();
    let resumed = daemon.llmasos(["train", "--detach", spec, "--resume", "--set", "steps=1"]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
}
