//! Processes that outlive the daemon: whatever it is doing when it is killed, the next one goes on from there, and what
//! is said in the end is what would have been said without.

use kernel::core::effect::Record;
use kernel::core::event::ConnId;
use kernel::core::image::Images;
use kernel::core::service::ServiceConfig;
use kernel::core::{Effect, Event as Input, Kernel, KernelConfig, Now};
use syscalls::call::*;
use syscalls::reply::{AttachedReply, Finish, GeneratedReply, ProcessState};
use syscalls::{Call, ContextId, Errno, Fault, Pid, Reply, Token, Tokens};

use crate::chance::Chance;
use crate::machine::{ADMIN, Machine, append, append_bytes, generate, generated, mount, open, reference};

/// How many times a daemon is killed, by default.
const FAULTS: usize = 10_000;

fn attach(machine: &mut Machine, conn: ConnId, pid: Pid) -> AttachedReply {
    match machine.call(conn, Attach { pid, force: true }) {
        Ok(Reply::Attached(attached)) => attached,
        other => panic!("{other:?}"),
    }
}

fn tokens(machine: &mut Machine, conn: ConnId, pid: Pid, context: ContextId) -> Vec<Token> {
    match machine.call_as(conn, Some(pid), ReadTokens { context, from: Tokens(0), to: None }) {
        Ok(Reply::Tokens(tokens)) => tokens,
        other => panic!("{other:?}"),
    }
}

/// A machine with a persistent process of user 7 that has so many of 60 tokens.
fn generating(script: &str, had: usize) -> (Machine, ConnId, ContextId) {
    let (mut machine, _) = Machine::with_model(script);
    let conn = machine.connect_lasting(7, Lifetime::Persistent);
    let context = machine.open_with(conn, "a long story");
    let call = machine.begin(conn, generate(context, 60));
    while machine.events(conn, call).len() < had {
        assert!(machine.turn());
    }
    (machine, conn, context)
}

#[test]
fn generation_goes_on_after_a_kill_without_being_asked_and_says_the_same() {
    let (mut before, conn, context) = generating("", 10);
    let pid = before.pid(conn);
    let mut machine = before.crashed(KernelConfig::default());
    let admin = machine.connect(ADMIN);
    let info = machine.ps(admin).into_iter().find(|p| p.pid == pid).expect("it is there before its model");
    assert_eq!((info.state, info.detached), (ProcessState::Blocked, true));
    assert_eq!(info.waits_for.as_deref(), Some("the loading of m"));
    let early = attach(&mut machine, admin, pid);
    assert_eq!((early.contexts[0].context, early.contexts[0].model.as_str()), (context, "m"));
    assert!(tokens(&mut machine, admin, pid, context).len() >= 12 + 10, "its log can be read");
    let close = machine.begin_as(admin, Some(pid), Close { context });
    let fault = machine.reply(admin, close).expect("at once").expect_err("its model is being loaded");
    assert_eq!(fault.errno, Errno::EAGAIN);
    machine.run();
    let user = machine.connect(7);
    let attached = attach(&mut machine, user, pid);
    let call = &attached.calls[0];
    assert_eq!((call.call.as_str(), call.context, call.ended), ("generate", Some(context), true));
    let reply = machine.call_as(user, Some(pid), Follow { call: call.ticket, replay: true });
    let reply = generated(reply);
    assert_eq!((reply.finish, reply.text), (Finish::Length, reference("", "a long story", 60)));
    assert_eq!(tokens(&mut machine, user, pid, context).len(), 12 + 60);
    let info = machine.ps(user).into_iter().find(|p| p.pid == pid).expect("it lives");
    assert_eq!((info.uid, info.tokens_generated), (7, 60));
}

#[test]
fn daemon_that_ends_in_order_goes_on_likewise() {
    let (mut before, conn, _) = generating("", 10);
    let pid = before.pid(conn);
    before.connect(8);
    before.event(Input::Terminate);
    assert!(before.exited);
    let mut machine = before.crashed(KernelConfig::default());
    machine.run();
    let user = machine.connect(7);
    let call = attach(&mut machine, user, pid).calls[0].ticket;
    let reply = machine.call_as(user, Some(pid), Follow { call, replay: true });
    assert_eq!(generated(reply).text, reference("", "a long story", 60));
    assert!(machine.logs.iter().all(|line| !line.contains("interrupted")), "whoever was there was told");
}

#[test]
fn process_that_does_not_outlive_the_daemon_is_told_of_once_and_never_runs_again() {
    let (mut before, _) = Machine::with_model("");
    let conn = before.connect_lasting(7, Lifetime::Detached);
    let context = before.open_with(conn, "gone");
    before.begin(conn, generate(context, 60));
    before.event(Input::Disconnected { conn });
    let pid = before.pid(conn);
    let mut machine = before.crashed(KernelConfig::default());
    let line = machine.logs.iter().find(|line| line.contains("interrupted")).expect("it is told of");
    assert!(line.contains(&format!("{pid} (test2)")) && line.starts_with("2 processes"), "{line}");
    machine.run();
    let admin = machine.connect(ADMIN);
    assert!(machine.pid(admin) > pid, "its number is not used again");
    let Ok(Reply::Sysinfo(info)) = machine.call(admin, Sysinfo {}) else { panic!("it is described") };
    assert_eq!(info.interrupted, 2);
    let dead = |machine: &mut Machine, conn| match machine.call(conn, Ps { all: true }) {
        Ok(Reply::Processes(list)) => {
            let dead: Vec<_> = list.into_iter().filter(|p| p.state == ProcessState::Dead).collect();
            assert!(dead.iter().all(|p| p.lifetime != Lifetime::Persistent), "none of them was: {dead:?}");
            dead.len()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(dead(&mut machine, admin), 2);
    assert_eq!(machine.stat(admin).tokens_generated, 0);
    let mut next = machine.crashed(KernelConfig::default());
    let line = next.logs.iter().find(|line| line.contains("interrupted")).expect("the administrator");
    assert!(!line.contains("test2"), "{line}");
    let admin = next.connect(ADMIN);
    assert_eq!(dead(&mut next, admin), 1);
}

#[test]
fn journal_that_is_to_be_written_anew_gets_what_has_changed_in_any_case() {
    let (mut before, conn, context) = generating("", 10);
    before.checkpoints_fail = true;
    before.event(Input::JournalLong);
    let call = before.begin(conn, append_bytes(context, " and so on"));
    before.event(Input::JournalLong);
    before.run();
    before.reply(conn, call).expect("it is through").expect("there is room");
    let pid = before.pid(conn);
    let mut machine = before.crashed(KernelConfig::default());
    machine.run();
    let user = machine.connect(7);
    attach(&mut machine, user, pid);
    assert_eq!(tokens(&mut machine, user, pid, context).len(), 12 + 60 + 10);
}

#[test]
fn processes_that_were_interrupted_are_told_of_before_the_journal_forgets_them() {
    let mut kernel = Kernel::new(KernelConfig::default(), 1);
    let records = vec![Record::Interrupted { pid: Pid(5), uid: 7, name: "gone".into() }];
    let mut effects = Vec::new();
    kernel.step(Now(1), Input::Booted { records }, &mut effects);
    let is_told = |e: &Effect| matches!(e, Effect::LogAbout(_, _, line) if line.contains("5 (gone)"));
    let told = effects.iter().position(is_told).expect("it is told of");
    let forgotten = effects.iter().position(|e| matches!(e, Effect::Checkpoint(_)));
    assert!(Some(told) < forgotten, "{effects:?}");
}

#[test]
fn service_that_starts_with_the_daemon_is_told_of_when_that_is_killed() {
    let (mut before, _, _) = generating("", 3);
    let services = vec![ServiceConfig::new("watcher", vec!["watcher".into()], ADMIN)];
    let mut machine = before.crashed(KernelConfig { services, ..KernelConfig::default() });
    assert_eq!(machine.programs.len(), 1, "it is started in the event that brings the processes back");
    let next = machine.crashed(KernelConfig::default());
    let line = next.logs.iter().find(|line| line.contains("interrupted")).expect("it is told of");
    assert!(line.contains("(watcher)"), "{line}");
}

#[test]
fn all_that_a_process_is_comes_back() {
    let (mut before, admin) = Machine::with_model("");
    let conn = before.connect_silently(7);
    let hello = Hello {
        version: 1,
        name: Some("worker".into()),
        class: Class::Batch,
        nice: 5,
        group: Some("a/b".into()),
        lifetime: Lifetime::Persistent,
        caps: None,
    };
    before.call(conn, hello).expect("it says hello");
    let pid = before.pid(conn);
    let child = before.spawn(conn, "child");
    let limit = Setlimit { pid, limit: Limit::ContextTokens, value: Some(500), then: None };
    before.call(conn, limit).expect("his own");
    before.call(admin, Send { pid, data: "one".into() }).expect("the administrator");
    before.call(admin, Send { pid, data: "two".into() }).expect("the administrator");
    before.call(conn, Receive { timeout_ms: None }).expect("one");
    before.call(admin, Kill { pid, signal: Signal::Stop }).expect("the administrator");
    let context = before.open_with(conn, "held");
    before.begin(conn, generate(context, 20));
    let mut machine = before.crashed(KernelConfig::default());
    machine.run();
    let user = machine.connect(7);
    let list = machine.ps(user);
    let info = list.iter().find(|p| p.pid == pid).expect("it lives");
    assert_eq!((info.name.as_str(), info.class, info.nice), ("worker", Class::Batch, 5));
    assert_eq!((info.group.as_str(), info.parent), ("user.7/a/b", Pid::KERNEL));
    assert_eq!(
        (info.state, info.lifetime, info.tokens_generated),
        (ProcessState::Stopped, Lifetime::Persistent, 0)
    );
    assert!(list.iter().any(|p| p.pid == child && p.parent == pid && p.lifetime == Lifetime::Persistent));
    attach(&mut machine, user, pid);
    let message = machine.call_as(user, Some(pid), Receive { timeout_ms: Some(0) });
    assert!(matches!(message, Ok(Reply::Message { data, .. }) if data == "two"));
    machine.call(user, Kill { pid, signal: Signal::Cont }).expect("his own");
    let fault = machine.call_as(user, Some(pid), append_bytes(context, &"x".repeat(500)));
    assert_eq!(fault.expect_err("its limit").errno, Errno::E2BIG);
}

#[test]
fn context_whose_model_is_another_file_sleeps_on_and_its_calls_fail() {
    let (mut before, conn, context) = generating("", 10);
    let pid = before.pid(conn);
    let record = before.records.values_mut().next().expect("the mount");
    let kernel::core::effect::Record::Mount(mount) = record else { panic!("{record:?}") };
    mount.path = "sim:seed=5".into();
    let mut machine = before.crashed(KernelConfig::default());
    machine.run();
    let user = machine.connect(7);
    let call = attach(&mut machine, user, pid).calls[0].ticket;
    let fault = machine.call_as(user, Some(pid), Follow { call, replay: true }).expect_err("another file");
    assert_eq!(fault.errno, Errno::ENODEV);
    assert!(fault.message.contains("another file"), "{fault}");
    let fault = machine.call_as(user, Some(pid), append_bytes(context, "x")).expect_err("another file still");
    assert_eq!(fault.errno, Errno::ENODEV, "to try again would be in vain: {fault}");
    assert!(fault.message.ends_with("; mount that one again"), "{fault}");
    assert_eq!(machine.images.contexts.len(), 1, "what it holds is kept");
    assert_eq!(machine.call_as(user, Some(pid), Close { context }), Ok(Reply::Done {}));
    assert!(machine.images.contexts.is_empty(), "and closed all the same");
}

#[test]
fn generation_whose_window_is_full_after_a_restart_ends_there() {
    let (mut before, _) = Machine::with_model("pool=256,context=256");
    let conn = before.connect_lasting(7, Lifetime::Persistent);
    let (pid, context) = (before.pid(conn), before.open_with(conn, "a long story"));
    before.begin(conn, generate(context, 200));
    while before.images.contexts[&context].log.len() < 128 {
        assert!(before.turn());
    }
    let record = before.records.values_mut().next().expect("the mount");
    let kernel::core::effect::Record::Mount(mount) = record else { panic!("{record:?}") };
    mount.path = "sim:pool=128,context=128".into();
    let mut machine = before.crashed(KernelConfig::default());
    machine.run();
    let user = machine.connect(7);
    let call = attach(&mut machine, user, pid).calls[0].ticket;
    let reply = generated(machine.call_as(user, Some(pid), Follow { call, replay: true }));
    assert_eq!((reply.finish, reply.length), (Finish::ContextFull, Tokens(128)));
    assert_eq!(tokens(&mut machine, user, pid, context).len(), 128);
}

#[test]
fn context_waits_for_a_model_that_is_not_mounted() {
    let (mut before, conn, _) = generating("", 10);
    let pid = before.pid(conn);
    before.records.clear();
    let mut machine = before.crashed(KernelConfig::default());
    machine.run();
    let admin = machine.connect(ADMIN);
    machine.call(admin, mount("m", "")).expect("the script mounts");
    machine.run();
    let call = attach(&mut machine, admin, pid).calls[0].ticket;
    let reply = machine.call_as(admin, Some(pid), Follow { call, replay: true });
    assert_eq!(generated(reply).text, reference("", "a long story", 60));
}

#[test]
fn token_of_a_persistent_process_takes_a_few_bytes() {
    let (mut machine, conn, context) = generating("context=4096,pool=4096", 10);
    let before = machine.journal_bytes;
    while machine.images.contexts[&context].log.len() < 12 + 50 {
        assert!(machine.turn());
    }
    let bytes = (machine.journal_bytes - before) / 40;
    println!("a token takes {bytes} bytes of the journal");
    assert!(bytes <= 24, "{bytes} bytes a token");
    let pid = machine.pid(conn);
    machine.call(conn, Kill { pid, signal: Signal::Kill }).expect("itself");
    assert_eq!(machine.images.contexts.len(), 0);
}

/// What a program asks of one context, all at once.
fn ask(machine: &mut Machine, chance: &mut Chance, conn: ConnId, context: ContextId, slides: bool) {
    for _ in 0..1 + chance.below(4) {
        let words = ["alpha ", "beta ", "gamma and delta "][chance.below(3)];
        let text = words.repeat(1 + chance.below(if slides { 3 } else { 12 }));
        if chance.once_in(2) {
            machine.begin(conn, append(context, &text));
        } else {
            machine.begin(conn, append_bytes(context, &text));
        }
        if chance.once_in(6) {
            machine.begin(conn, Truncate { context, length: Tokens(1 + chance.below(20) as u32) });
        }
        let sampling = Sampling {
            temperature: [0.0, 0.8][chance.below(2)],
            repeat_penalty: [1.0, 1.3][chance.below(2)],
            ..Sampling::default()
        };
        let stop = if chance.once_in(3) { vec!["e".into()] } else { vec![] };
        let logprobs = chance.once_in(4).then_some(2);
        let stream = chance.once_in(2);
        let tokens = 1 + chance.below(30) as u32;
        machine.begin(conn, Generate { sampling, stop, logprobs, stream, ..generate(context, tokens) });
    }
}

/// What the daemons of a history are configured with: tiers of all sizes, none included.
fn tiers(seed: u64) -> KernelConfig {
    let mut chance = Chance(seed ^ 0x7137);
    let sizes = [0, 3, 20, 1000];
    let mut pages = || 4096 * sizes[chance.below(4)];
    KernelConfig { swap_host_bytes: pages(), swap_disk_bytes: pages(), ..KernelConfig::default() }
}

/// Persistent processes with calls on their contexts, snapshots and segments.
fn load(seed: u64) -> (Machine, Vec<(Pid, Vec<ContextId>)>) {
    let mut chance = Chance(seed);
    let pool = 256 + 64 * chance.below(6);
    let sequences = 2 + chance.below(6);
    let drafts = chance.below(2);
    let script = format!("eos=60,context=256,pool={pool},sequences={sequences},batch=64,drafts={drafts}");
    let mut machine = Machine::new(tiers(seed));
    let admin = machine.connect(ADMIN);
    machine.mount(admin, "m", &script).expect("the script mounts");
    machine.check_every = 16;
    let mut processes = Vec::new();
    for uid in 7..8 + chance.below(3) as u32 {
        let conn = machine.connect_lasting(uid, Lifetime::Persistent);
        let mut contexts = Vec::new();
        for _ in 0..1 + chance.below(3) {
            let on_full = [OnFull::Stop, OnFull::Slide, OnFull::Compact][chance.below(3)];
            let tokens_max = (on_full != OnFull::Stop).then_some(Tokens(128));
            let Ok(Reply::Opened { context, .. }) =
                machine.call(conn, Open { on_full, tokens_max, ..open() })
            else {
                panic!("it opens")
            };
            contexts.push(context);
            ask(&mut machine, &mut chance, conn, context, tokens_max.is_some());
            if chance.once_in(3) && tokens_max.is_none() {
                machine.begin(conn, Snapshot { context, name: format!("s{context}") });
                machine
                    .begin(conn, Share { context, name: format!("p{context}"), length: None, mode: 0o644 });
            }
        }
        processes.push((machine.pid(conn), contexts));
    }
    (machine, processes)
}

/// What is there in the end: each log, and of each context the last reply of a generation.
type Said = Vec<(ContextId, Vec<Token>, Option<GeneratedReply>)>;

fn said(machine: &mut Machine, processes: &[(Pid, Vec<ContextId>)]) -> Said {
    let admin = machine.connect(ADMIN);
    let mut said = Said::new();
    for (pid, contexts) in processes {
        let attached = attach(machine, admin, *pid);
        for context in contexts {
            let log = tokens(machine, admin, *pid, *context);
            let of_it = attached.calls.iter().rfind(|c| c.context == Some(*context) && c.call == "generate");
            let last = of_it.map(|call| {
                assert!(call.ended, "{call:?} is never answered");
                machine.call_as(admin, Some(*pid), Follow { call: call.ticket, replay: true })
            });
            // What it took is another thing after a restart.
            let last = last.and_then(Result::ok).map(|reply| GeneratedReply {
                usage: Default::default(),
                ..generated(Ok::<Reply, Fault>(reply))
            });
            said.push((*context, log, last));
        }
    }
    said
}

/// What snapshots and segments of a history lead to, each by its user and by the next one.
fn said_on_kept(
    machine: &mut Machine,
    processes: &[(Pid, Vec<ContextId>)],
) -> Vec<Result<(Tokens, Vec<Token>), Errno>> {
    let mut said = Vec::new();
    let owned = (7..).zip(processes).flat_map(|(uid, (_, contexts))| contexts.iter().map(move |c| (uid, c)));
    for (uid, context) in owned {
        let segment = Open { prefix: Some(format!("p{context}")), ..open() };
        let calls = [(uid, Call::from(Restore { name: format!("s{context}") })), (uid + 1, segment.into())];
        for (uid, call) in calls {
            let conn = machine.connect(uid);
            said.push(machine.call(conn, call).map_err(|fault| fault.errno).map(|reply| {
                let Reply::Opened { context, length, .. } = reply else { panic!("{reply:?}") };
                (length, generated(machine.call(conn, generate(context, 5))).tokens)
            }));
            machine.call(conn, Exit { status: 0 }).expect("it ends");
        }
    }
    said
}

/// Kills the daemon at random events until everything is done, and damages what is on disk of its pages. Gives the
/// numbers of kills, of tokens compared and of pages damaged.
fn play(seed: u64) -> (usize, usize, usize) {
    let (mut undisturbed, processes) = load(seed);
    undisturbed.run();
    let expected = said(&mut undisturbed, &processes);
    let expected_on_kept = said_on_kept(&mut undisturbed, &processes);
    let (mut machine, _) = load(seed);
    let mut chance = Chance(seed ^ 0xfa17);
    let (mut kills, mut worker_killed, mut pages_damaged) = (0, false, 0);
    loop {
        let events = chance.below(40);
        let goes_on = (0..events).all(|_| machine.turn());
        if !goes_on {
            break;
        }
        // A context that is alone in a step when two workers die is refused, which is right and another test.
        if chance.once_in(4) && !machine.workers.is_empty() && !worker_killed {
            machine.kill_worker();
            worker_killed = true;
            continue;
        }
        worker_killed = false;
        let (check_every, now) = (machine.check_every, machine.now);
        if chance.once_in(4) {
            let nth = 1 + chance.below(5) as u32;
            pages_damaged += machine.disks.values().map(|d| d.damage(|slot| slot % nth == 0)).sum::<usize>();
        }
        // Now and then with other tiers than before.
        let config = if chance.once_in(6) { tiers(seed + kills as u64) } else { tiers(seed) };
        machine = machine.crashed(config);
        (machine.check_every, machine.now) = (check_every, now);
        kills += 1;
    }
    assert_eq!(said_on_kept(&mut machine, &processes), expected_on_kept, "after {kills} kills");
    for (found, expected) in said(&mut machine, &processes).iter().zip(&expected) {
        assert_eq!(found, expected, "after {kills} kills");
    }
    let tokens = expected.iter().map(|(_, log, _)| log.len()).sum();
    for (pid, _) in &processes {
        let admin = machine.connect(ADMIN);
        machine.call(admin, Kill { pid: *pid, signal: Signal::Kill }).expect("the administrator");
    }
    machine.run();
    let Images { running, last, .. } = machine.images.clone();
    let left = Images { running, last, ..Images::default() };
    assert!(machine.images == left, "what has ended is not on disk any more");
    (kills, tokens, pages_damaged)
}

#[test]
fn streams_after_kills_at_any_event_equal_the_uninterrupted_ones() {
    let wanted = std::env::var("LLMASOS_TEST_FAULTS").ok().and_then(|n| n.parse().ok()).unwrap_or(FAULTS);
    let first = std::env::var("LLMASOS_TEST_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1_u64);
    let (mut kills, mut tokens, mut histories, mut damaged) = (0, 0, 0, 0);
    for seed in first.. {
        if kills >= wanted {
            break;
        }
        let result = std::panic::catch_unwind(|| play(seed));
        let (killed, compared, hit) = result.unwrap_or_else(|payload| {
            eprintln!(
                "history {seed} failed; play it alone with LLMASOS_TEST_FAULTS=1 LLMASOS_TEST_SEED={seed}"
            );
            std::panic::resume_unwind(payload)
        });
        (kills, tokens, histories) = (kills + killed, tokens + compared, histories + 1);
        damaged += hit;
    }
    println!(
        "{kills} kills in {histories} histories, {damaged} pages damaged; {tokens} tokens and their texts are the same"
    );
    assert!(kills < 1000 || tokens > kills, "too little was compared");
}
