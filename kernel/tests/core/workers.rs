//! Workers that die, fail and lie.

use kernel::core::event::ConnId;
use kernel::core::{Event as KernelEvent, KernelConfig};
use syscalls::call::*;
use syscalls::reply::{Finish, ModelState};
use syscalls::{CallId, Errno, Event, Fault, Reply, Tokens};

use crate::machine::{Job, Machine, append, generate, generated, reference};

#[test]
fn worker_killed_costs_no_token() {
    let whole = reference("", "replay", 60);
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "replay");
    let running = machine.begin(conn, generate(context, 60));
    for had in [10, 25, 40] {
        while machine.events(conn, running).len() < had {
            assert!(machine.turn());
        }
        machine.kill_worker();
    }
    let reply = generated(machine.finish(conn, running));
    assert_eq!(reply.text, whole);
    let events = machine.events(conn, running);
    let replays = events.iter().filter(|e| matches!(e, Event::Replaying { .. })).count();
    assert_eq!(replays, 3);
    let stats = machine.stat(conn);
    assert_eq!(stats.worker_restarts, 3);
    assert_eq!(stats.tokens_generated, 60);
    assert!(stats.tokens_recomputed > 60, "{}", stats.tokens_recomputed);
    assert_eq!(stats.prompt_tokens_evaluated, 6);
    assert_eq!(machine.delays, [0, 0, 200, 1000]);
}

#[test]
fn worker_killed_with_a_seed_goes_on_where_it_was() {
    let call = |context| Generate {
        sampling: Sampling { seed: Some(11), temperature: 1.5, repeat_penalty: 1.3, ..Sampling::default() },
        ..generate(context, 40)
    };
    let (mut machine, conn) = Machine::with_model("text=alphabet");
    let context = machine.open_with(conn, "seeded");
    let whole = generated(machine.call(conn, call(context))).text;
    let context = machine.open_with(conn, "seeded");
    let running = machine.begin(conn, call(context));
    while machine.events(conn, running).len() < 17 {
        assert!(machine.turn());
    }
    machine.kill_worker();
    assert_eq!(generated(machine.finish(conn, running)).text, whole);
}

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
    machine.call(conn, Truncate { context: poison, length: syscalls::Tokens(5) }).expect("shorter");
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
    let mut machine = before.crashed(kernel::core::KernelConfig::default());
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
        machine.event(kernel::core::Event::Disconnected { conn });
        let other = machine.connect(1001);
        assert!(machine.call(other, embed("fine")).is_ok());
    }
    let conn = machine.connect(1000);
    let fault = machine.call(conn, embed("fine")).expect_err("the user is refused");
    assert_eq!(fault.errno, Errno::EAGAIN);
}

#[test]
fn worker_that_keeps_dying_between_steps_goes_offline() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "now and then");
    let mut deaths = 0;
    while machine.stat(conn).worker_restarts == deaths {
        machine.generate(conn, context, 1);
        machine.call(conn, Truncate { context, length: syscalls::Tokens(3) }).expect("shorter");
        machine.pass_ms(10_000);
        machine.kill_worker();
        machine.run();
        deaths += 1;
        assert!(deaths < 40, "it never goes offline");
    }
    assert_eq!(deaths, 31);
    let Ok(Reply::Models(models)) = machine.call(conn, Models {}) else { panic!() };
    let trouble = models[0].trouble.clone().expect("it is offline");
    assert!(trouble.contains("31 times within 10 minutes; 30 are the limit"), "{trouble}");
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
    let fork = fork(Some(syscalls::Tokens(5)));
    let Ok(Reply::Forked { contexts }) = machine.call(conn, fork) else { panic!("it is copied") };
    assert_eq!(machine.generate(conn, contexts[0], 5).finish, Finish::Length);
}

#[test]
fn copy_of_a_suspect_and_what_is_opened_on_a_segment_of_it_run_alone() {
    let (mut machine, conn) = Machine::with_model("die_on_text=zzz");
    let other = machine.connect(crate::machine::ADMIN);
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
    let opening = Open { prefix: Some("suspect".into()), ..crate::machine::open() };
    let Ok(Reply::Opened { context, .. }) = machine.call(conn, opening) else { panic!("own segment") };
    assert_eq!(machine.call(conn, generate(context, 5)).expect_err("it kills").errno, Errno::EIO);
    assert_eq!(machine.stat(conn).worker_restarts, 4, "no other one was in the step");
    assert_eq!(generated(machine.finish(other, running)).text, reference("", "innocent", 300));
}

#[test]
fn suspects_have_no_more_tokens_than_their_rate() {
    let (mut machine, _) = Machine::with_model("step_us=9000,row_us=1000");
    let conn = machine.connect(crate::machine::ADMIN);
    let pid = machine.pid(conn);
    let limit = Setlimit { pid, limit: Limit::TokensPerSecond, value: Some(2), then: None };
    machine.call(conn, limit).expect("own limit");
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
    let long = machine.connect(crate::machine::ADMIN);
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

#[test]
fn step_failed_as_a_whole_is_run_again_by_a_fresh_worker() {
    for fault in ["fail_step=5", "garbage_at_step=5", "die_at_step=5", "hang_at_step=5"] {
        let (mut machine, conn) = Machine::with_model(fault);
        let context = machine.open_with(conn, "once more");
        assert_eq!(machine.generate(conn, context, 30).text, reference("", "once more", 30), "{fault}");
        assert_eq!(machine.stat(conn).worker_restarts, 1, "{fault}");
    }
}

#[test]
fn row_failed_fails_its_call_alone() {
    let (mut machine, conn) = Machine::with_model("fail_row_at_step=5");
    let (one, two) = (machine.open_with(conn, "row one"), machine.open_with(conn, "row two"));
    let calls = [one, two].map(|c| machine.begin(conn, generate(c, 30)));
    machine.run();
    let replies = calls.map(|c| machine.finish(conn, c));
    let failed = replies.iter().filter(|r| r.is_err()).count();
    assert_eq!(failed, 1);
    let text = replies.into_iter().flatten().map(|r| generated(Ok(r)).text).next();
    let expected = [reference("", "row one", 30), reference("", "row two", 30)];
    assert!(expected.contains(&text.expect("one is well")));
}

#[test]
fn row_failed_of_a_sequence_that_cannot_be_cut_loses_it_and_is_computed_again() {
    let (mut machine, conn) = Machine::with_model("fail_row_at_step=5,ranges=false");
    let names = ["row one", "row two"];
    let contexts = names.map(|name| machine.open_with(conn, name));
    let calls = contexts.map(|c| machine.begin(conn, generate(c, 30)));
    machine.run();
    let failed = calls.map(|c| machine.finish(conn, c).is_err());
    assert_eq!(failed.iter().filter(|failed| **failed).count(), 1);
    for ((name, context), failed) in std::iter::zip(names, contexts).zip(failed) {
        let had = match machine.call(conn, ReadTokens { context, from: Tokens(0), to: None }) {
            Ok(Reply::Tokens(log)) => log.len() - name.len(),
            other => panic!("{other:?}"),
        };
        let more = machine.generate(conn, context, 10).text;
        assert_eq!(more, reference("", name, 60)[had..had + 10], "{name}, failed: {failed}");
    }
    assert_eq!(machine.stat(conn).worker_restarts, 0, "no worker is given up for it");
}

#[test]
fn worker_that_cannot_be_kept_running_goes_offline() {
    let (mut machine, conn) = Machine::with_model("die_every=1");
    let contexts: Vec<_> = (0..12).map(|n| machine.open_with(conn, &format!("c{n}"))).collect();
    let calls: Vec<CallId> = contexts.iter().map(|c| machine.begin(conn, generate(*c, 5))).collect();
    machine.run();
    for call in calls {
        let errno = machine.finish(conn, call).expect_err("no step is ever done").errno;
        assert!(matches!(errno, Errno::EIO | Errno::ENODEV), "{errno}");
    }
}

#[test]
fn worker_dying_idle_over_and_over_goes_offline_and_says_so() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "offline");
    for _ in 0..6 {
        machine.kill_worker();
        machine.run();
    }
    assert_eq!(machine.delays, [0, 0, 200, 1000, 5000, 5000]);
    let Ok(Reply::Models(models)) = machine.call(conn, Models {}) else { panic!() };
    assert_eq!(models[0].state, ModelState::Offline);
    assert!(models[0].trouble.as_deref().is_some_and(|t| t.contains("SIGKILL")), "{models:?}");
    let fault = machine.call(conn, generate(context, 5)).expect_err("offline");
    assert_eq!(fault.errno, Errno::ENODEV);
    assert_eq!(machine.call(conn, append(context, "x")).expect_err("offline").errno, Errno::ENODEV);
    machine.call(conn, Unmount { name: "m".into(), force: true }).expect("it can be taken away");
    assert!(machine.mount(conn, "m", "").is_ok());
}

#[test]
fn worker_that_hangs_in_a_step_is_replaced_and_costs_no_token() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "hang");
    let running = machine.begin(conn, generate(context, 30));
    while machine.events(conn, running).len() < 10 {
        assert!(machine.turn());
    }
    // The step is never heard of again.
    machine.jobs.clear();
    machine.pass_ms(119_000);
    assert_eq!(machine.stat(conn).worker_restarts, 0, "it may take so long");
    let wake = machine.wake.expect("the kernel looks at the clock").0;
    assert!(wake <= machine.now + 17_000_000, "in time: {wake} at {}", machine.now);
    machine.now = wake;
    machine.event(KernelEvent::Tick);
    assert_eq!(machine.stat(conn).worker_restarts, 1);
    assert!(machine.logs.iter().any(|line| line.contains("counts as hung")), "{:?}", machine.logs);
    assert_eq!(generated(machine.finish(conn, running)).text, reference("", "hang", 30));
    assert_eq!(machine.wake, None, "nobody has anything to do");
}

#[test]
fn patience_that_is_configured_anew_goes_for_the_step_that_runs() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "hang");
    let running = machine.begin(conn, generate(context, 30));
    machine.jobs.clear();
    let config = KernelConfig { worker_patience_ms: 1000, ..KernelConfig::default() };
    machine.event(KernelEvent::Configured { config: Box::new(config) });
    machine.pass_ms(2000);
    assert_eq!(machine.stat(conn).worker_restarts, 1);
    assert_eq!(generated(machine.finish(conn, running)).text, reference("", "hang", 30));
}

#[test]
fn worker_that_hangs_over_a_question_gets_more_time_and_is_replaced() {
    let (mut machine, conn) = Machine::with_model("");
    let asking =
        machine.begin(conn, Tokenize { model: None, text: "quiet".into(), bos: false, special: false });
    machine.jobs.clear();
    machine.pass_ms(599_000);
    assert_eq!(machine.stat(conn).worker_restarts, 0);
    let wake = machine.wake.expect("the kernel looks at the clock").0;
    assert!(wake <= machine.now + 17_000_000, "in time: {wake} at {}", machine.now);
    machine.now = wake;
    machine.event(KernelEvent::Tick);
    assert_eq!(machine.stat(conn).worker_restarts, 1);
    assert!(matches!(machine.finish(conn, asking), Ok(Reply::Tokens(_))), "the next one answers it");
}

#[test]
fn worker_that_hangs_has_ended_before_its_successor_is_started() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "hang");
    let running = machine.begin(conn, generate(context, 30));
    machine.jobs.clear();
    machine.pass_ms(140_000);
    assert!(matches!(machine.jobs.front(), Some(Job::Died(..))), "it is killed");
    assert_eq!((machine.jobs.len(), machine.delays.len()), (1, 1), "it may still have its memory");
    machine.pass_ms(700_000);
    assert_eq!(machine.jobs.len(), 1, "the one that is not there yet does not hang");
    machine.turn();
    assert_eq!(machine.delays, [0, 0]);
    assert_eq!(generated(machine.finish(conn, running)).text, reference("", "hang", 30));
    assert_eq!(machine.stat(conn).worker_restarts, 1);
}

#[test]
fn model_that_is_unmounted_while_its_worker_is_killed_leaves_nothing() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "hang");
    machine.begin(conn, generate(context, 30));
    machine.jobs.clear();
    machine.pass_ms(140_000);
    machine.call(conn, Unmount { name: "m".into(), force: true }).expect("it is mounted");
    machine.run();
    assert_eq!(machine.delays, [0], "nobody wants another worker");
    machine.mount(conn, "m", "").expect("its memory is free");
}
