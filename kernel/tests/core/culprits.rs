//! Calls whose input kills workers: they fail alone, and so do their processes and users, while all others go on.

use kernel::core::event::ConnId;
use kernel::core::{Event as KernelEvent, KernelConfig};
use syscalls::call::*;
use syscalls::reply::Finish;
use syscalls::{CallId, Errno, Fault, Reply, Tokens};

use crate::machine::{ADMIN, Machine, append, generate, generated, open, reference};

#[test]
fn context_that_kills_twice_fails_alone() {
    let script = "die_on_text=zzz";
    let prompts = ["first", "second", "third", "fourth"];
    let (mut machine, conn) = Machine::with_model(script);
    let contexts: Vec<_> = prompts.iter().map(|p| machine.open_with(conn, p)).collect();
    let poison = machine.open_with(conn, "sleep zzz");
    let mut calls: Vec<CallId> = contexts.iter().map(|c| machine.begin(conn, generate(*c, 50))).collect();
    let poisoned = machine.begin(conn, generate(poison, 50));
    calls.rotate_left(2);
    let fault = machine.finish(conn, poisoned).expect_err("it kills");
    assert_eq!(fault.errno, Errno::EIO);
    assert!(fault.message.contains("died twice"), "{fault}");
    calls.rotate_right(2);
    for (call, prompt) in calls.into_iter().zip(prompts) {
        assert_eq!(generated(machine.finish(conn, call)).text, reference("", prompt, 50));
    }
    assert_eq!(machine.stat(conn).worker_restarts, 2);
    let again = machine.call(conn, generate(poison, 5)).expect_err("it is known to kill");
    assert_eq!(again.errno, Errno::EIO);
    assert_eq!(machine.stat(conn).worker_restarts, 2, "and does not get another chance");
    machine.call(conn, Truncate { context: poison, length: Tokens(5) }).expect("shorter");
    assert_eq!(machine.generate(conn, poison, 5).finish, Finish::Length);
}

#[test]
fn question_that_kills_twice_fails_alone() {
    let (mut machine, conn) = Machine::with_model("die_on_text=zzz");
    let context = machine.open_with(conn, "neighbour");
    let running = machine.begin(conn, generate(context, 30));
    let poisoned = machine.open(conn);
    let texts = ["one", "two", "zzz", "three"];
    let calls = texts.map(|t| {
        let call = Tokenize { model: None, text: t.into(), bos: false, special: false };
        machine.begin(conn, call)
    });
    let appended = machine.begin(conn, append(poisoned, "a zzz b"));
    machine.run();
    for (text, call) in texts.iter().zip(calls) {
        match (machine.finish(conn, call), *text) {
            (Err(fault), "zzz") => assert_eq!(fault.errno, Errno::EIO),
            (Ok(Reply::Tokens(tokens)), text) => assert_eq!(tokens.len(), text.len()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(machine.finish(conn, appended).expect_err("it kills too").errno, Errno::EIO);
    assert_eq!(generated(machine.finish(conn, running)).text, reference("", "neighbour", 30));
    assert_eq!(machine.append(conn, poisoned, "fine").expect("the context is as it was"), 4);
}

fn embed(text: &str) -> Embed {
    Embed { model: None, texts: vec![text.into()] }
}

/// Asks for something that kills workers, to its end.
fn kill_by_embedding(machine: &mut Machine, conn: ConnId) -> Fault {
    let call = machine.begin(conn, embed("zzz"));
    machine.run();
    machine.finish(conn, call).expect_err("it kills, or is refused")
}

#[test]
fn process_that_kills_twice_is_ended_with_an_error() {
    let (mut machine, admin) = Machine::with_model("die_on_text=zzz");
    machine.call(admin, embed("fine")).expect("the worker works");
    let parent = machine.connect(1000);
    let child = machine.spawn(parent, "killer");
    let poisoned = |machine: &mut Machine| {
        let call = machine.begin_as(parent, Some(child), embed("zzz"));
        machine.run();
        machine.finish(parent, call).expect_err("it kills")
    };
    let first = poisoned(&mut machine);
    assert_eq!(first.errno, Errno::EIO);
    assert!(first.message.contains(&format!("one more such call, and process {child} is ended")), "{first}");
    let second = poisoned(&mut machine);
    assert_eq!(second.errno, Errno::EIO);
    assert!(second.message.contains(&format!("process {child}, which is ended")), "{second}");
    let waited = machine.call(parent, Wait { pid: Some(child), timeout_ms: None }).expect("it has ended");
    assert_eq!(waited, Reply::Waited { pid: child, status: 128 + 31 });
    let said = format!("process {child} (killer) of user 1000 is ended: 2 of its calls");
    assert!(machine.logs.iter().any(|line| line.contains(&said)), "{:?}", machine.logs);
    assert!(machine.call(parent, embed("fine")).is_ok(), "its parent goes on");
    assert!(machine.delays.iter().all(|ms| *ms == 0), "nobody waited for it: {:?}", machine.delays);
    assert!(machine.call(admin, embed("fine")).is_ok());
}

#[test]
fn count_of_calls_that_killed_outlives_the_daemon() {
    let (mut before, _) = Machine::with_model("die_on_text=zzz");
    let conn = before.connect_lasting(1000, Lifetime::Persistent);
    let pid = before.pid(conn);
    before.call(conn, embed("fine")).expect("the worker works");
    assert!(kill_by_embedding(&mut before, conn).message.contains("one more such call"));
    let mut machine = before.crashed(KernelConfig::default());
    machine.run();
    let user = machine.connect(1000);
    machine.call(user, Attach { pid, force: true }).expect("it lives");
    machine.call(user, embed("fine")).expect("the worker works");
    let call = machine.begin_as(user, Some(pid), embed("zzz"));
    machine.run();
    let fault = machine.finish(user, call).expect_err("it kills");
    assert!(fault.message.contains(&format!("process {pid}, which is ended")), "{fault}");
}

#[test]
fn calls_of_one_process_that_are_found_for_one_death_count_once() {
    let (mut machine, conn) = Machine::with_model("die_on_text=zzz");
    let neighbour = machine.open_with(conn, "neighbour");
    let contexts = ["zzz one", "zzz two", "zzz three"].map(|text| machine.open_with(conn, text));
    let running = machine.begin(conn, generate(neighbour, 30));
    machine.turn();
    let calls = [contexts[0], contexts[1]].map(|context| machine.begin(conn, generate(context, 5)));
    machine.run();
    for call in calls {
        let fault = machine.finish(conn, call).expect_err("it kills");
        assert!(fault.message.contains("one more such call"), "{fault}");
    }
    assert_eq!(generated(machine.finish(conn, running)).text, reference("", "neighbour", 30));
    let fault = machine.call(conn, generate(contexts[2], 5)).expect_err("it kills");
    assert!(fault.message.contains("which is ended"), "{fault}");
}

#[test]
fn calls_that_fail_because_the_worker_is_broken_end_no_process() {
    let (mut machine, conn) = Machine::with_model("die_every=1");
    let contexts: Vec<_> = (0..3).map(|n| machine.open_with(conn, &format!("c{n}"))).collect();
    let calls: Vec<CallId> = contexts.iter().map(|c| machine.begin(conn, generate(*c, 5))).collect();
    machine.run();
    for call in calls {
        let fault = machine.finish(conn, call).expect_err("no step is ever done");
        assert!(!fault.message.contains("ended"), "{fault}");
    }
    assert!(machine.call(conn, Ps { all: false }).is_ok(), "the process lives");
}

#[test]
fn user_with_a_new_killer_each_time_is_refused_for_a_while_and_takes_nothing_offline() {
    let (mut machine, admin) = Machine::with_model("die_on_text=zzz");
    machine.call(admin, embed("fine")).expect("the worker works");
    for n in 0..4 {
        let conn = machine.connect(1000);
        assert_eq!(kill_by_embedding(&mut machine, conn).errno, Errno::EIO, "{n}");
    }
    let conn = machine.connect(1000);
    for text in ["zzz", "fine"] {
        let fault = machine.call(conn, embed(text)).expect_err("the user is refused");
        assert_eq!(fault.errno, Errno::EAGAIN);
        assert!(fault.message.contains("user 1000") && fault.message.contains("4 times"), "{fault}");
    }
    assert_eq!(machine.stat(admin).worker_restarts, 8);
    assert!(machine.delays.iter().all(|ms| *ms == 0), "{:?}", machine.delays);
    let other = machine.connect(1001);
    assert!(machine.call(other, embed("fine")).is_ok(), "others go on");
    machine.pass_ms(601_000);
    assert!(machine.call(conn, embed("fine")).is_ok(), "and so does he, later");
}

#[test]
fn suspect_that_leaves_before_it_is_tried_counts_for_its_user() {
    let (mut machine, admin) = Machine::with_model("die_on_text=zzz");
    for deaths in 0..4 {
        let conn = machine.connect(1000);
        machine.begin(conn, embed("zzz"));
        while machine.stat(admin).worker_restarts == deaths {
            assert!(machine.turn());
        }
        machine.event(KernelEvent::Disconnected { conn });
        let other = machine.connect(1001);
        assert!(machine.call(other, embed("fine")).is_ok());
    }
    let conn = machine.connect(1000);
    let fault = machine.call(conn, embed("fine")).expect_err("the user is refused");
    assert_eq!(fault.errno, Errno::EAGAIN);
}

#[test]
fn copy_of_a_context_that_killed_twice_is_not_run_either() {
    let (mut machine, conn) = Machine::with_model("die_on_text=zzz");
    let poison = machine.open_with(conn, "sleep zzz");
    assert_eq!(machine.call(conn, generate(poison, 50)).expect_err("it kills").errno, Errno::EIO);
    let restarts = machine.stat(conn).worker_restarts;
    let fork = |length| Fork { context: poison, copies: 1, length };
    let Ok(Reply::Forked { contexts }) = machine.call(conn, fork(None)) else { panic!("it is copied") };
    let fault = machine.call(conn, generate(contexts[0], 5)).expect_err("it is known to kill");
    assert!(fault.message.contains("died twice"), "{fault}");
    assert_eq!(machine.stat(conn).worker_restarts, restarts);
    let fork = fork(Some(Tokens(5)));
    let Ok(Reply::Forked { contexts }) = machine.call(conn, fork) else { panic!("it is copied") };
    assert_eq!(machine.generate(conn, contexts[0], 5).finish, Finish::Length);
}

#[test]
fn copy_of_a_suspect_and_what_is_opened_on_a_segment_of_it_run_alone() {
    let (mut machine, conn) = Machine::with_model("die_on_text=zzz");
    let other = machine.connect(ADMIN);
    let innocent = machine.open_with(other, "innocent");
    let poison = machine.open_with(conn, "sleep zzz");
    let running = machine.begin(other, generate(innocent, 300));
    let killing = machine.begin(conn, generate(poison, 5));
    while machine.stat(conn).worker_restarts == 0 {
        assert!(machine.turn());
    }
    let forking = machine.begin(conn, Fork { context: poison, copies: 1, length: None });
    let Some(Ok(Reply::Forked { contexts })) = machine.reply(conn, forking) else { panic!("at once") };
    let share = Share { context: poison, name: "suspect".into(), length: None, mode: 0o600 };
    let sharing = machine.begin(conn, share);
    assert_eq!(machine.reply(conn, sharing), Some(Ok(Reply::Done {})));
    assert_eq!(machine.finish(conn, killing).expect_err("it kills").errno, Errno::EIO);
    assert_eq!(machine.stat(conn).worker_restarts, 2);
    assert_eq!(machine.call(conn, generate(contexts[0], 5)).expect_err("it kills").errno, Errno::EIO);
    assert_eq!(machine.stat(conn).worker_restarts, 3, "no other one was in the step");
    let opening = Open { prefix: Some("suspect".into()), ..open() };
    let Ok(Reply::Opened { context, .. }) = machine.call(conn, opening) else { panic!("own segment") };
    assert_eq!(machine.call(conn, generate(context, 5)).expect_err("it kills").errno, Errno::EIO);
    assert_eq!(machine.stat(conn).worker_restarts, 4, "no other one was in the step");
    assert_eq!(generated(machine.finish(other, running)).text, reference("", "innocent", 300));
}

#[test]
fn suspects_have_no_more_tokens_than_their_rate() {
    let (mut machine, _) = Machine::with_model("step_us=9000,row_us=1000");
    let conn = machine.connect(ADMIN);
    machine.limit(conn, Limit::TokensPerSecond, 2);
    let contexts: Vec<_> = (0..5).map(|n| machine.open_with(conn, &format!("suspect {n}"))).collect();
    let begin = machine.now;
    let calls: Vec<CallId> = contexts.iter().map(|c| machine.begin(conn, generate(*c, 1))).collect();
    // One has had its token, and the other four are in the step, for the last one that there is.
    machine.turn();
    assert_eq!(machine.steps.last().map(|step| step.rows.len()), Some(4));
    machine.kill_worker();
    while machine.turn() {}
    let had = calls.iter().filter(|c| machine.reply(conn, **c).is_some()).count();
    assert!(had <= 2, "{had} tokens after {} µs at two a second", machine.now - begin);
    while let Some(wake) = machine.wake {
        machine.now = machine.now.max(wake.0);
        machine.event(KernelEvent::Tick);
        while machine.turn() {}
    }
    assert!(calls.iter().all(|c| machine.reply(conn, *c).is_some_and(|r| r.is_ok())));
    assert!(machine.now - begin >= 1_400_000, "{} µs", machine.now - begin);
}

#[test]
fn long_suspect_does_not_hold_up_those_that_were_not_in_the_step() {
    let script = "step_us=9000,row_us=1000,token_us=100,pool=65536,context=16384";
    let (mut machine, conn) = Machine::with_model(script);
    let known = machine.open_with(conn, "what steps cost");
    machine.generate(conn, known, 20);
    let long = machine.connect(ADMIN);
    let context = machine.open_with(long, &"p".repeat(12_000));
    let suspect = machine.begin(long, generate(context, 3));
    let reader = machine.open_with(conn, "reads along");
    let call = machine.begin(conn, generate(reader, 60));
    machine.kill_worker();
    let (mut last, mut gaps) = (machine.now, Vec::new());
    while machine.reply(conn, call).is_none() {
        let had = machine.events(conn, call).len();
        assert!(machine.turn());
        if machine.events(conn, call).len() > had {
            gaps.push(machine.now - last);
            last = machine.now;
        }
    }
    assert!(gaps[0] < 300_000, "the first token took {} µs", gaps[0]);
    let worst = gaps[1..].iter().max().copied().unwrap_or_default();
    assert!(worst <= 35_000, "a gap of {worst} µs, where a step takes 10 ms");
    assert!(machine.reply(long, suspect).is_none(), "the long one is still on its way");
    let reply = generated(machine.finish(long, suspect));
    assert_eq!(reply.text, reference(script, &"p".repeat(12_000), 3));
    assert_eq!(machine.stat(conn).worker_restarts, 1);
}
