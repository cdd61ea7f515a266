//! Memory: eviction, waiting, preemption, limits.

use drivers::wire::{Op, Step};
use kernel::core::event::ConnId;
use kernel::core::{KernelConfig, Policy};
use syscalls::call::*;
use syscalls::reply::{Finish, GeneratedReply, ProcessState};
use syscalls::{CallId, Errno, Fault, Reply, Tokens};

use crate::machine::{ADMIN, Machine, generate, generated, open, reference};

/// A prompt of so many tokens, another one for each `n`.
fn prompt(n: u32, tokens: usize) -> String {
    format!("{n:04}").chars().chain(std::iter::repeat('x')).take(tokens).collect()
}

#[test]
fn idle_contexts_give_their_pages_and_are_recomputed() {
    // Four frames, two for each context.
    let (mut machine, conn) = Machine::with_model("pool=256,context=256");
    let contexts: Vec<_> = (0..4).map(|n| machine.open_with(conn, &prompt(n, 100))).collect();
    let firsts: Vec<String> = contexts.iter().map(|c| machine.generate(conn, *c, 10).text).collect();
    assert_eq!(machine.stat(conn).tokens_recomputed, 0);
    let seconds: Vec<String> = contexts.iter().map(|c| machine.generate(conn, *c, 10).text).collect();
    for n in 0..4 {
        let text = format!("{}{}", firsts[n as usize], seconds[n as usize]);
        assert_eq!(text, reference("", &prompt(n, 100), 20));
    }
    // All but the last token of each context, whose entry was never made.
    assert_eq!(machine.stat(conn).tokens_recomputed, 4 * 109);
}

#[test]
fn page_that_is_computed_again_in_many_chunks_has_come_back_once() {
    let (mut machine, conn) = Machine::with_model("pool=256,context=256,batch=10");
    let contexts: Vec<_> = (0..4).map(|n| machine.open_with(conn, &prompt(n, 100))).collect();
    for _ in 0..2 {
        contexts.iter().for_each(|context| drop(machine.generate(conn, *context, 10)));
    }
    let stats = machine.stat(conn);
    assert_eq!((stats.tokens_recomputed, stats.refaults), (4 * 109, 4 * 2));
}

#[test]
fn context_that_lacks_a_frame_and_has_no_rate_to_get_it_shares_nothing_more() {
    // Ten frames: seven for the long prompt, one for what uses the rate up, and two for who comes then.
    let script = "pool=640,context=640,batch=100";
    let (mut machine, conn) = Machine::with_model(script);
    let slow = machine.connect(ADMIN);
    machine.limit(slow, Limit::TokensPerSecond, 2);
    let (begins, other) = ("c".repeat(120), "who speaks");
    let long = format!("{begins}{}", "x".repeat(280));
    let (first, second) = (machine.open_with(slow, other), machine.open_with(slow, &long));
    let calls = [(first, 5), (second, 1)].map(|(context, n)| machine.begin(slow, generate(context, n)));
    // The second token uses the rate up, and beside it 99 tokens of the long prompt are computed.
    while machine.events(slow, calls[0]).len() < 2 {
        assert!(machine.turn());
    }
    let copy = machine.fork(slow, second, 1)[0];
    let near = machine.open_with(conn, &format!("{begins}{}", "z".repeat(10)));
    machine.generate(conn, near, 1);
    assert_eq!(machine.stat(conn).frames_free, 0);
    machine.run();
    for (call, prompt, n) in [(calls[0], other, 5), (calls[1], long.as_str(), 1)] {
        let text = generated(machine.finish_in_time(slow, call)).text;
        assert_eq!(text, reference("", prompt, n), "{prompt}");
    }
    let call = machine.begin(slow, generate(copy, 1));
    assert_eq!(generated(machine.finish_in_time(slow, call)).text, reference("", &long, 1));
}

#[test]
fn newcomers_wait_for_memory_and_all_finish() {
    let (mut machine, conn) = Machine::with_model("pool=256,context=256");
    let contexts: Vec<_> = (0..10).map(|n| machine.open_with(conn, &prompt(n, 120))).collect();
    let calls: Vec<CallId> = contexts.iter().map(|c| machine.begin(conn, generate(*c, 8))).collect();
    for (n, call) in calls.into_iter().enumerate() {
        let text = generated(machine.finish(conn, call)).text;
        assert_eq!(text, reference("", &prompt(n as u32, 120), 8));
    }
    assert_eq!(machine.stat(conn).tokens_recomputed, 0, "who waits loses nothing");
}

#[test]
fn growing_contexts_preempt_the_last_one_and_all_finish() {
    // Each wants four frames in the end, and there are six.
    let (mut machine, conn) = Machine::with_model("pool=384,context=256");
    let contexts: Vec<_> = (0..5).map(|n| machine.open_with(conn, &prompt(n, 60))).collect();
    let calls: Vec<CallId> = contexts.iter().map(|c| machine.begin(conn, generate(*c, 190))).collect();
    for (n, call) in calls.into_iter().enumerate() {
        let reply = generated(machine.finish(conn, call));
        assert_eq!(reply.finish, Finish::Length);
        assert_eq!(reply.text, reference("", &prompt(n as u32, 60), 190));
    }
    let stats = machine.stat(conn);
    assert!(stats.tokens_recomputed > 0);
    assert!(stats.tokens_recomputed < 2000, "{} tokens: they took pages in turns", stats.tokens_recomputed);
}

#[test]
fn context_as_large_as_the_pool_runs_alone() {
    let (mut machine, conn) = Machine::with_model("pool=256,context=256");
    let small = machine.open_with(conn, "small");
    let large = machine.open_with(conn, &prompt(1, 200));
    let copies = machine.fork(conn, large, 3);
    let calls: Vec<CallId> =
        copies.iter().chain([&small, &large]).map(|c| machine.begin(conn, generate(*c, 56))).collect();
    for (at, call) in calls.into_iter().enumerate() {
        let text = generated(machine.finish(conn, call)).text;
        let expected = if at == 3 { reference("", "small", 56) } else { reference("", &prompt(1, 200), 56) };
        assert_eq!(text, expected);
    }
}

#[test]
fn context_larger_than_the_pool_is_refused_at_once() {
    let (mut machine, conn) = Machine::with_model("pool=256,context=4096");
    let fault = machine.call(conn, Open { tokens_max: Some(Tokens(300)), ..open() }).expect_err("too large");
    assert_eq!(fault.errno, Errno::ENOSPC);
    assert!(fault.message.contains("300") && fault.message.contains("256"), "{fault}");
    let Ok(Reply::Opened { tokens_max, .. }) = machine.call(conn, open()) else { panic!("it opens") };
    assert_eq!(tokens_max, Tokens(256));
}

#[test]
fn more_contexts_than_sequences_take_turns() {
    let (mut machine, conn) = Machine::with_model("sequences=4,pool=4096");
    let contexts: Vec<_> = (0..12).map(|n| machine.open_with(conn, &prompt(n, 20))).collect();
    let calls: Vec<CallId> = contexts.iter().map(|c| machine.begin(conn, generate(*c, 15))).collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(generated(machine.finish(conn, call)).text, reference("", &prompt(n as u32, 20), 15));
    }
    let most = machine.steps.iter().map(|s| s.rows.len()).max();
    assert_eq!(most, Some(3), "the last sequence is never lent");
}

#[test]
fn higher_class_takes_memory_from_a_lower_one() {
    let (mut machine, conn) = Machine::with_model("pool=256,context=256");
    let batch = machine.connect_as(ADMIN, Class::Batch, 0);
    let long = machine.open_with(batch, &prompt(1, 150));
    let running = machine.begin(batch, generate(long, 100));
    while machine.events(batch, running).len() < 20 {
        assert!(machine.turn());
    }
    let urgent = machine.open_with(conn, &prompt(2, 150));
    let text = machine.generate(conn, urgent, 50).text;
    assert_eq!(text, reference("", &prompt(2, 150), 50));
    assert!(machine.reply(batch, running).is_none(), "it has given its memory up");
    assert_eq!(generated(machine.finish(batch, running)).text, reference("", &prompt(1, 150), 100));
}

#[test]
fn process_waiting_for_frames_says_so() {
    let (mut machine, conn) = Machine::with_model("pool=256,context=256");
    let other = machine.connect(ADMIN);
    let (one, two) = (machine.open_with(conn, &prompt(1, 200)), machine.open_with(other, &prompt(2, 200)));
    let first = machine.begin(conn, generate(one, 30));
    machine.turn();
    let second = machine.begin(other, generate(two, 5));
    let pid = machine.pid(other);
    let info = machine.ps(conn).into_iter().find(|p| p.pid == pid).expect("it lives");
    assert_eq!((info.state, info.waits_for.as_deref()), (ProcessState::Blocked, Some("frames of m")));
    machine.run();
    assert!(machine.reply(conn, first).is_some_and(|r| r.is_ok()));
    assert!(machine.reply(other, second).is_some_and(|r| r.is_ok()));
}

#[test]
fn frames_limit_of_a_process_is_its_own_trouble() {
    let (mut machine, conn) = Machine::with_model("pool=2048,context=1024");
    let pid = machine.pid(conn);
    let limit = Setlimit { pid, limit: Limit::ResidentFrames, value: Some(3), then: None };
    machine.call(conn, limit).expect("own limit");
    let contexts: Vec<_> = (0..3).map(|n| machine.open_with(conn, &prompt(n, 120))).collect();
    for (n, context) in contexts.iter().enumerate() {
        let text = machine.generate(conn, *context, 5).text;
        assert_eq!(text, reference("", &prompt(n as u32, 120), 5), "its idle contexts give way");
    }
    let large = machine.open_with(conn, &prompt(9, 250));
    let fault = machine.call(conn, generate(large, 5)).expect_err("four frames");
    assert_eq!(fault.errno, Errno::ENOMEM);
    assert!(fault.message.contains("limit is 3"), "{fault}");
    let neighbour = machine.connect(ADMIN);
    let context = machine.open_with(neighbour, &prompt(9, 250));
    assert_eq!(machine.generate(neighbour, context, 5).finish, Finish::Length);
}

#[test]
fn contexts_opened_and_closed_without_running_leave_no_work_behind() {
    let (mut machine, conn) = Machine::with_model("pool=1024");
    let context = machine.open_with(conn, &prompt(1, 100));
    machine.generate(conn, context, 1);
    for _ in 0..3000 {
        let copy = machine.fork(conn, context, 1)[0];
        machine.call(conn, Close { context: copy }).expect("own context");
    }
    machine.run();
    let most = machine.steps.iter().map(|s| s.ops.len()).max().unwrap_or(0);
    assert!(most <= 1100, "{most} operations in one step");
}

#[test]
fn contexts_of_one_process_at_its_frames_limit_take_turns() {
    let (mut machine, conn) = Machine::with_model("pool=2048,context=1024");
    let pid = machine.pid(conn);
    // Each wants four frames in the end, and there are five.
    let limit = Setlimit { pid, limit: Limit::ResidentFrames, value: Some(5), then: None };
    machine.call(conn, limit).expect("own limit");
    let contexts: Vec<_> = (0..2).map(|n| machine.open_with(conn, &prompt(n, 120))).collect();
    let calls: Vec<CallId> = contexts.iter().map(|c| machine.begin(conn, generate(*c, 120))).collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(generated(machine.finish(conn, call)).text, reference("", &prompt(n as u32, 120), 120));
    }
}

#[test]
fn oom_score_is_frames_weighed_by_class_and_nice() {
    let (mut machine, conn) = Machine::with_model("pool=8192,context=1024");
    let mut score = |class, nice| {
        let process = machine.connect_as(ADMIN, class, nice);
        let context = machine.open_with(process, &prompt(1, 300));
        machine.generate(process, context, 1);
        let pid = machine.pid(process);
        machine.ps(conn).into_iter().find(|p| p.pid == pid).map(|p| (p.frames, p.oom_score))
    };
    assert_eq!(score(Class::Realtime, 0), Some((5, 5)));
    assert_eq!(score(Class::Normal, 0), Some((5, 20)));
    assert_eq!(score(Class::Batch, 0), Some((5, 40)));
    let (nice, greedy) = (score(Class::Normal, 5), score(Class::Normal, -5));
    assert!(nice.is_some_and(|(_, s)| (60..63).contains(&s)), "{nice:?}");
    assert!(greedy.is_some_and(|(_, s)| (6..8).contains(&s)), "{greedy:?}");
}

#[test]
fn limits_of_nothing_are_one_clear_fault_each() {
    let (mut machine, conn) = Machine::with_swap("pool=256,context=256", 64, 0);
    let mut refused = |limit, words: &str| {
        let process = machine.connect(ADMIN);
        let context = machine.open_with(process, &prompt(1, 100));
        let pid = machine.pid(process);
        machine.call(process, Setlimit { pid, limit, value: Some(0), then: None }).expect("own limit");
        let call: syscalls::Call = match limit {
            Limit::Contexts => open().into(),
            Limit::ContextTokens => crate::machine::append_bytes(context, "more").into(),
            _ => generate(context, 5).into(),
        };
        let fault = machine.call(process, call).expect_err(words);
        assert!(fault.message.contains(words), "{fault}");
        machine.call(process, Exit { status: 0 }).expect("it ends");
        fault.errno
    };
    assert_eq!(refused(Limit::Contexts, "the limit is 0"), Errno::EMFILE);
    assert_eq!(refused(Limit::ContextTokens, "its limit is 0"), Errno::E2BIG);
    assert_eq!(refused(Limit::ResidentFrames, "its limit is 0"), Errno::ENOMEM);
    assert_eq!(refused(Limit::GeneratedTokens, "its limit is 0"), Errno::E2BIG);
    let context = machine.open_with(conn, &prompt(2, 100));
    assert_eq!(machine.generate(conn, context, 5).finish, Finish::Length, "nobody else is concerned");
}

/// What a process is to generate: so many tokens behind a prompt of so many.
struct Wants {
    prompt: usize,
    tokens: u32,
}

/// Lets one large and three small processes run beside each other, and tells what came of each, the large one first.
fn large_beside_small(machine: &mut Machine, large: Wants) -> Vec<Result<GeneratedReply, Fault>> {
    let small = || Wants { prompt: 60, tokens: 100 };
    let all: Vec<Wants> = std::iter::once(large).chain((0..3).map(|_| small())).collect();
    let mut calls = Vec::new();
    for (n, Wants { prompt: length, tokens }) in all.iter().enumerate() {
        let conn = machine.connect(ADMIN);
        let context = machine.open_with(conn, &prompt(n as u32, *length));
        calls.push((conn, machine.begin(conn, generate(context, *tokens))));
    }
    let came = |(conn, call)| match machine.finish(conn, call) {
        Ok(Reply::Generated(reply)) => Ok(reply),
        Ok(other) => panic!("{other:?}"),
        Err(fault) => Err(fault),
    };
    let came: Vec<_> = calls.into_iter().map(came).collect();
    for (n, reply) in came.iter().enumerate().skip(1) {
        let text = reply.as_ref().map(|r| r.text.clone());
        assert_eq!(text, Ok(reference("", &prompt(n as u32, 60), 100)), "neighbours never fail");
    }
    came
}

/// A machine whose worker has fewer cells than it says, without swap and with it.
fn short_of_cells(cells: u32, host: u64) -> Machine {
    Machine::with_swap(&format!("pool=1024,context=1024,cells={cells}"), host, 0).0
}

#[test]
fn worker_with_fewer_cells_than_it_said_fails_nobody_who_fits_alone() {
    for (cells, host) in [(400, 0), (400, 64), (320, 0), (600, 64)] {
        let mut machine = short_of_cells(cells, host);
        let came = large_beside_small(&mut machine, Wants { prompt: 200, tokens: 100 });
        let text = came[0].as_ref().map(|r| r.text.clone());
        assert_eq!(text, Ok(reference("", &prompt(0, 200), 100)), "it waits, or is computed again");
        assert!(machine.logs.iter().any(|line| line.contains("less than it said")), "{:?}", machine.logs);
    }
}

#[test]
fn only_the_process_that_does_not_fit_alone_fails_when_memory_runs_out() {
    for host in [0, 64] {
        let mut machine = short_of_cells(400, host);
        let came = large_beside_small(&mut machine, Wants { prompt: 200, tokens: 500 });
        let fault = came[0].as_ref().expect_err("700 tokens in 400 cells");
        assert_eq!(fault.errno, Errno::ENOMEM);
        assert!(fault.message.contains("frames") && fault.message.contains("mount the model"), "{fault}");
        let conn = machine.connect(ADMIN);
        let fresh = machine.open_with(conn, "afterwards");
        assert_eq!(machine.generate(conn, fresh, 30).text, reference("", "afterwards", 30));
    }
}

#[test]
fn process_with_the_highest_score_gives_way_first_when_the_worker_is_short() {
    // The large one is first in every other respect: its generation was asked for first.
    let mut machine = short_of_cells(640, 0);
    let conn = machine.connect(ADMIN);
    let pids: Vec<_> = [300, 60, 60]
        .into_iter()
        .enumerate()
        .map(|(n, length)| {
            let process = machine.connect(ADMIN);
            let context = machine.open_with(process, &prompt(n as u32, length));
            machine.begin(process, generate(context, 200));
            machine.pid(process)
        })
        .collect();
    while !machine.logs.iter().any(|line| line.contains("less than it said")) {
        assert!(machine.turn(), "the cells are never short");
    }
    let list = machine.ps(conn);
    let of = |pid| list.iter().find(|p| p.pid == pid).expect("it lives");
    assert_eq!(of(pids[0]).waits_for.as_deref(), Some("frames of m"));
    assert!(pids[1..].iter().all(|pid| of(*pid).frames > 0 && of(*pid).oom_score > 0), "{list:?}");
    machine.run();
}

#[test]
fn context_too_large_for_its_limit_fails_before_anybody_gives_way() {
    let (mut machine, conn) = Machine::with_model("pool=2048,context=1024");
    let context = machine.open_with(conn, &prompt(1, 120));
    machine.generate(conn, context, 5);
    let pid = machine.pid(conn);
    machine
        .call(conn, Setlimit { pid, limit: Limit::ResidentFrames, value: Some(3), then: None })
        .expect("own limit");
    let large = machine.open_with(conn, &prompt(9, 250));
    let fault = machine.call(conn, generate(large, 5)).expect_err("four frames");
    assert!(fault.message.contains("needs 4 frames") && fault.message.contains("limit is 3"), "{fault}");
    let list = machine.ps(conn);
    assert_eq!(
        list.iter().find(|p| p.pid == pid).map(|p| p.frames),
        Some(2),
        "its idle context keeps its own"
    );
}

#[test]
fn copy_of_a_page_of_its_own_is_no_frame_beyond_the_limit() {
    let (mut machine, conn) = Machine::with_model("pool=2048,context=1024");
    let neighbour = machine.connect(ADMIN);
    let first = machine.open_with(neighbour, &prompt(1, 150));
    machine.generate(neighbour, first, 2);
    let pid = machine.pid(conn);
    machine
        .call(conn, Setlimit { pid, limit: Limit::ResidentFrames, value: Some(3), then: None })
        .expect("own limit");
    // It shares the neighbour's pages up to the middle of the third one, and goes on in a page of its own.
    let second = machine.open_with(conn, &format!("{}y", prompt(1, 150)));
    let text = machine.generate(conn, second, 30).text;
    assert_eq!(text, reference("", &format!("{}y", prompt(1, 150)), 30));
}

#[test]
fn process_at_its_own_limit_lets_those_behind_it_in() {
    let mut machine = Machine::new(KernelConfig { policy: Policy::Fifo, ..KernelConfig::default() });
    let conn = machine.connect(ADMIN);
    machine.mount(conn, "m", "pool=2048,context=1024").expect("it mounts");
    let pid = machine.pid(conn);
    machine
        .call(conn, Setlimit { pid, limit: Limit::ResidentFrames, value: Some(3), then: None })
        .expect("own limit");
    let own: Vec<_> = (0..2).map(|n| machine.open_with(conn, &prompt(n, 100))).collect();
    let calls: Vec<_> = own.iter().map(|c| machine.begin(conn, generate(*c, 80))).collect();
    let other = machine.connect(ADMIN);
    let context = machine.open_with(other, &prompt(7, 100));
    let call = machine.begin(other, generate(context, 5));
    machine.finish(other, call).expect("there is room");
    assert!(calls.iter().all(|c| machine.reply(conn, *c).is_none()), "it did not wait for them");
    machine.run();
    assert!(calls.iter().all(|c| machine.reply(conn, *c).is_some_and(|r| r.is_ok())));
}

#[test]
fn context_that_cannot_come_in_takes_nothing_from_those_that_run() {
    // Sixteen frames. Somebody in a hurry runs, and of two others the later one has had to give way to the earlier.
    let (mut machine, _) = Machine::with_model("pool=1024,context=1024,step_us=1000,row_us=10");
    let begin = |machine: &mut Machine, class: Class, n: u32, length: usize| {
        let conn = machine.connect_as(ADMIN, class, 0);
        let context = machine.open_with(conn, &prompt(n, length));
        (
            conn,
            machine.begin(
                conn,
                Generate { ignore_eos: true, ..generate(context, if length > 500 { 10 } else { 600 }) },
            ),
        )
    };
    let hurried = begin(&mut machine, Class::Interactive, 1, 300);
    let first = begin(&mut machine, Class::Normal, 2, 180);
    let second = begin(&mut machine, Class::Normal, 3, 190);
    let come = |machine: &Machine, of: (ConnId, CallId)| machine.events(of.0, of.1).len();
    while come(&machine, first) < 180 {
        assert!(machine.turn());
    }
    let waits = come(&machine, second);
    assert!(waits < 180, "it had to give way: {waits}");
    // Another one in a hurry needs more than all that the others have.
    let large = begin(&mut machine, Class::Interactive, 4, 900);
    (0..20).for_each(|_| {
        machine.turn();
    });
    assert!(come(&machine, first) >= 195, "{} of 200: it goes on", come(&machine, first));
    assert_eq!(come(&machine, large), 0);
    // When that has gone, nobody comes in before a generation ends.
    let pid = machine.pid(large.0);
    machine.call(large.0, Kill { pid, signal: Signal::Int }).expect("its own");
    (0..20).for_each(|_| {
        machine.turn();
    });
    assert_eq!(come(&machine, second), waits, "those that run would take its pages again");
    for (conn, call) in [hurried, first, second] {
        assert_eq!(generated(machine.finish(conn, call)).tokens.len(), 600);
    }
}

#[test]
fn context_that_lacks_the_frame_for_its_copy_of_a_shared_page_is_not_brought_in() {
    let (mut machine, conn) = Machine::with_model("pool=320,context=320");
    let common = prompt(1, 100);
    let first = machine.open_with(conn, &common);
    let call = machine.begin(conn, Generate { ignore_eos: true, ..generate(first, 150) });
    while machine.events(conn, call).len() < 2 {
        assert!(machine.turn());
    }
    // Five pages, of which it would share one and a half: four of its own, and there are three.
    let second = machine.open_with(conn, &format!("{common}{}", prompt(2, 190)));
    let waiting = machine.begin(conn, generate(second, 5));
    machine.finish(conn, call).expect("it has all that it needs");
    machine.finish(conn, waiting).expect("it is alone");
    let shares = |step: &&Step| step.ops.iter().any(|op| matches!(op, Op::Share { .. }));
    let times = machine.steps.iter().filter(shares).count();
    assert!(times <= 1, "it was brought in {times} times");
}
