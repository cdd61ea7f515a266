//! Persistent processes and a daemon that is killed for real, with SIGKILL, at random moments under load.
//!
//! `LLMASOS_TEST_KILLS=200` kills it so often (`make kills` does); `LLMASOS_TEST_SEED` chooses other moments.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::{Duration, Instant};

use harness::{Daemon, stdout, wait_for, wait_until};
use syscalls::call::{Attach, Exit, Follow, Generate, Hello, Lifetime, Ps, ReadTokens, Sampling, Spawn};
use syscalls::client::blocking::Client;
use syscalls::client::{hello, spawn};
use syscalls::reply::{GeneratedReply, ModelState, ProcessState};
use syscalls::{ContextId, Pid, Reply, Token, Tokens};

/// Kills of a normal run.
const KILLS: usize = 40;

/// What a restart may take until it serves.
const RESTART_MAX: Duration = Duration::from_secs(2);

/// Persistent processes that generate at once, and tokens of each.
const PROCESSES: u64 = 6;
const TOKENS: u32 = 150;

/// A model whose steps take long enough to be killed in.
const MODEL: &str = "step_us=1500,context=1024,pool=2048,sequences=8";

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn connect(daemon: &Daemon, name: &str, lifetime: Lifetime) -> Client {
    Client::connect_with(&daemon.socket(), Hello { lifetime, ..hello(name) }).unwrap()
}

fn generate(context: ContextId, seed: u64) -> Generate {
    Generate {
        context,
        max_tokens: Some(Tokens(TOKENS)),
        stop: vec![],
        sampling: Sampling { seed: Some(seed), ..Sampling::default() },
        ignore_eos: true,
        logprobs: None,
        stream: true,
        deadline_ms: None,
    }
}

/// Lets process number n begin, and leaves it.
fn begin(daemon: &Daemon, n: u64) -> Pid {
    let mut client = connect(daemon, "story", Lifetime::Persistent);
    let context = client.open(None).unwrap().context;
    client.append_text(context, &format!("Story number {n}, and what came of it: ")).unwrap();
    client.start(generate(context, n)).unwrap();
    let pid = client.pid();
    client.detach(None).unwrap();
    pid
}

/// What process number n has said, and its log, when it is done.
fn read(daemon: &Daemon, pid: Pid) -> (GeneratedReply, Vec<Token>) {
    let mut client = daemon.client();
    let Reply::Attached(attached) = client.call(Attach { pid, force: true }).unwrap() else { panic!() };
    let id = client.start_as(pid, Follow { call: attached.calls[0].ticket, replay: false }).unwrap();
    let Reply::Generated(reply) = client.finish(id, |_| {}).unwrap() else { panic!() };
    let context = attached.contexts[0].context;
    let all = ReadTokens { context, from: Tokens(0), to: None };
    let Reply::Tokens(log) = client.call_as(pid, all).unwrap() else { panic!() };
    client.call_as(pid, Exit { status: 0 }).unwrap();
    (GeneratedReply { usage: Default::default(), ..reply }, log)
}

/// Starts an app that has started another one, both with the daemon's folder in their command lines.
fn start_app(client: &mut Client, daemon: &Daemon) {
    let waits = format!("sleep 600; : {}", daemon.dir().display());
    let argv = vec!["/bin/sh".into(), "-c".into(), format!("sh -c '{waits}' & {waits}")];
    client.call(Spawn { argv, ..spawn("app") }).unwrap();
}

/// The command lines of what the daemon has started and is still there: each has the daemon's folder in it.
fn started(daemon: &Daemon) -> Vec<String> {
    let (folder, own) = (daemon.dir().to_str().unwrap(), daemon.os_pid().to_string());
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().into_string().ok());
    let line = |pid: String| {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    pids.filter(|pid| *pid != own).map(line).filter(|line| line.contains(folder)).collect()
}

fn generated(daemon: &Daemon) -> u64 {
    daemon.client().stat(None, None).map_or(0, |s| s.tokens_generated)
}

#[test]
fn streams_after_kills_of_the_daemon_equal_the_uninterrupted_ones() {
    let from_env = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let wanted = from_env("LLMASOS_TEST_KILLS").map_or(KILLS, |n| n as usize);
    let seed = from_env("LLMASOS_TEST_SEED").unwrap_or(1);
    println!("seed {seed}");
    let mut chance = Chance(seed);
    let undisturbed = Daemon::start();
    undisturbed.mount_sim("m", MODEL);
    let pids: Vec<Pid> = (0..PROCESSES).map(|n| begin(&undisturbed, n)).collect();
    let expected: Vec<_> = pids.iter().map(|pid| read(&undisturbed, *pid)).collect();
    drop(undisturbed);

    let mut daemon = Daemon::start();
    daemon.mount_sim("m", MODEL);
    let (mut kills, mut rounds, mut with_worker) = (0, 0, 0);
    let (mut slowest, mut longest_left) = (Duration::ZERO, Duration::ZERO);
    while kills < wanted {
        let pids: Vec<Pid> = (0..PROCESSES).map(|n| begin(&daemon, n)).collect();
        while kills < wanted && !all_done(&daemon, &pids) {
            // Two that do not outlive the daemon have their part in the load.
            let mut other = connect(&daemon, "other", Lifetime::Connection);
            start_app(&mut other, &daemon);
            let began = other.open(None).and_then(|opened| {
                other.append_text(opened.context, "x")?;
                other.start(generate(opened.context, 9))
            });
            assert!(began.is_ok(), "{began:?}");
            let until = generated(&daemon) + chance.below(150);
            wait_until("tokens", || generated(&daemon) >= until || all_done(&daemon, &pids));
            let ran = started(&daemon);
            assert!(!ran.is_empty(), "no app runs");
            with_worker += u64::from(ran.iter().any(|line| line.contains("llmasos-driver")));
            daemon.kill9();
            let begun = Instant::now();
            wait_until("the end of workers and apps", || started(&daemon).is_empty());
            longest_left = longest_left.max(begun.elapsed());
            let begun = Instant::now();
            let twice = chance.below(5) == 0;
            if twice {
                // In the middle of its start.
                daemon.restart_and_kill(Duration::from_micros(chance.below(40_000)));
                kills += 1;
            }
            daemon.restart();
            slowest = slowest.max(begun.elapsed());
            kills += 1;
            let list = daemon.client().call(Ps { all: true }).unwrap();
            let Reply::Processes(list) = list else { panic!() };
            assert!(pids.iter().all(|pid| list.iter().any(|p| p.pid == *pid)), "one is lost");
            for name in ["other", "app"] {
                let found: Vec<_> = list.iter().filter(|p| p.name == name).collect();
                assert!(found.iter().all(|p| p.state == ProcessState::Dead), "it runs again: {found:?}");
                // It is told of once, perhaps by a daemon that was killed in the middle of its start.
                let told = if twice { 0..=1 } else { 1..=1 };
                assert!(told.contains(&found.len()), "{name} is told of {} times", found.len());
            }
        }
        for (pid, expected) in pids.iter().zip(&expected) {
            assert_eq!(&read(&daemon, *pid), expected, "process {pid} after {kills} kills");
        }
        rounds += 1;
    }
    let value = format!(
        "{kills}; restarts served after {} ms at most; {} streams of {TOKENS} tokens, all equal; workers and apps gone after {} ms at most",
        slowest.as_millis(),
        rounds * PROCESSES,
        longest_left.as_millis()
    );
    harness::figure("kills of the daemon", &value);
    harness::promised("a restart", slowest, RESTART_MAX);
    assert!(with_worker > 0, "no worker ran when the daemon was killed");
    let stats = daemon.client().stat(None, None).unwrap();
    assert_eq!((stats.contexts, stats.frames_free + stats.frames_cached), (0, stats.frames_total));
}

fn all_done(daemon: &Daemon, pids: &[Pid]) -> bool {
    let list = daemon.client().ps().unwrap();
    pids.iter().all(|pid| list.iter().any(|p| p.pid == *pid && p.tokens_generated == u64::from(TOKENS)))
}

#[test]
fn daemon_that_is_asked_to_end_keeps_persistent_processes_and_exits_with_0() {
    let mut daemon = Daemon::start();
    daemon.mount_sim("m", MODEL);
    let expected = read(&daemon, begin(&daemon, 3));
    let pid = begin(&daemon, 3);
    let before = generated(&daemon);
    wait_until("some tokens", || generated(&daemon) > before + 20);
    assert_eq!(daemon.terminate().code(), Some(0));
    daemon.restart();
    assert_eq!(read(&daemon, pid), expected);
}

#[test]
fn generation_left_by_its_user_is_read_later_by_another_command() {
    let mut daemon = Daemon::start();
    daemon.mount_sim("m", MODEL);
    let args = ["generate", "--raw", "-n", "200", "--ignore-eos", "--temperature", "0"];
    let text = stdout(daemon.llmasos(args.iter().chain(&["a story"])));
    let pid = stdout(daemon.llmasos(args.iter().chain(&["--detach", "--persistent", "a story"])));
    let pid = pid.trim();
    let listed = stdout(daemon.llmasos(["ps"]));
    let row = listed.lines().find(|line| line.split_whitespace().next() == Some(pid)).unwrap();
    assert!(row.split_whitespace().any(|cell| cell == "P"), "{row}");
    daemon.kill9();
    daemon.restart();
    assert_eq!(stdout(daemon.llmasos(["attach", "--end", pid])), text);
    let output = daemon.llmasos(["attach", pid]);
    assert_eq!(output.status.code(), Some(1), "it has ended");
}

#[test]
fn journal_of_a_newer_version_is_kept_and_said() {
    let mut daemon = Daemon::start();
    daemon.mount_sim("m", MODEL);
    begin(&daemon, 1);
    daemon.kill9();
    let path = daemon.data().join("processes");
    let mut bytes = fs::read(&path).unwrap();
    bytes[12] += 1;
    fs::write(&path, &bytes).unwrap();
    daemon.restart();
    assert!(daemon.log().contains("has version 3 and this daemon knows 2"), "{}", daemon.log());
    assert_eq!(fs::read(daemon.data().join("processes.damaged-1")).unwrap(), bytes);
    wait_for("the model", || {
        let models = daemon.client().models().unwrap();
        models.iter().any(|m| m.state == ModelState::Ready).then_some(())
    });
    read(&daemon, begin(&daemon, 1));
}
