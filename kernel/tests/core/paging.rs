//! Sharing between processes, what closed contexts leave, and pages that leave device memory and come back.

use syscalls::call::*;
use syscalls::reply::Finish;
use syscalls::{CallId, ContextId, Reply, Tokens};

use kernel::core::event::ConnId;

use crate::machine::{ADMIN, Machine, append_bytes, generate, generated, open, reference};

/// Text of so many tokens, another one for each `n` from its first token on.
fn text(n: usize, tokens: usize) -> String {
    let word = format!("{n} and ");
    word.chars().rev().cycle().take(tokens).collect()
}

impl Machine {
    fn exit(&mut self, conn: ConnId) {
        self.call(conn, Exit { status: 0 }).expect("it ends");
    }

    fn begin_on(&mut self, conn: ConnId, prompt: &str, tokens: u32) -> (ContextId, CallId) {
        let context = self.open_with(conn, prompt);
        (context, self.begin(conn, generate(context, tokens)))
    }
}

/// Eight agents with a common prompt of 2,048 tokens, each with 64 of its own.
fn agents(machine: &mut Machine, uids: &[u32]) -> Vec<(ConnId, String, CallId)> {
    let common = text(0, 2048);
    let start = |(n, uid): (usize, &u32)| {
        let conn = machine.connect(*uid);
        let prompt = format!("{common}{}", text(n + 1, 64));
        let (_, call) = machine.begin_on(conn, &prompt, 16);
        (conn, prompt, call)
    };
    uids.iter().enumerate().map(start).collect()
}

#[test]
fn prompt_common_to_processes_is_computed_once_also_when_they_come_at_once() {
    let (mut machine, conn) = Machine::with_model("pool=8192,context=4096,batch=512");
    for (conn, prompt, call) in agents(&mut machine, &[7; 8]) {
        assert_eq!(generated(machine.finish(conn, call)).text, reference("", &prompt, 16));
    }
    let stats = machine.stat(conn);
    assert!(stats.prompt_tokens_evaluated <= 2048 + 8 * 64 + 16, "{}", stats.prompt_tokens_evaluated);
    assert_eq!(stats.tokens_recomputed, 0);
}

#[test]
fn prompt_common_to_users_is_computed_by_each() {
    let (mut machine, conn) = Machine::with_model("pool=8192,context=4096");
    for (conn, prompt, call) in agents(&mut machine, &[7, 7, 8, 8]) {
        assert_eq!(generated(machine.finish(conn, call)).text, reference("", &prompt, 16));
    }
    let evaluated = machine.stat(conn).prompt_tokens_evaluated;
    assert!((2 * 2048 + 4 * 60..2 * 2048 + 4 * 64 + 16).contains(&evaluated), "{evaluated}");
}

#[test]
fn prompt_of_an_ended_process_is_not_computed_again_for_its_user() {
    let (mut machine, conn) = Machine::with_model("pool=2048,context=1024");
    let prompt = text(1, 500);
    let expected = reference("", &prompt, 10);
    let mut evaluated = vec![];
    for uid in [7, 7, 8] {
        let before = machine.stat(conn).prompt_tokens_evaluated;
        let process = machine.connect(uid);
        let context = machine.open_with(process, &prompt);
        assert_eq!(machine.generate(process, context, 10).text, expected);
        machine.exit(process);
        evaluated.push(machine.stat(conn).prompt_tokens_evaluated - before);
    }
    assert_eq!(evaluated, [500, 1, 500], "the first of each user computes it");
    let stats = machine.stat(conn);
    assert!(stats.frames_cached > 0);
    assert_eq!(stats.frames_free + stats.frames_cached, stats.frames_total, "and nobody is charged for it");
}

#[test]
fn remnants_give_way_the_oldest_first() {
    // Room for three prompts of four frames.
    let (mut machine, conn) = Machine::with_model("pool=768,context=768");
    for n in 1..=4 {
        let context = machine.open_with(conn, &text(n, 250));
        machine.generate(conn, context, 4);
        machine.call(conn, Close { context }).expect("own context");
    }
    let mut evaluated = |n: usize| {
        let before = machine.stat(conn).prompt_tokens_evaluated;
        let context = machine.open_with(conn, &text(n, 250));
        machine.generate(conn, context, 4);
        machine.call(conn, Close { context }).expect("own context");
        machine.stat(conn).prompt_tokens_evaluated - before
    };
    assert_eq!(evaluated(4), 1);
    assert_eq!(evaluated(3), 1);
    assert!(evaluated(1) >= 186, "its last pages were the first to go");
}

/// Contexts that take turns, each with more to say every time.
fn turns(script: &str, host: u64, disk: u64) -> (Machine, ConnId) {
    let (mut machine, conn) = Machine::with_swap(script, host, disk);
    let common = text(0, 300);
    let contexts: Vec<ContextId> = (0..24).map(|_| machine.open_with(conn, &common)).collect();
    let mut said: Vec<String> = vec![common; 24];
    for turn in 0..4 {
        for (n, context) in contexts.iter().enumerate() {
            let more = text(100 * turn + n + 1, 40);
            machine.append(conn, *context, &more).expect("it fits");
            let reply = machine.generate(conn, *context, 8);
            said[n].push_str(&more);
            assert_eq!(reply.text, reference("", &said[n], 8), "context {n} in turn {turn}");
            said[n].push_str(&reply.text);
        }
    }
    (machine, conn)
}

/// Memory for six of 24 contexts of up to eight frames, five of them common.
const TURNS: &str = "pool=1536,context=512";
/// What is new in the turns: the common prompt, and what each appends; what one generates last has no entry yet.
const TURNS_NEW: u64 = 300 + 24 * 4 * 40 + 24 * 3;

#[test]
fn contexts_taking_turns_compute_only_what_is_new() {
    for (host, disk) in [(4096, 0), (0, 4096), (8, 4096)] {
        let (mut machine, conn) = turns(TURNS, host, disk);
        let stats = machine.stat(conn);
        let computed = stats.prompt_tokens_evaluated + stats.tokens_recomputed;
        // Of the ends of logs a few are computed rather than kept.
        let most = TURNS_NEW + 24 * 4 * 16;
        assert!(computed <= most, "{computed} of {most} with {host} and {disk} slots");
        assert!(stats.swap_out_bytes > 0 && stats.swap_in_bytes > 0 && stats.refaults > 0, "{stats:?}");
        assert_eq!((stats.pages_host == 0, stats.pages_disk == 0), (host == 0, disk == 0), "{stats:?}");
        assert!(stats.pages_host <= host && stats.pages_disk <= disk);
    }
}

#[test]
fn last_tokens_of_a_log_come_back_with_its_pages_and_take_the_slot_of_none() {
    // Three pages and twelve tokens, in a pool for one such context; slots for all of two, and for their pages alone.
    for (host, again) in [(64, 0), (6, 12)] {
        let (mut machine, conn) = Machine::with_swap("pool=256,context=256", host, 0);
        let contexts: Vec<ContextId> = (1..=2).map(|n| machine.open_with(conn, &text(n, 200))).collect();
        contexts.iter().for_each(|c| drop(machine.generate(conn, *c, 5)));
        let reply = machine.generate(conn, contexts[0], 5);
        assert_eq!(reply.text, reference("", &text(1, 200), 10)[5..]);
        assert_eq!(machine.stat(conn).tokens_recomputed, again, "{host} slots");
    }
}

#[test]
fn context_that_comes_in_keeps_its_saved_pages_where_the_tier_is_full() {
    // Three whole pages each, in a pool for one; slots for those of the first and one of the second.
    let (mut machine, conn) = Machine::with_swap("pool=256,context=256", 4, 0);
    let contexts: Vec<ContextId> = (1..=2).map(|n| machine.open_with(conn, &text(n, 200))).collect();
    contexts.iter().for_each(|c| drop(machine.generate(conn, *c, 5)));
    let reply = machine.generate(conn, contexts[0], 5);
    assert_eq!(reply.text, reference("", &text(1, 200), 10)[5..]);
    let stats = machine.stat(conn);
    assert!(stats.tokens_recomputed <= 16, "only the end of its log: {}", stats.tokens_recomputed);
    assert_eq!(stats.pages_host, 4, "what is left goes to the one that left");
}

#[test]
fn without_tiers_contexts_taking_turns_are_computed_again() {
    let (mut machine, conn) = turns(TURNS, 0, 0);
    let stats = machine.stat(conn);
    assert!(stats.tokens_recomputed > 3000, "{}", stats.tokens_recomputed);
    assert_eq!((stats.swap_out_bytes, stats.pages_host, stats.pages_disk), (0, 0, 0));
}

#[test]
fn disk_full_makes_the_tier_smaller_and_fails_nobody() {
    let (mut machine, conn) = turns(&format!("{TURNS},host_pages=20,disk_pages=30"), 4096, 4096);
    let stats = machine.stat(conn);
    assert!(stats.pages_host <= 20 && stats.pages_disk <= 30, "{stats:?}");
    assert!(stats.pages_host > 10 && stats.pages_disk > 10, "what there is is used: {stats:?}");
}

#[test]
fn page_damaged_is_computed_again_and_counted() {
    let (mut machine, conn) = turns(&format!("{TURNS},corrupt_every=5"), 4096, 0);
    let stats = machine.stat(conn);
    assert!(stats.pages_corrupted > 10, "{stats:?}");
    assert!(stats.tokens_recomputed > 0, "{stats:?}");
}

#[test]
fn models_that_keep_whole_sequences_are_dropped_and_computed_again() {
    for script in ["ranges=false", "page_bytes=0"] {
        let (mut machine, conn) = turns(&format!("{TURNS},{script}"), 4096, 4096);
        let stats = machine.stat(conn);
        assert!(stats.tokens_recomputed > 0, "{script}");
        assert_eq!((stats.swap_out_bytes, stats.pages_host, stats.pages_disk), (0, 0, 0), "{script}");
    }
}

#[test]
fn pages_dearer_to_load_than_to_compute_are_computed() {
    // Computing 64 tokens takes 640 µs, loading them 10 ms.
    let script = format!("{TURNS},token_us=10,load_us=10000");
    let (mut machine, conn) = turns(&script, 4096, 0);
    let stats = machine.stat(conn);
    assert!(stats.swap_in_bytes <= 64 * 4096, "it has seen that it does not pay: {stats:?}");
    assert!(stats.tokens_recomputed > 2000, "{stats:?}");
}

#[test]
fn pages_that_were_dear_to_move_while_the_machine_was_busy_are_loaded_again_later() {
    // Computing 64 tokens takes 64 ms, and memory is for one of the two.
    let script = "pool=512,context=512,token_us=1000,save_us=100,load_us=100";
    let (mut machine, conn) = Machine::with_swap(script, 100, 0);
    let contexts = [1, 2].map(|n| machine.open_with(conn, &text(n, 400)));
    let turn = |machine: &mut Machine| {
        let before = machine.stat(conn).tokens_recomputed;
        contexts.iter().for_each(|context| drop(machine.generate(conn, *context, 2)));
        machine.stat(conn).tokens_recomputed - before
    };
    turn(&mut machine);
    assert!(turn(&mut machine) <= 128, "both were saved");
    machine.pages_us = Some(1_000_000);
    turn(&mut machine);
    machine.pages_us = None;
    let dear = turn(&mut machine);
    assert!(dear > 300, "{dear} tokens are computed while a page takes a second");
    machine.pass_ms(60_000);
    turn(&mut machine);
    let again = turn(&mut machine);
    assert!(again <= 128, "{again} tokens: nobody has seen that it takes a second no more");
}

#[test]
fn times_of_pages_that_cannot_be_are_the_end_of_nothing() {
    let (mut machine, conn) = Machine::with_swap("pool=512,context=512,token_us=1000", 100, 0);
    machine.pages_us = Some(u64::MAX);
    let contexts = [1, 2].map(|n| machine.open_with(conn, &text(n, 400)));
    for turn in 0..3 {
        for (context, n) in contexts.iter().zip(1..) {
            let said = machine.generate(conn, *context, 2).text;
            assert_eq!(said, reference("", &text(n, 400), 6)[2 * turn..2 * turn + 2], "turn {turn}");
        }
        machine.pass_ms(60_000);
    }
}

#[test]
fn process_that_has_used_its_rate_up_loads_no_more_pages_until_it_has_tokens() {
    // The pages of the long prompt are more than one step loads, and memory is for it or for the other process.
    let script = "pool=8192,context=8192";
    let (mut machine, conn) = Machine::with_swap(script, 400, 0);
    let slow = machine.connect(ADMIN);
    let (long, short) = (machine.open_with(slow, &text(1, 5000)), machine.open_with(slow, "short"));
    machine.generate(slow, long, 1);
    let other = machine.open_with(conn, &text(2, 8100));
    machine.generate(conn, other, 1);
    machine.limit(slow, Limit::TokensPerSecond, 2);
    let calls = [(short, 5), (long, 1)].map(|(context, n)| machine.begin(slow, generate(context, n)));
    // The first two tokens of the short one use the rate up, the second of them while pages are loaded.
    machine.run();
    assert!(machine.events(slow, calls[0]).len() >= 2, "both have begun");
    assert_eq!(machine.stat(conn).swap_in_bytes, 64 * 4096, "what one step loads");
    let said = calls.map(|call| generated(machine.finish_in_time(slow, call)).text);
    assert_eq!(said[0], reference(script, "short", 5));
    assert_eq!(said[1], reference(script, &text(1, 5000), 2)[1..]);
}

#[test]
fn death_of_a_worker_costs_no_saved_page() {
    let (mut machine, conn) = Machine::with_swap(TURNS, 4096, 0);
    let prompts: Vec<String> = (1..=6).map(|n| text(n, 400)).collect();
    let contexts: Vec<ContextId> = prompts.iter().map(|p| machine.open_with(conn, p)).collect();
    contexts.iter().for_each(|c| drop(machine.generate(conn, *c, 8)));
    let saved = machine.stat(conn).pages_host;
    assert!(saved > 0, "six contexts of seven frames in a pool of 24");
    machine.kill_worker();
    for (context, prompt) in contexts.iter().zip(&prompts) {
        let whole = reference("", prompt, 16);
        assert_eq!(machine.generate(conn, *context, 8).text, whole[8..]);
    }
    let stats = machine.stat(conn);
    assert_eq!(stats.worker_restarts, 1);
    assert!(
        stats.tokens_recomputed <= 6 * 407 - saved * 40,
        "{} with {saved} saved",
        stats.tokens_recomputed
    );
}

#[test]
fn work_for_twice_the_pool_all_finishes_in_full() {
    for host in [0, 4096] {
        let (mut machine, conn) = Machine::with_swap("pool=4096,context=2048", host, 0);
        let prompts: Vec<String> = (1..=8).map(|n| text(n, 512)).collect();
        let calls: Vec<CallId> = prompts.iter().map(|p| machine.begin_on(conn, p, 512).1).collect();
        for (call, prompt) in calls.into_iter().zip(&prompts) {
            let reply = generated(machine.finish(conn, call));
            assert_eq!((reply.finish, reply.tokens.len()), (Finish::Length, 512));
            assert_eq!(reply.text, reference("", prompt, 512));
        }
        let stats = machine.stat(conn);
        if host > 0 {
            assert!(stats.tokens_recomputed < 8 * 64, "{} tokens again", stats.tokens_recomputed);
        }
        assert!(stats.tokens_recomputed < 4096, "{} tokens again", stats.tokens_recomputed);
    }
}

#[test]
fn swap_limit_of_a_process_makes_it_compute_again_and_nobody_else() {
    let (mut machine, conn) = Machine::with_swap("pool=512,context=512", 4096, 0);
    let pid = machine.pid(conn);
    machine
        .call(conn, Setlimit { pid, limit: Limit::SwapPages, value: Some(2), then: None })
        .expect("own limit");
    let contexts: Vec<ContextId> = (1..=4).map(|n| machine.open_with(conn, &text(n, 300))).collect();
    contexts.iter().for_each(|c| drop(machine.generate(conn, *c, 4)));
    let Ok(Reply::Stat(stats)) = machine.call(conn, Stat { pid: Some(pid), model: None }) else { panic!() };
    assert_eq!(stats.pages_host, 2);
    let other = machine.connect(ADMIN);
    let pid = machine.pid(other);
    let contexts: Vec<ContextId> = (5..=8).map(|n| machine.open_with(other, &text(n, 300))).collect();
    contexts.iter().for_each(|c| drop(machine.generate(other, *c, 4)));
    let Ok(Reply::Stat(stats)) = machine.call(other, Stat { pid: Some(pid), model: None }) else { panic!() };
    assert!(stats.pages_host > 8, "{stats:?}");
}

#[test]
fn same_text_given_to_resident_contexts_is_computed_once() {
    let (mut machine, conn) = Machine::with_model("pool=8192,context=2048,batch=256");
    let context = machine.open_with(conn, &text(1, 200));
    machine.generate(conn, context, 1);
    let group = machine.fork(conn, context, 5);
    let news = text(2, 600);
    for context in &group {
        machine.append(conn, *context, &news).expect("it fits");
    }
    let before = machine.stat(conn).prompt_tokens_evaluated;
    let calls: Vec<CallId> = group.iter().map(|c| machine.begin(conn, generate(*c, 8))).collect();
    let texts: Vec<String> = calls.into_iter().map(|c| generated(machine.finish(conn, c)).text).collect();
    assert!(texts.iter().all(|t| *t == texts[0]));
    let evaluated = machine.stat(conn).prompt_tokens_evaluated - before;
    assert!(evaluated <= 600 + 5 * 17, "{evaluated}");
}

#[test]
fn waiting_for_a_prompt_ends_when_the_one_that_computes_it_is_stopped() {
    let (mut machine, conn) = Machine::with_model("pool=8192,context=4096,batch=64");
    let (one, two) = (machine.connect(ADMIN), machine.connect(ADMIN));
    let prompt = text(1, 1000);
    let (_, first) = machine.begin_on(one, &prompt, 8);
    (0..3).for_each(|_| assert!(machine.turn()));
    let (_, second) = machine.begin_on(two, &prompt, 8);
    machine.turn();
    let pid = machine.pid(one);
    machine.call(conn, Kill { pid, signal: Signal::Stop }).expect("it stops");
    assert_eq!(generated(machine.finish(two, second)).text, reference("", &prompt, 8));
    assert!(machine.reply(one, first).is_none());
    machine.call(conn, Kill { pid, signal: Signal::Cont }).expect("it goes on");
    assert_eq!(generated(machine.finish(one, first)).text, reference("", &prompt, 8));
}

#[test]
fn page_known_in_part_is_shared_by_the_token() {
    let (mut machine, conn) = Machine::with_model("pool=2048,context=1024");
    let prompt = text(1, 250);
    let first = machine.open_with(conn, &prompt);
    machine.generate(conn, first, 1);
    let longer = machine.open(conn);
    machine.call(conn, append_bytes(longer, &prompt)).expect("it fits");
    machine.append(conn, longer, "!").expect("it fits");
    let before = machine.stat(conn).prompt_tokens_evaluated;
    machine.generate(conn, longer, 1);
    assert_eq!(machine.stat(conn).prompt_tokens_evaluated - before, 1);
}

#[test]
fn fork_bomb_of_contexts_hits_its_limit_and_nothing_else() {
    let (mut machine, conn) = Machine::with_swap("pool=1024,context=512", 64, 64);
    machine.check_every = 64;
    let bomb = machine.connect(7);
    let context = machine.open_with(bomb, &text(1, 200));
    machine.generate(bomb, context, 4);
    let mut made = 1;
    let fault = loop {
        match machine.call(bomb, Fork { context, copies: 1000, length: None }) {
            Ok(Reply::Forked { contexts }) => made += contexts.len(),
            Err(fault) => break fault,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(fault.errno, syscalls::Errno::EMFILE);
    assert!(fault.message.contains("4096") && made == 4001, "{fault}");
    let neighbour = machine.open_with(conn, "neighbour");
    assert_eq!(machine.generate(conn, neighbour, 20).text, reference("", "neighbour", 20));
    machine.exit(bomb);
    let tokens_max = Some(Tokens(512));
    assert!(matches!(machine.call(conn, Open { tokens_max, ..open() }), Ok(Reply::Opened { .. })));
}

/// A process of the class `batch` computes a prompt, slowly because another one is preferred to it, and one in a hurry
/// begins with the same text. Tells the prompt tokens that were computed, and how far the preferred one was when the
/// one in a hurry had its answer.
fn prefix_in_a_hurry(class: Class) -> (u64, u64) {
    let (mut machine, admin) =
        Machine::with_model("pool=65536,context=16384,batch=128,step_us=1000,token_us=1000");
    let (slow, preferred) = (machine.connect_as(7, Class::Batch, 0), machine.connect(7));
    let (common, other) = (text(1, 2000), text(2, 12_000));
    let (_, first) = machine.begin_on(slow, &common, 4);
    (0..4).for_each(|_| assert!(machine.turn()));
    let (_, _) = machine.begin_on(preferred, &other, 4);
    (0..4).for_each(|_| assert!(machine.turn()));
    let conn = machine.connect_as(7, class, 0);
    let (_, call) = machine.begin_on(conn, &format!("{common}!"), 4);
    assert_eq!(generated(machine.finish(conn, call)).text, reference("", &format!("{common}!"), 4));
    let pid = machine.pid(preferred);
    let reached = machine.ps(admin).into_iter().find(|p| p.pid == pid).map(|p| p.prompt_tokens_evaluated);
    assert_eq!(generated(machine.finish(slow, first)).text, reference("", &common, 4));
    machine.run();
    (machine.stat(admin).prompt_tokens_evaluated, reached.expect("it lives"))
}

#[test]
fn process_that_computes_a_prefix_for_one_in_a_hurry_runs_in_its_class() {
    let (evaluated, reached) = prefix_in_a_hurry(Class::Interactive);
    assert!(evaluated <= 2000 + 12_000 + 64, "{evaluated}: nothing is computed twice");
    assert!(reached < 3000, "the one in a hurry has waited for {reached} tokens of the class between");
    let (_, reached) = prefix_in_a_hurry(Class::Batch);
    assert!(reached > 9000, "and nobody else is preferred for it: {reached}");
}
