//! Models whose contexts are kept or lost as a whole, a recurrent one and one with sliding windows: memory that lacks,
//! copies, signals, kills and full contexts change nothing of what they say.
//!
//! The models are of random weights. Attention is the plain kernel, and weights are floats, so that what is computed again
//! is what it was but for the last bits.

use std::sync::Barrier;

use drivers::gguf::TensorType;
use drivers::gguf::random::{Family, Shape};
use harness::bench::random::Random;
use harness::said::{ROUNDING, Said, assert_same_but_for_ties, greedy, measured, say};
use harness::{DEADLINE, Daemon, process, wait_for, wait_until};
use nix::sys::signal::Signal as SystemSignal;
use syscalls::call::{
    AtLimit, Attach, Attention, Exit, Follow, Fork, Hello, Lifetime, Limit, Mount, OnFull, Open, ReadTokens,
    Setlimit, Signal,
};
use syscalls::client::blocking::Client;
use syscalls::client::{hello, mount};
use syscalls::reply::{ModelInfo, ProcessState, Stats};
use syscalls::{ContextId, Event, Pid, Reply, Token, Tokens};

const MODEL: &str = "m";

/// Positions of a page.
const PAGE: u32 = 64;

const FAMILIES: [Family; 2] = [Family::Mamba, Family::Gemma2];

/// Mounts a model anew, with a pool of so many cells; of states there is one for each sequence id.
fn mount_anew(daemon: &Daemon, family: Family, cells: u32) -> ModelInfo {
    let path = daemon.dir().join(format!("{}.gguf", family.name()));
    if !path.exists() {
        let shape = Shape::preset("tiny").expect("the preset exists").of(family);
        let shape = Shape { kind: TensorType::F32, context: 8192, ..shape };
        shape.write(&path).expect("a model can be written");
    }
    let mut client = daemon.client();
    if !client.models().expect("lists").is_empty() {
        client.unmount(MODEL, true).expect("it is mounted");
    }
    let path = path.to_str().expect("UTF-8");
    let (context, attention) = (Some(Tokens(cells)), Attention::Plain);
    let mount = Mount { context, attention, threads: Some(1), ..mount(path, MODEL) };
    client.mount_with(mount, |_| {}).expect("mounts")
}

fn opened(client: &mut Client, begin: Vec<Token>) -> ContextId {
    let context = client.open(Some(MODEL)).expect("opens").context;
    client.append_tokens(context, begin).expect("appends");
    context
}

fn stats(daemon: &Daemon) -> Stats {
    daemon.client().stat(None, Some(MODEL)).expect("counts")
}

fn computed(daemon: &Daemon) -> u64 {
    let stats = stats(daemon);
    stats.prompt_tokens_evaluated + stats.tokens_recomputed
}

fn log_of(client: &mut Client, context: ContextId) -> Vec<Token> {
    match client.call(ReadTokens { context, from: Tokens(0), to: None }) {
        Ok(Reply::Tokens(log)) => log,
        other => panic!("{other:?}"),
    }
}

/// What comes behind a log on a mount that has nothing else to do.
fn alone(daemon: &Daemon, family: Family, log: &[Token], generate: u32) -> Said {
    mount_anew(daemon, family, 64 * PAGE);
    let mut client = daemon.client();
    let context = opened(&mut client, log.to_vec());
    say(&mut client, context, generate)
}

/// Waits until a process has said some tokens of so many.
fn wait_for_tokens(client: &mut Client, pid: Pid, tokens: u64, of: u32) {
    let said = wait_for("its first tokens", || {
        let said = client.stat(Some(pid), None).expect("it is there").tokens_generated;
        (said >= tokens).then_some(said)
    });
    assert!(said < of.into(), "it is done already");
}

/// A conversation of two turns, which takes five pages.
fn conversation(client: &mut Client, seed: u64) -> Vec<Said> {
    let context = opened(client, Random(seed).tokens(100));
    let first = say(client, context, 60);
    client.append_tokens(context, Random(100 + seed).tokens(40)).expect("appends");
    vec![first, say(client, context, 80)]
}

#[test]
fn processes_with_memory_for_two_all_say_what_they_say_alone() {
    let daemon = Daemon::start_configured("(sequences_max: 2)");
    for family in FAMILIES {
        let alone: Vec<_> = (0..6)
            .map(|seed| {
                mount_anew(&daemon, family, 64 * PAGE);
                conversation(&mut daemon.client(), seed)
            })
            .collect();
        mount_anew(&daemon, family, 10 * PAGE);
        let start = Barrier::new(alone.len());
        let together: Vec<_> = std::thread::scope(|scope| {
            let begin = |seed| {
                let (start, mut client) = (&start, daemon.client());
                scope.spawn(move || {
                    start.wait();
                    conversation(&mut client, seed)
                })
            };
            let threads: Vec<_> = (0..6).map(begin).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        for (alone, together) in std::iter::zip(&alone, &together) {
            let same = assert_same_but_for_ties(alone, together, ROUNDING, family.name());
            assert!(same >= 60, "{}: rounding decided all but {same} tokens", family.name());
        }
        let stats = stats(&daemon);
        assert!(stats.tokens_recomputed > 0, "nobody had to go: {stats:?}");
        assert_eq!((stats.swap_out_bytes, stats.swap_in_bytes, stats.worker_restarts), (0, 0, 0));
        assert_eq!((stats.prompt_tokens_shared, stats.tokens_drafted), (0, 0), "{stats:?}");
    }
}

#[test]
fn copies_share_all_of_a_context_or_compute_the_part_and_go_on_as_new_ones() {
    let daemon = Daemon::start();
    for family in FAMILIES {
        mount_anew(&daemon, family, 64 * PAGE);
        let mut client = daemon.client();
        let context = opened(&mut client, Random(7).tokens(200));
        say(&mut client, context, 8);
        let before = computed(&daemon);
        let copies = client.fork(context, 3).expect("forks");
        let mut went_on = |copy: ContextId, seed: u64| {
            client.append_tokens(copy, Random(seed).tokens(10)).expect("appends");
            let log = log_of(&mut client, copy);
            (log, say(&mut client, copy, 24))
        };
        let mut all: Vec<_> = copies.into_iter().zip(20..).map(|(copy, seed)| went_on(copy, seed)).collect();
        // The last token that was said has no entry yet.
        let most = 3 * (10 + 1);
        let took = computed(&daemon) - before;
        assert!(took <= most, "{}: {took} tokens were computed for copies of all", family.name());
        all.push(went_on(context, 30));
        let fork = Fork { context, copies: 1, length: Some(Tokens(100)) };
        let Ok(Reply::Forked { contexts }) = client.call(fork) else { panic!("it forks") };
        client.append_tokens(contexts[0], Random(31).tokens(10)).expect("appends");
        let log = log_of(&mut client, contexts[0]);
        assert_eq!(log.len(), 110);
        all.push((log, say(&mut client, contexts[0], 24)));
        assert!(computed(&daemon) - before >= 100, "the beginning alone cannot be had of a whole");
        for (log, said) in all {
            let expected = alone(&daemon, family, &log, 24);
            assert_same_but_for_ties(&[expected], &[said], ROUNDING, family.name());
        }
    }
}

#[test]
fn process_stopped_and_pushed_out_goes_on_as_if_nothing_had_been() {
    let daemon = Daemon::start_configured("(sequences_max: 1)");
    for family in FAMILIES {
        let (begin, generate) = (Random(8).tokens(150), 200);
        let expected = alone(&daemon, family, &begin, generate);
        mount_anew(&daemon, family, 30 * PAGE);
        let (mut watcher, mut client, mut other) = (daemon.client(), daemon.client(), daemon.client());
        let pid = client.pid();
        let stop_at = |tokens| {
            let (limit, then) = (Limit::GeneratedTokens, Some(AtLimit::Stop));
            Setlimit { pid, limit, value: Some(tokens), then }
        };
        watcher.call(stop_at(40)).expect("it is this user's own");
        // If it is never let go on, it is not waited for without end.
        client.set_timeout(Some(DEADLINE)).expect("a duration");
        let said = std::thread::scope(|scope| {
            let running = scope.spawn(|| {
                let context = opened(&mut client, begin.clone());
                say(&mut client, context, generate)
            });
            wait_until("it is stopped in the midst", || {
                let processes = watcher.ps().expect("lists");
                processes.iter().any(|p| p.pid == pid && p.state == ProcessState::Stopped)
            });
            let context = opened(&mut other, Random(9).tokens(8 * PAGE));
            say(&mut other, context, 8);
            let before = stats(&daemon).tokens_recomputed;
            watcher.call(stop_at(u64::from(generate) + 1)).expect("the daemon's user may");
            watcher.kill(pid, Signal::Cont).expect("it lives");
            let said = running.join().expect("no panic");
            assert!(stats(&daemon).tokens_recomputed > before, "{}: it was not pushed out", family.name());
            said
        });
        assert_same_but_for_ties(&[expected], &[said], ROUNDING, family.name());
    }
}

#[test]
fn worker_killed_in_the_midst_costs_time_and_changes_nothing() {
    let daemon = Daemon::start();
    for family in FAMILIES {
        let (begin, generate) = (Random(10).tokens(150), 1500);
        let expected = alone(&daemon, family, &begin, generate);
        let worker = mount_anew(&daemon, family, 64 * PAGE).worker_os_pid;
        let (mut watcher, mut client) = (daemon.client(), daemon.client());
        let pid = client.pid();
        let said = std::thread::scope(|scope| {
            let running = scope.spawn(|| {
                let context = opened(&mut client, begin.clone());
                say(&mut client, context, generate)
            });
            wait_for_tokens(&mut watcher, pid, 50, generate);
            process::kill(worker, SystemSignal::SIGKILL);
            running.join().expect("no panic")
        });
        assert_eq!(stats(&daemon).worker_restarts, 1, "{}", family.name());
        assert_same_but_for_ties(&[expected], &[said], ROUNDING, family.name());
    }
}

/// A process that outlives the daemon and generates.
fn begin_persistent(daemon: &Daemon, begin: Vec<Token>, generate: u32) -> Pid {
    let hello = Hello { lifetime: Lifetime::Persistent, ..hello("story") };
    let mut client = Client::connect_with(&daemon.socket(), hello).expect("the daemon accepts connections");
    let context = opened(&mut client, begin);
    client.start(greedy(context, generate)).expect("starts");
    let pid = client.pid();
    client.detach(None).expect("it may");
    pid
}

#[test]
fn daemon_killed_in_the_midst_goes_on_with_the_same_stream() {
    for family in FAMILIES {
        let (begin, generate) = (Random(11).tokens(150), 1200);
        let mut daemon = Daemon::start();
        let expected = alone(&daemon, family, &begin, generate).tokens;
        mount_anew(&daemon, family, 64 * PAGE);
        let pid = begin_persistent(&daemon, begin, generate);
        wait_for_tokens(&mut daemon.client(), pid, 50, generate);
        daemon.kill9();
        daemon.restart();
        let mut client = daemon.client();
        let Reply::Attached(attached) = client.call(Attach { pid, force: true }).expect("it is there") else {
            panic!("the reply of another call")
        };
        let follow = Follow { call: attached.calls[0].ticket, replay: true };
        let call = client.start_as(pid, follow).expect("starts");
        let Reply::Generated(reply) = client.finish(call, |_| {}).expect("it comes to its end") else {
            panic!("the reply of another call")
        };
        assert_eq!(reply.tokens, expected, "{}", family.name());
        client.call_as(pid, Exit { status: 0 }).expect("it is ours");
    }
}

#[test]
fn context_that_slides_is_computed_again_and_goes_on_as_a_new_one() {
    let daemon = Daemon::start();
    for family in FAMILIES {
        mount_anew(&daemon, family, 64 * PAGE);
        let mut client = daemon.client();
        let (model, tokens_max) = (Some(MODEL.into()), Some(Tokens(4 * PAGE)));
        let open = Open { model, tokens_max, on_full: OnFull::Slide, prefix: None };
        let context = client.open_with(open).expect("opens").context;
        client.append_tokens(context, Random(12).tokens(3 * PAGE)).expect("appends");
        let mut slid = 0;
        let count = |event| slid += u32::from(matches!(event, Event::Slid { .. }));
        let reply = client.generate(measured(context, 300), count).expect("generates");
        assert_eq!(reply.tokens.len(), 300, "{}", family.name());
        assert!(slid >= 2, "{}: it slid {slid} times", family.name());
        let log = log_of(&mut client, context);
        let said = say(&mut client, context, 8);
        assert_same_but_for_ties(&[alone(&daemon, family, &log, 8)], &[said], ROUNDING, family.name());
    }
}

#[test]
fn deterministic_mount_is_refused_in_a_sentence() {
    let daemon = Daemon::start();
    for family in FAMILIES {
        let path = daemon.dir().join(family.name());
        let shape = Shape::preset("tiny").expect("the preset exists").of(family);
        shape.write(&path).expect("a model can be written");
        let mount = Mount { deterministic: true, ..mount(path.to_str().expect("UTF-8"), family.name()) };
        let fault = daemon.client().mount_with(mount, |_| {}).expect_err("its sequences cannot be cut");
        assert!(fault.message.contains("keeps or loses whole sequences"), "{fault}");
    }
}
