//! Pages that outlive the daemon: what was computed before a restart is loaded after it, and is never more than a cache.

use kernel::core::{Event as Input, KernelConfig};
use syscalls::call::*;
use syscalls::reply::Stats;
use syscalls::{ContextId, Errno, Pid, Reply, Tokens};

use crate::machine::{ADMIN, Machine, append_bytes, generate, generated, mount, open, reference};

/// A model on which a page takes longer to compute than to save and to load.
const SCRIPT: &str = "pool=4096,context=2048,batch=256,token_us=100,save_us=100,load_us=100";

/// Whole pages of the prompt that most tests have, and its tokens.
const PAGES: u64 = 15;
const PROMPT: usize = 1000;

fn config(disk: u64) -> KernelConfig {
    KernelConfig { swap_disk_bytes: disk * 4096, ..KernelConfig::default() }
}

fn text(n: usize, tokens: usize) -> String {
    format!("{n} and another {n} ").chars().cycle().take(tokens).collect()
}

fn machine(script: &str, disk: u64) -> Machine {
    let mut machine = Machine::new(config(disk));
    let conn = machine.connect(ADMIN);
    machine.mount(conn, "m", script).expect("the script mounts");
    machine
}

/// A persistent process of a user with a context that has a prompt and some tokens of an answer.
fn story(machine: &mut Machine, uid: u32, prompt: &str) -> (Pid, ContextId) {
    let conn = machine.connect_lasting(uid, Lifetime::Persistent);
    let context = machine.open_with(conn, prompt);
    machine.generate(conn, context, 8);
    machine.run();
    (machine.pid(conn), context)
}

/// Goes on with such a context after a restart; gives what comes and what the machine has done for it.
fn go_on(machine: &mut Machine, uid: u32, pid: Pid, context: ContextId) -> (String, Stats) {
    machine.run();
    let conn = machine.connect(uid);
    machine.call(conn, Attach { pid, force: false }).expect("his own");
    let reply = machine.call_as(conn, Some(pid), generate(context, 8));
    (generated(reply).text, machine.stat(conn))
}

fn evaluated(stats: &Stats) -> u64 {
    stats.prompt_tokens_evaluated + stats.tokens_recomputed
}

#[test]
fn context_resumed_after_a_kill_loads_its_pages_and_computes_only_the_end() {
    for (host, ends) in [(0, false), (64, false), (64, true)] {
        let with = KernelConfig { swap_host_bytes: host * 4096, ..config(1000) };
        let mut before = Machine::new(with.clone());
        let conn = before.connect(ADMIN);
        before.mount(conn, "m", SCRIPT).expect("the script mounts");
        let prompt = text(1, PROMPT);
        let (pid, context) = story(&mut before, 7, &prompt);
        if ends {
            before.event(Input::Terminate);
            before.run();
            assert!(before.exited);
        }
        let mut next = before.crashed(with);
        let (said, stats) = go_on(&mut next, 7, pid, context);
        assert_eq!(said, reference("", &prompt, 16)[8..]);
        assert!(evaluated(&stats) < 64 + 8, "{stats:?}");
        assert_eq!(stats.swap_in_bytes, PAGES * 4096, "{stats:?}");
        assert_eq!(stats.pages_corrupted, 0);
    }
}

#[test]
fn pages_are_found_over_many_restarts() {
    let mut machine = machine(SCRIPT, 1000);
    let prompt = text(1, PROMPT);
    let (pid, context) = story(&mut machine, 7, &prompt);
    let whole = reference("", &prompt, 8 * 5);
    for n in 1..5 {
        machine = machine.crashed(config(1000));
        let (said, stats) = go_on(&mut machine, 7, pid, context);
        assert_eq!(said, whole[8 * n..8 * n + 8]);
        assert!(evaluated(&stats) < 64 + 8, "restart {n}: {stats:?}");
        machine.run();
    }
}

#[test]
fn page_damaged_alone_is_computed_counted_and_logged() {
    let mut before = machine(SCRIPT, 1000);
    let prompt = text(1, PROMPT);
    let (pid, context) = story(&mut before, 7, &prompt);
    let damaged = before.disks["m"].damage(|slot| slot % 5 == 2);
    let mut next = before.crashed(config(1000));
    let (said, stats) = go_on(&mut next, 7, pid, context);
    assert_eq!(said, reference("", &prompt, 16)[8..]);
    assert_eq!((damaged, stats.pages_corrupted), (3, 3));
    assert!((3 * 64..4 * 64 + 8).contains(&evaluated(&stats)), "{stats:?}");
    let lines = next.logs.iter().filter(|line| line.contains("is computed again"));
    assert_eq!(lines.count(), 3);
}

#[test]
fn other_model_file_drops_all_pages_with_one_line() {
    let mut before = machine(SCRIPT, 1000);
    story(&mut before, 7, &text(1, PROMPT));
    let disks = before.disks.clone();
    let mut next = before.crashed(config(1000));
    let conn = next.connect(ADMIN);
    next.run();
    next.call(conn, Unmount { name: "m".into(), force: true }).expect("the administrator");
    next.disks = disks;
    next.mount(conn, "m", &format!("{SCRIPT},seed=9")).expect("another file");
    let lines: Vec<_> = next.logs.iter().filter(|line| line.contains("dropped")).collect();
    assert_eq!(lines, ["saved pages of model m are dropped: they are of another model file"]);
    assert_eq!(next.stat(conn).pages_disk, 0);
}

#[test]
fn pages_of_a_user_are_found_by_no_other() {
    let mut before = machine(SCRIPT, 1000);
    let prompt = text(1, PROMPT);
    story(&mut before, 7, &prompt);
    let mut next = before.crashed(config(1000));
    for (uid, loads) in [(8, false), (7, true)] {
        let conn = next.connect(uid);
        let before = next.stat(conn);
        let context = next.open_with(conn, &prompt);
        assert_eq!(next.generate(conn, context, 8).text, reference("", &prompt, 8));
        let stats = next.stat(conn);
        let new = evaluated(&stats) - evaluated(&before);
        assert_eq!((new < 100, new >= PROMPT as u64), (loads, !loads), "{uid}: {new}");
    }
}

#[test]
fn snapshot_and_segment_are_loaded_after_a_restart_by_whoever_may_open_them() {
    let mut before = machine(SCRIPT, 1000);
    let conn = before.connect(7);
    let prompt = text(1, PROMPT);
    let context = before.open_with(conn, &prompt);
    before.generate(conn, context, 1);
    before.call(conn, Snapshot { context, name: "s".into() }).expect("own context");
    let other = text(2, PROMPT);
    let context = before.open_with(conn, &other);
    before.generate(conn, context, 1);
    let share = Share { context, name: "p".into(), length: Some(Tokens(PROMPT as u32)), mode: 0o644 };
    before.call(conn, share).expect("own context");
    before.run();
    let mut next = before.crashed(config(1000));
    next.run();
    let own = next.connect(7);
    let Ok(Reply::Opened { context, .. }) = next.call(own, Restore { name: "s".into() }) else { panic!() };
    assert_eq!(next.generate(own, context, 8).text, reference("", &prompt, 9)[1..]);
    assert!(evaluated(&next.stat(own)) < 100, "{:?}", next.stat(own));
    let reader = next.connect(8);
    let on = Open { prefix: Some("p".into()), ..open() };
    let Ok(Reply::Opened { context, .. }) = next.call(reader, on) else { panic!() };
    assert_eq!(next.generate(reader, context, 8).text, reference("", &other, 8));
    assert!(evaluated(&next.stat(own)) < 200, "{:?}", next.stat(own));
}

#[test]
fn segment_that_is_gone_leaves_its_pages_to_no_later_one() {
    let mut before = machine(SCRIPT, 1000);
    let conn = before.connect(7);
    let prompt = text(1, PROMPT);
    let context = before.open_with(conn, &prompt);
    before.generate(conn, context, 1);
    let share = |context| Share { context, name: "p".into(), length: None, mode: 0o644 };
    before.call(conn, share(context)).expect("own context");
    before.run();
    before.call(conn, Unshare { name: "p".into() }).expect("his own");
    let mut next = before.crashed(config(1000));
    next.run();
    let conn = next.connect(8);
    let context = next.open_with(conn, &prompt);
    next.call(conn, share(context)).expect("own context");
    let on = Open { prefix: Some("p".into()), ..open() };
    let Ok(Reply::Opened { context, .. }) = next.call(conn, on) else { panic!() };
    next.generate(conn, context, 1);
    assert!(evaluated(&next.stat(conn)) >= PROMPT as u64, "another segment has pages of its own");
}

#[test]
fn contexts_that_do_not_outlive_the_daemon_are_not_written_ahead() {
    let mut machine = machine(SCRIPT, 1000);
    let conn = machine.connect_lasting(7, Lifetime::Detached);
    let context = machine.open_with(conn, &text(1, PROMPT));
    machine.generate(conn, context, 8);
    machine.run();
    assert_eq!(machine.stat(conn).swap_out_bytes, 0);
}

#[test]
fn pages_cheaper_to_compute_than_to_load_are_not_written() {
    let mut machine = machine("pool=4096,context=2048,batch=64,token_us=1,save_us=9000,load_us=9000", 1000);
    let (pid, context) = story(&mut machine, 7, &text(1, PROMPT));
    let mut next = machine.crashed(config(1000));
    let (said, _) = go_on(&mut next, 7, pid, context);
    assert_eq!(said, reference("", &text(1, PROMPT), 16)[8..]);
    let conn = next.connect_lasting(8, Lifetime::Persistent);
    let before = next.stat(conn);
    let context = next.open_with(conn, &text(2, PROMPT));
    next.generate(conn, context, 8);
    next.run();
    let written = next.stat(conn).swap_out_bytes - before.swap_out_bytes;
    assert!(written <= 4096, "both are measured by now: {written}");
}

#[test]
fn writing_takes_no_more_than_its_share_of_steps_that_decode() {
    let script = "pool=8192,context=4096,step_us=2000,row_us=100,token_us=100,save_us=1000,load_us=1000";
    let took = |lifetime| {
        let mut machine = machine(script, 4096);
        let conn = machine.connect_lasting(7, lifetime);
        let contexts: Vec<ContextId> = (0..4).map(|n| machine.open_with(conn, &text(n, 600))).collect();
        let calls = contexts.iter().map(|c| machine.begin(conn, generate(*c, 400))).collect::<Vec<_>>();
        let begun = machine.now;
        calls.into_iter().for_each(|call| drop(generated(machine.finish(conn, call))));
        (machine.now - begun, machine.stat(conn).swap_out_bytes)
    };
    let (without, none) = took(Lifetime::Detached);
    let (with, written) = took(Lifetime::Persistent);
    assert!(none == 0 && written > 0);
    println!("steps take {without} µs without and {with} µs with {written} bytes written");
    assert!(with * 100 <= without * 103, "{with} against {without}");
}

#[test]
fn orderly_end_writes_what_is_missing_and_ends_in_its_time() {
    // A page takes longer to write than a generation's steps leave for it.
    let script = "pool=4096,context=2048,batch=1024,token_us=1000,save_us=5000,load_us=100";
    let begun = || {
        let mut machine = machine(script, 1000);
        let conn = machine.connect_lasting(7, Lifetime::Persistent);
        let context = machine.open_with(conn, &text(1, PROMPT));
        let call = machine.begin(conn, generate(context, 60));
        while machine.events(conn, call).is_empty() {
            assert!(machine.turn());
        }
        (machine.pid(conn), context, machine)
    };
    let (pid, context, mut before) = begun();
    assert!(before.disks["m"].pages() < PAGES as usize);
    before.event(Input::Terminate);
    let late = before.connect_silently(8);
    before.begin(late, open());
    before.run();
    assert!(before.exited && before.disks["m"].pages() == PAGES as usize);
    let mut next = before.crashed(config(1000));
    next.run();
    let conn = next.connect(7);
    assert!(evaluated(&next.stat(conn)) < 64 + 64, "{:?}", next.stat(conn));
    next.call(conn, Attach { pid, force: false }).expect("his own");
    let all = ReadTokens { context, from: Tokens(0), to: None };
    let Ok(Reply::Tokens(log)) = next.call_as(conn, Some(pid), all) else { panic!() };
    assert_eq!(log.len(), PROMPT + 60, "it has gone on to its end");

    let (.., mut slow) = begun();
    slow.event(Input::Terminate);
    assert!(!slow.exited && slow.wake.is_some());
    slow.pass_ms(KernelConfig::default().save_at_end_ms);
    assert!(slow.exited, "a worker that does not answer holds nobody up");

    let (.., mut dying) = begun();
    dying.event(Input::Terminate);
    dying.kill_worker();
    assert!(dying.exited, "nor does one that dies");
}

#[test]
fn disk_that_is_full_fails_nobody() {
    for pages in [0, 4] {
        let script = format!("{SCRIPT},disk_pages={pages}");
        let mut before = machine(&script, 1000);
        let (pid, context) = story(&mut before, 7, &text(1, PROMPT));
        assert!(before.logs.iter().any(|line| line.contains("the disk tier of model m stays")));
        let mut next = before.crashed(config(1000));
        let (said, stats) = go_on(&mut next, 7, pid, context);
        assert_eq!(said, reference("", &text(1, PROMPT), 16)[8..]);
        assert_eq!(stats.swap_in_bytes, pages * 4096, "{stats:?}");
    }
}

#[test]
fn smaller_budget_keeps_what_fits_and_none_keeps_nothing() {
    let mut before = machine(SCRIPT, 1000);
    let (pid, context) = story(&mut before, 7, &text(1, PROMPT));
    let mut next = before.crashed(config(6));
    let (said, stats) = go_on(&mut next, 7, pid, context);
    assert_eq!(said, reference("", &text(1, PROMPT), 16)[8..]);
    assert!(stats.pages_disk <= 6, "{stats:?}");
    let mut none = next.crashed(config(0));
    let (_, stats) = go_on(&mut none, 7, pid, context);
    assert_eq!((stats.pages_disk, stats.swap_in_bytes), (0, 0), "{stats:?}");
}

#[test]
fn pages_that_nobody_asks_for_are_the_first_to_go() {
    // Slots for two stories; the process of the first has ended.
    let disk = 2 * PAGES;
    let mut before = machine(SCRIPT, disk);
    let (gone, _) = story(&mut before, 7, &text(1, PROMPT));
    let (pid, context) = story(&mut before, 7, &text(2, PROMPT));
    let admin = before.connect(ADMIN);
    before.call(admin, Kill { pid: gone, signal: Signal::Kill }).expect("the administrator");
    let mut next = before.crashed(config(disk));
    next.run();
    story(&mut next, 9, &text(3, PROMPT));
    let (said, stats) = go_on(&mut next, 7, pid, context);
    assert_eq!(said, reference("", &text(2, PROMPT), 16)[8..]);
    assert_eq!(stats.swap_in_bytes, PAGES * 4096, "{stats:?}");
}

#[test]
fn limit_of_swap_bounds_what_is_written_for_a_process() {
    let mut machine = machine(SCRIPT, 1000);
    let conn = machine.connect_lasting(7, Lifetime::Persistent);
    let pid = machine.pid(conn);
    let limit = Setlimit { pid, limit: Limit::SwapPages, value: Some(3), then: None };
    machine.call(conn, limit).expect("his own");
    let context = machine.open(conn);
    machine.call(conn, append_bytes(context, &text(1, PROMPT))).expect("it fits");
    machine.generate(conn, context, 8);
    machine.run();
    assert_eq!(machine.stat(conn).pages_disk, 3);
    let mut next = machine.crashed(config(1000));
    go_on(&mut next, 7, pid, context);
    let admin = next.connect(ADMIN);
    let Ok(Reply::Stat(stats)) = next.call(admin, Stat { pid: Some(pid), model: None }) else { panic!() };
    assert_eq!(stats.pages_disk, 3, "they are charged to it again");
    let fault = next.call(admin, mount("m", "")).expect_err("it is mounted");
    assert_eq!(fault.errno, Errno::EEXIST);
}
