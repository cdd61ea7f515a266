//! Rates, inherited classes, learned rests, and limits that are out of their range.

use syscalls::call::*;
use syscalls::reply::ProcessState;
use syscalls::{CallId, Errno, Pid, Reply};

use kernel::core::Event;
use kernel::core::event::ConnId;

use crate::machine::{ADMIN, Machine, generate, generated, reference};

const TIMED: &str = "step_us=9000,row_us=1000,token_us=100,pool=65536,context=8192";

#[test]
fn rate_of_a_process_holds_and_its_neighbours_do_not_wait() {
    let (mut machine, conn) = Machine::with_model(TIMED);
    let slow = machine.connect(ADMIN);
    machine.limit(slow, Limit::TokensPerSecond, 10);
    let context = machine.open_with(slow, "slowly");
    let begin = machine.now;
    let call = machine.begin(slow, generate(context, 60));
    let neighbour = machine.open_with(conn, "neighbour");
    let text = machine.generate(conn, neighbour, 100).text;
    assert_eq!(text, reference("", "neighbour", 100));
    assert!(machine.now - begin < 1_400_000, "100 tokens took the neighbour {} µs", machine.now - begin);
    assert_eq!(generated(machine.finish_in_time(slow, call)).text, reference("", "slowly", 60));
    let seconds = (machine.now - begin) as f64 / 1e6;
    assert!((4.9..5.3).contains(&seconds), "10 at once and 50 at 10 a second took {seconds} s");
}

#[test]
fn rate_that_is_set_again_gives_nothing_back_that_was_used() {
    let (mut machine, _) = Machine::with_model(TIMED);
    let user = machine.connect(1000);
    let context = machine.open_with(user, "in a hurry");
    let begin = machine.now;
    for rate in [10, 10, 9, 9, 8] {
        machine.limit(user, Limit::TokensPerSecond, rate);
        let call = machine.begin(user, generate(context, 10));
        machine.finish_in_time(user, call).expect("it ends");
    }
    let seconds = (machine.now - begin) as f64 / 1e6;
    assert!((4.0..5.5).contains(&seconds), "10 at once and 40 at 8 to 10 a second took {seconds} s");
}

#[test]
fn generation_that_has_used_its_rate_up_holds_no_frames_against_its_class() {
    for host_pages in [0, 64] {
        // Eight frames, and without swap all that goes is computed again.
        let script = "step_us=9000,row_us=1000,token_us=100,pool=512,context=512";
        let (mut machine, _) = Machine::with_swap(script, host_pages, 0);
        let slow = machine.connect(ADMIN);
        machine.limit(slow, Limit::TokensPerSecond, 1);
        let filling = "fills the pool ".repeat(28);
        let context = machine.open_with(slow, &filling);
        let call = machine.begin(slow, generate(context, 40));
        while machine.events(slow, call).is_empty() {
            assert!(machine.turn());
        }
        // One neighbour after another, and some at once.
        for n in 0..4 {
            let neighbour = machine.connect(ADMIN);
            let prompts = [0, 1].map(|at| format!("{n} {at} ").repeat(50));
            let begin = machine.now;
            let calls = prompts.clone().map(|prompt| {
                let context = machine.open_with(neighbour, &prompt);
                machine.begin(neighbour, generate(context, 50))
            });
            for (prompt, call) in prompts.iter().zip(calls) {
                let text = generated(machine.finish_in_time(neighbour, call)).text;
                assert_eq!(text, reference(script, prompt, 50));
            }
            let took = machine.now - begin;
            assert!(took < 3_500_000, "100 tokens of {n} took {took} µs with {host_pages} pages of swap");
            assert!(machine.reply(slow, call).is_none(), "the slow one goes on");
        }
        let had = machine.events(slow, call).len();
        assert!(had >= 2, "{had} tokens beside the others");
        assert_eq!(generated(machine.finish_in_time(slow, call)).text, reference(script, &filling, 40));
    }
}

#[test]
fn process_that_waits_for_tokens_of_its_rate_says_so() {
    let (mut machine, conn) = Machine::with_model(TIMED);
    let slow = machine.connect(ADMIN);
    let pid = machine.pid(slow);
    machine.limit(slow, Limit::TokensPerSecond, 1);
    let context = machine.open_with(slow, "slowly");
    machine.generate(slow, context, 1);
    let second = machine.open_with(slow, "slowly, too");
    let call = machine.begin(slow, generate(second, 1));
    machine.run();
    let info = machine.ps(conn).into_iter().find(|p| p.pid == pid).expect("it lives");
    assert_eq!(info.waits_for.as_deref(), Some("tokens of its rate"));
    machine.finish_in_time(slow, call).expect("it has a token by then");
    // Its token is used up, and the next one of this is due in a second: it is in memory, and has no work for a step.
    let call = machine.begin(slow, generate(second, 2));
    while machine.events(slow, call).is_empty() {
        if !machine.turn() {
            let wake = machine.wake.expect("it is to have a token again");
            machine.now = machine.now.max(wake.0);
            machine.event(Event::Tick);
        }
    }
    let info = machine.ps(conn).into_iter().find(|p| p.pid == pid).expect("it lives");
    assert_eq!((info.state, info.waits_for.as_deref()), (ProcessState::Blocked, Some("tokens of its rate")));
}

#[test]
fn process_that_may_go_on_during_a_step_hides_no_later_alarm() {
    let (mut machine, conn) = Machine::with_model(TIMED);
    let slow = machine.connect(ADMIN);
    machine.limit(slow, Limit::TokensPerSecond, 1);
    let context = machine.open_with(slow, "slowly");
    let call = machine.begin(slow, generate(context, 10));
    while machine.events(slow, call).is_empty() {
        assert!(machine.turn());
    }
    // Its next token is due while a step runs that does not end.
    let other = machine.open_with(conn, "hangs");
    machine.begin(conn, generate(other, 10));
    let waiting = machine.begin(conn, Receive { timeout_ms: Some(5000) });
    while machine.reply(conn, waiting).is_none() {
        // An alarm goes off once.
        let wake = machine.wake.take().expect("the kernel wants to be woken");
        machine.now = machine.now.max(wake.0);
        machine.event(Event::Tick);
    }
    assert!(machine.now < 7_000_000, "it was to wait for 5 s, and waited until {} µs", machine.now);
}

#[test]
fn rate_of_a_group_holds_for_all_in_it() {
    let (mut machine, _) = Machine::with_model(TIMED);
    let conns = [machine.connect(1000), machine.connect(1000)];
    let limit = Setgroup {
        group: "/user.1000".into(),
        weight: None,
        limit: Some(GroupLimit::TokensPerSecond),
        value: Some(20),
        remove: false,
    };
    let admin = machine.connect(ADMIN);
    machine.call(admin, limit).expect("the administrator");
    let begin = machine.now;
    let calls = conns.map(|conn| {
        let context = machine.open_with(conn, "in a group");
        (conn, machine.begin(conn, generate(context, 40)))
    });
    for (conn, call) in calls {
        assert_eq!(generated(machine.finish_in_time(conn, call)).tokens.len(), 40);
    }
    let seconds = (machine.now - begin) as f64 / 1e6;
    assert!((2.9..3.3).contains(&seconds), "20 at once and 60 at 20 a second took {seconds} s");
}

#[test]
fn child_that_is_waited_for_runs_in_the_waiters_class() {
    let (mut machine, normal) = Machine::with_model(TIMED);
    let watched = machine.connect_as(ADMIN, Class::Interactive, 0);
    let spawn = Spawn { class: Some(Class::Batch), ..syscalls::client::spawn("helper") };
    let Ok(Reply::Spawned { pid }) = machine.call(watched, spawn) else { panic!("it spawns") };
    let Ok(Reply::Opened { context, .. }) = machine.call_as(watched, Some(pid), crate::machine::open())
    else {
        panic!("it opens")
    };
    let text = crate::machine::append_bytes(context, &"h".repeat(6000));
    machine.call_as(watched, Some(pid), text).expect("it fits");
    let slow = machine.open_with(normal, &"n".repeat(6000));
    let first = machine.begin(normal, generate(slow, 1));
    let helping = machine.begin_as(watched, Some(pid), generate(context, 1));
    let waiting = machine.begin(watched, Wait { pid: Some(pid), timeout_ms: None });
    while machine.reply(watched, helping).is_none() {
        assert!(machine.turn());
    }
    assert!(machine.reply(normal, first).is_none(), "the helper of somebody who watches goes before normal");
    machine.begin_as(watched, Some(pid), Exit { status: 0 });
    assert!(matches!(machine.finish(watched, waiting), Ok(Reply::Waited { .. })));
}

/// Children of the class batch.
fn helpers(machine: &mut Machine, parent: ConnId, count: usize) -> Vec<Pid> {
    let mut spawned = || {
        let spawn = Spawn { class: Some(Class::Batch), ..syscalls::client::spawn("helper") };
        match machine.call(parent, spawn) {
            Ok(Reply::Spawned { pid }) => pid,
            other => panic!("{other:?}"),
        }
    };
    (0..count).map(|_| spawned()).collect()
}

/// Lets a process compute a long prompt; the call of its generation.
fn compute_as(machine: &mut Machine, conn: ConnId, pid: Pid, letter: &str) -> CallId {
    let Ok(Reply::Opened { context, .. }) = machine.call_as(conn, Some(pid), crate::machine::open()) else {
        panic!("it opens")
    };
    let text = crate::machine::append_bytes(context, &letter.repeat(6000));
    machine.call_as(conn, Some(pid), text).expect("it fits");
    machine.begin_as(conn, Some(pid), generate(context, 1))
}

#[test]
fn any_of_several_children_that_is_waited_for_runs_in_the_waiters_class() {
    let (mut machine, normal) = Machine::with_model(TIMED);
    let watched = machine.connect_as(ADMIN, Class::Interactive, 0);
    let children = helpers(&mut machine, watched, 3);
    let own = machine.pid(normal);
    let first = compute_as(&mut machine, normal, own, "n");
    let mut helping = vec![compute_as(&mut machine, watched, children[0], "a")];
    let waiting = machine.begin(watched, Wait { pid: None, timeout_ms: None });
    helping.push(compute_as(&mut machine, watched, children[2], "b"));
    // One that comes while its parent waits.
    let late = helpers(&mut machine, watched, 1)[0];
    helping.push(compute_as(&mut machine, watched, late, "c"));
    while helping.iter().any(|call| machine.reply(watched, *call).is_none()) {
        assert!(machine.turn());
    }
    assert!(machine.reply(normal, first).is_none(), "all of them go before normal");
    machine.begin_as(watched, Some(children[1]), Exit { status: 0 });
    assert!(matches!(machine.finish(watched, waiting), Ok(Reply::Waited { .. })));
    let slow = compute_as(&mut machine, watched, children[0], "d");
    let second = compute_as(&mut machine, normal, own, "m");
    while machine.reply(normal, second).is_none() {
        assert!(machine.turn());
    }
    assert!(machine.reply(watched, slow).is_none(), "they are batch again");
}

#[test]
fn class_of_one_who_waits_counts_however_many_others_wait() {
    let (mut machine, normal) = Machine::with_model(TIMED);
    let helper = machine.connect_as(ADMIN, Class::Batch, 0);
    let pid = machine.pid(helper);
    let mut waiters = vec![Class::Batch; 100];
    waiters.push(Class::Interactive);
    for class in waiters {
        let conn = machine.connect_as(ADMIN, class, 0);
        machine.call(conn, Send { pid, data: "help".into() }).expect("it is there");
        machine.begin(conn, Receive { timeout_ms: None });
    }
    let own = machine.pid(normal);
    let first = compute_as(&mut machine, normal, own, "n");
    let helping = compute_as(&mut machine, helper, pid, "h");
    while machine.reply(helper, helping).is_none() {
        assert!(machine.turn());
    }
    assert!(machine.reply(normal, first).is_none(), "it goes before normal");
}

#[test]
fn class_of_a_waiter_that_changes_passes_on_to_all_of_its_children() {
    let (mut machine, normal) = Machine::with_model(TIMED);
    let parent = machine.connect_as(ADMIN, Class::Batch, 0);
    let children = helpers(&mut machine, parent, 100);
    let own = machine.pid(normal);
    let first = compute_as(&mut machine, normal, own, "n");
    let helping = compute_as(&mut machine, parent, children[99], "a");
    machine.begin(parent, Wait { pid: None, timeout_ms: None });
    let pid = machine.pid(parent);
    let raise = Setpriority { pid, class: Some(Class::Interactive), nice: None };
    machine.call(normal, raise).expect("the administrator");
    while machine.reply(parent, helping).is_none() {
        assert!(machine.turn());
    }
    assert!(machine.reply(normal, first).is_none(), "it runs in the new class of its parent");
}

#[test]
fn class_is_given_back_when_the_wait_is_over() {
    let (mut machine, normal) = Machine::with_model(TIMED);
    let watched = machine.connect_as(ADMIN, Class::Interactive, 0);
    let spawn = Spawn { class: Some(Class::Batch), ..syscalls::client::spawn("helper") };
    let Ok(Reply::Spawned { pid }) = machine.call(watched, spawn) else { panic!("it spawns") };
    let waiting = machine.begin(watched, Wait { pid: Some(pid), timeout_ms: Some(10) });
    machine.pass_ms(20);
    assert_eq!(machine.finish(watched, waiting).expect_err("time is up").errno, Errno::ETIMEDOUT);
    let Ok(Reply::Opened { context, .. }) = machine.call_as(watched, Some(pid), crate::machine::open())
    else {
        panic!("it opens")
    };
    let text = crate::machine::append_bytes(context, &"h".repeat(6000));
    machine.call_as(watched, Some(pid), text).expect("it fits");
    let other = machine.open_with(normal, &"n".repeat(6000));
    let helping = machine.begin_as(watched, Some(pid), generate(context, 1));
    let first = machine.begin(normal, generate(other, 1));
    while machine.reply(normal, first).is_none() {
        assert!(machine.turn());
    }
    assert!(machine.reply(watched, helping).is_none(), "it is batch again");
}

#[test]
fn processes_that_wait_for_each_other_in_a_circle_keep_no_class() {
    let (mut machine, _) = Machine::with_model(TIMED);
    let conns = [Class::Normal, Class::Batch].map(|class| machine.connect_as(ADMIN, class, 0));
    let pids = conns.map(|conn| machine.pid(conn));
    for (at, conn) in conns.into_iter().enumerate() {
        machine.call(conn, Send { pid: pids[1 - at], data: "hello".into() }).expect("it is there");
        machine.call(conn, Receive { timeout_ms: Some(0) }).ok();
    }
    machine.call(conns[0], Receive { timeout_ms: Some(0) }).ok();
    let calls = conns.map(|conn| machine.begin(conn, Receive { timeout_ms: Some(10) }));
    let urgent = machine.connect_as(ADMIN, Class::Realtime, 0);
    machine.call(urgent, Send { pid: pids[0], data: "now".into() }).expect("it is there");
    machine.pass_ms(50);
    for (conn, call) in conns.into_iter().zip(calls) {
        assert!(machine.reply(conn, call).is_some());
    }
}

#[test]
fn rests_between_generations_are_learned_for_each_process() {
    let (mut machine, conn) = Machine::with_model(TIMED);
    let (quick, slow) = (machine.connect(ADMIN), machine.connect(ADMIN));
    for (conn, ms) in [(quick, 50), (slow, 20_000)] {
        let context = machine.open_with(conn, "calls tools");
        for _ in 0..4 {
            machine.generate(conn, context, 5);
            machine.pass_ms(ms);
        }
        machine.generate(conn, context, 1);
    }
    let pids = [machine.pid(quick), machine.pid(slow), machine.pid(conn)];
    let list = machine.ps(conn);
    let idle = pids.map(|pid| list.iter().find(|p| p.pid == pid).and_then(|p| p.expected_idle_us));
    assert!(idle[1].is_some_and(|us| (20_000_000..21_000_000).contains(&us)), "{idle:?}");
    assert_eq!(idle[2], None, "it has never rested");
    // The quick one has been idle for the 80 seconds of the other by now: longer than usual.
    assert!(idle[0].is_some_and(|us| us >= 80_000_000), "{idle:?}");
    let context = machine.open_with(quick, "comes back");
    machine.generate(quick, context, 1);
}

#[test]
fn slow_reader_counts_as_resting() {
    let (mut machine, conn) = Machine::with_model(TIMED);
    let reader = machine.connect(ADMIN);
    let context = machine.open_with(reader, "reads slowly");
    let call = machine.begin(reader, generate(context, 50));
    for _ in 0..5 {
        machine.turn();
    }
    machine.event(Event::OutputHigh { conn: reader });
    machine.run();
    machine.pass_ms(3000);
    machine.event(Event::OutputLow { conn: reader });
    machine.finish(reader, call).expect("it ends");
    let pid = machine.pid(reader);
    let idle = machine.ps(conn).into_iter().find(|p| p.pid == pid).and_then(|p| p.expected_idle_us);
    assert!(idle.is_some_and(|us| (3_000_000..3_100_000).contains(&us)), "{idle:?}");
}

#[test]
fn limits_of_zero_are_refused_or_say_what_they_forbid() {
    let (mut machine, conn) = Machine::with_model(TIMED);
    let context = machine.open_with(conn, "limits");
    let limit = |machine: &mut Machine, limit, value| {
        let pid = machine.pid(conn);
        machine.call(conn, Setlimit { pid, limit, value, then: None })
    };
    let fault = limit(&mut machine, Limit::TokensPerSecond, Some(0)).expect_err("for ever");
    assert_eq!(fault.errno, Errno::EINVAL);
    assert!(fault.message.contains("tokens_per_second is 0"), "{fault}");
    let cases = [
        (Limit::Contexts, Errno::EMFILE, "limit is 0"),
        (Limit::ContextTokens, Errno::E2BIG, "limit is 0"),
        (Limit::ResidentFrames, Errno::ENOMEM, "limit is 0"),
        (Limit::GeneratedTokens, Errno::E2BIG, "limit is 0"),
    ];
    for (which, errno, words) in cases {
        limit(&mut machine, which, Some(0)).expect("own limit");
        let fault = match which {
            Limit::Contexts => machine.call(conn, crate::machine::open()),
            Limit::ContextTokens => machine.call(conn, crate::machine::append_bytes(context, "more")),
            _ => machine.call(conn, generate(context, 1)),
        };
        let fault = fault.expect_err("nothing is allowed");
        assert_eq!(fault.errno, errno, "{fault}");
        assert!(fault.message.contains(words), "{fault}");
        limit(&mut machine, which, None).expect("the administrator lifts it");
    }
    let pid = machine.pid(conn);
    let nice = Setpriority { pid, class: None, nice: Some(20) };
    assert_eq!(machine.call(conn, nice).expect_err("nice").errno, Errno::EINVAL);
}
