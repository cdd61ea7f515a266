//! Workers that die, fail, lie and hang.

use kernel::core::{Event as KernelEvent, KernelConfig};
use syscalls::call::*;
use syscalls::reply::ModelState;
use syscalls::{CallId, Errno, Event, Reply, Tokens};

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
fn worker_that_keeps_dying_between_steps_goes_offline() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "now and then");
    let mut deaths = 0;
    while machine.stat(conn).worker_restarts == deaths {
        machine.generate(conn, context, 1);
        machine.call(conn, Truncate { context, length: Tokens(3) }).expect("shorter");
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
