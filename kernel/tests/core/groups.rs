//! Groups: shares, limits and pressure of processes together.

use kernel::core::event::ConnId;
use kernel::core::{Event, KernelConfig};
use syscalls::call::*;
use syscalls::limits::GROUPS_PER_USER_MAX;
use syscalls::reply::{Finish, GroupInfo, ProcessState};
use syscalls::{CallId, ContextId, Errno, Pid, Reply, Tokens};

use crate::machine::{ADMIN, Machine, append_bytes, generate, generated, open, reference};

const TIMED: &str = "step_us=9000,row_us=1000,token_us=100,pool=65536,context=8192";

fn setgroup(group: &str) -> Setgroup {
    Setgroup { group: group.into(), weight: None, limit: None, value: None, remove: false }
}

fn limit(group: &str, limit: GroupLimit, value: u64) -> Setgroup {
    Setgroup { limit: Some(limit), value: Some(value), ..setgroup(group) }
}

impl Machine {
    fn groups(&mut self, conn: ConnId) -> Vec<GroupInfo> {
        match self.call(conn, Groups {}) {
            Ok(Reply::Groups(list)) => list,
            other => panic!("{other:?}"),
        }
    }

    fn group(&mut self, conn: ConnId, name: &str) -> GroupInfo {
        self.groups(conn).into_iter().find(|g| g.name == name).unwrap_or_else(|| panic!("no group {name}"))
    }

    pub fn spawn_in(&mut self, conn: ConnId, group: &str) -> Pid {
        let spawn = Spawn { group: Some(group.into()), ..syscalls::client::spawn("p") };
        match self.call(conn, spawn) {
            Ok(Reply::Spawned { pid }) => pid,
            other => panic!("{other:?}"),
        }
    }

    pub fn open_as(&mut self, conn: ConnId, pid: Pid, text: &str) -> ContextId {
        let Ok(Reply::Opened { context, .. }) = self.call_as(conn, Some(pid), open()) else {
            panic!("it opens")
        };
        self.call_as(conn, Some(pid), append_bytes(context, text)).expect("it fits");
        context
    }
}

#[test]
fn groups_inside_a_group_share_by_weight() {
    let mut machine =
        Machine::new(KernelConfig { fair_lag_us: 50_000, fair_lag_tokens: 0, ..KernelConfig::default() });
    let admin = machine.connect(ADMIN);
    machine.mount(admin, "m", TIMED).expect("it mounts");
    let conn = machine.connect(1000);
    machine.call(conn, Setgroup { weight: Some(300), ..setgroup("work/day") }).expect("inside the own group");
    let pids = ["work/day", "work/night", "work/night"].map(|group| machine.spawn_in(conn, group));
    for pid in pids {
        let context = machine.open_as(conn, pid, "a process in a group");
        let call = Generate { stream: false, ..generate(context, 8000) };
        machine.begin_as(conn, Some(pid), call);
    }
    machine.run_until(30_000_000);
    let list = machine.ps(admin);
    let service = pids.map(|pid| list.iter().find(|p| p.pid == pid).map_or(0, |p| p.service_us));
    let night = service[1] + service[2];
    assert!(service[0].abs_diff(3 * night) < 600_000, "{service:?} µs at weights of 300 to 100");
    assert!(service[1].abs_diff(service[2]) < 200_000, "{service:?}");
    let group = list.iter().find(|p| p.pid == pids[0]).map(|p| p.group.as_str());
    assert_eq!(group, Some("user.1000/work/day"));
}

#[test]
fn limits_of_a_group_hold_for_all_its_processes_together() {
    let (mut machine, _) = Machine::with_model(TIMED);
    let conn = machine.connect(1000);
    machine.call(conn, limit("small", GroupLimit::Contexts, 3)).expect("own group");
    machine.call(conn, limit("small", GroupLimit::ContextTokens, 100)).expect("own group");
    let (one, two) = (machine.spawn_in(conn, "small"), machine.spawn_in(conn, "small/inside"));
    machine.open_as(conn, one, &"x".repeat(60));
    let second = machine.open_as(conn, two, &"x".repeat(30));
    machine.call_as(conn, Some(two), open()).expect("the third");
    let fault = machine.call_as(conn, Some(one), open()).expect_err("the fourth");
    assert_eq!(fault.errno, Errno::EMFILE);
    assert!(
        fault.message.contains("group user.1000/small has 3 contexts")
            && fault.message.contains("limit is 3")
    );
    let fault = machine.call_as(conn, Some(two), append_bytes(second, "eleven more")).expect_err("too many");
    assert_eq!(fault.errno, Errno::E2BIG);
    assert!(fault.message.contains("has 90 tokens") && fault.message.contains("limit is 100"), "{fault}");
    machine.open_as(conn, machine.pid(conn), "another group is not concerned");
}

#[test]
fn generations_end_where_their_group_has_all_the_tokens_that_it_may_have() {
    let (mut machine, _) = Machine::with_model(TIMED);
    let conn = machine.connect(1000);
    machine.call(conn, limit("small", GroupLimit::ContextTokens, 100)).expect("own group");
    let pids = [machine.spawn_in(conn, "small"), machine.spawn_in(conn, "small/inside")];
    let calls = pids.map(|pid| {
        let context = machine.open_as(conn, pid, &"x".repeat(30));
        (pid, context, machine.begin_as(conn, Some(pid), generate(context, 90)))
    });
    for (_, _, call) in calls {
        assert_eq!(generated(machine.finish(conn, call)).finish, Finish::ContextFull);
    }
    let tokens = machine.group(conn, "user.1000/small").context_tokens;
    assert!((100..=101).contains(&tokens), "{tokens} tokens, one of which may have come in the same step");
    let (pid, context, _) = calls[0];
    let fault = machine.call_as(conn, Some(pid), generate(context, 1)).expect_err("not a token more");
    assert_eq!(fault.errno, Errno::E2BIG);
    assert!(fault.message.contains("its limit is 100"), "{fault}");
    machine.call_as(conn, Some(pid), Truncate { context, length: Tokens(10) }).expect("shorter");
    let reply = generated(machine.call_as(conn, Some(pid), generate(context, 5)));
    assert_eq!(reply.finish, Finish::Length);
}

#[test]
fn frames_limit_of_a_group_makes_its_work_wait_and_not_others() {
    let (mut machine, _) = Machine::with_model("pool=4096,context=1024");
    let conn = machine.connect(1000);
    machine.call(conn, limit("tight", GroupLimit::ResidentFrames, 4)).expect("own group");
    let pids = [machine.spawn_in(conn, "tight"), machine.spawn_in(conn, "tight")];
    let mut calls = Vec::new();
    for n in 0..6 {
        let pid = pids[n % 2];
        let context = machine.open_as(conn, pid, &format!("{n} {}", "y".repeat(60)));
        calls.push((n, machine.begin_as(conn, Some(pid), generate(context, 90))));
    }
    let free = machine.connect(2000);
    let context = machine.open_with(free, &"z".repeat(600));
    machine.generate(free, context, 20);
    let mut most = 0;
    while machine.turn() {
        most = most.max(machine.group(conn, "user.1000/tight").frames);
    }
    assert!(most <= 4, "the group had {most} frames");
    for (n, call) in calls {
        let text = generated(machine.finish(conn, call)).text;
        assert_eq!(text, reference("", &format!("{n} {}", "y".repeat(60)), 90));
    }
    let large = machine.open_as(conn, pids[0], &"y".repeat(300));
    let fault = machine.call_as(conn, Some(pids[0]), generate(large, 5)).expect_err("five frames");
    assert_eq!(fault.errno, Errno::ENOMEM);
    assert!(fault.message.contains("limit is 4"), "{fault}");
}

#[test]
fn copies_take_a_group_no_further_than_its_limit_of_frames() {
    let (mut machine, _) = Machine::with_model("pool=4096,context=1024");
    let conn = machine.connect(1000);
    machine.call(conn, limit("tight", GroupLimit::ResidentFrames, 6)).expect("own group");
    let pid = machine.spawn_in(conn, "tight");
    let prompt = "y".repeat(150);
    let context = machine.open_as(conn, pid, &prompt);
    generated(machine.call_as(conn, Some(pid), generate(context, 4)));
    let fork = Fork { context, copies: 5, length: None };
    let Ok(Reply::Forked { contexts }) = machine.call_as(conn, Some(pid), fork) else {
        panic!("it is copied")
    };
    let frames = machine.group(conn, "user.1000/tight").frames;
    assert_eq!(frames, 6, "of three frames each the group has room for two");
    for context in contexts {
        let said = generated(machine.call_as(conn, Some(pid), generate(context, 4))).text;
        assert_eq!(said, reference("", &prompt, 8)[4..]);
        assert!(machine.group(conn, "user.1000/tight").frames <= 6);
    }
}

#[test]
fn soft_limit_lets_others_go_first_and_holds_nobody_alone() {
    let (mut machine, _) = Machine::with_model("pool=65536,context=1024,sequences=3");
    let greedy = machine.connect(1000);
    let other = machine.connect(2000);
    machine.call(greedy, limit("soft", GroupLimit::ResidentFramesSoft, 1)).expect("own group");
    let pid = machine.spawn_in(greedy, "soft");
    let calls: Vec<_> = (0..6)
        .map(|n| {
            let context = machine.open_as(greedy, pid, &format!("greedy {n}"));
            machine.begin_as(greedy, Some(pid), generate(context, 30))
        })
        .collect();
    let context = machine.open_with(other, "the other");
    let call = machine.begin(other, generate(context, 30));
    machine.finish(other, call).expect("it ends");
    let done = calls.iter().filter(|c| machine.reply(greedy, **c).is_some()).count();
    assert!(done <= 2, "{done} of the group were done before the one that came last");
    machine.run();
    assert!(calls.iter().all(|c| machine.reply(greedy, *c).is_some_and(|r| r.is_ok())));
}

#[test]
fn soft_limit_holds_nobody_although_more_than_are_looked_at_are_above_it() {
    let (mut machine, _) = Machine::with_model("pool=65536,context=1024,sequences=3");
    let greedy = machine.connect(1000);
    machine.call(greedy, limit("soft", GroupLimit::ResidentFramesSoft, 1)).expect("own group");
    let pid = machine.spawn_in(greedy, "soft");
    let first = machine.open_as(greedy, pid, "idle and above the limit");
    machine.call_as(greedy, Some(pid), generate(first, 5)).expect("nobody else waits");
    let contexts: Vec<_> = (0..40).map(|n| machine.open_as(greedy, pid, &format!("greedy {n}"))).collect();
    machine.call_as(greedy, Some(pid), Kill { pid, signal: Signal::Stop }).expect("it stops");
    let calls: Vec<_> =
        contexts.iter().map(|c| machine.begin_as(greedy, Some(pid), generate(*c, 10))).collect();
    machine.call(greedy, Kill { pid, signal: Signal::Cont }).expect("it goes on");
    for call in calls {
        machine.finish(greedy, call).expect("it ends");
    }
}

/// A process of a group above its soft limit with so many generations, of which the first runs and the others wait.
fn crowd_above_its_soft_limit(machine: &mut Machine, conn: ConnId, count: usize) -> (Pid, Vec<CallId>) {
    machine.call(conn, limit("soft", GroupLimit::ResidentFramesSoft, 1)).expect("own group");
    let pid = machine.spawn_in(conn, "soft");
    let contexts: Vec<_> = (0..count).map(|n| machine.open_as(conn, pid, &format!("greedy {n}"))).collect();
    let first = machine.begin_as(conn, Some(pid), generate(contexts[0], 40));
    while machine.events(conn, first).is_empty() {
        assert!(machine.turn());
    }
    let rest = contexts[1..].iter().map(|c| machine.begin_as(conn, Some(pid), generate(*c, 40)));
    (pid, std::iter::once(first).chain(rest.collect::<Vec<_>>()).collect())
}

#[test]
fn generations_of_a_group_above_its_soft_limit_come_in_in_their_order() {
    let (mut machine, _) = Machine::with_model("pool=65536,context=1024,sequences=2");
    let conn = machine.connect(1000);
    let (pid, mut calls) = crowd_above_its_soft_limit(&mut machine, conn, 4);
    let mut done = Vec::new();
    // Another one comes whenever one is done.
    for n in 0..6 {
        while calls.iter().all(|c| machine.reply(conn, *c).is_none() || done.contains(c)) {
            assert!(machine.turn());
        }
        done.extend(calls.iter().filter(|c| machine.reply(conn, **c).is_some()).find(|c| !done.contains(c)));
        let context = machine.open_as(conn, pid, &format!("later {n}"));
        calls.push(machine.begin_as(conn, Some(pid), generate(context, 40)));
    }
    assert_eq!(done, calls[..6], "the first that came is the first that is done");
    machine.run();
}

#[test]
fn soft_limit_leaves_no_room_empty_and_lets_those_far_behind_in_line_go_first() {
    let (mut machine, _) = Machine::with_model("pool=65536,context=1024,sequences=5");
    let conn = machine.connect(1000);
    let (_, calls) = crowd_above_its_soft_limit(&mut machine, conn, 41);
    (0..8).for_each(|_| assert!(machine.turn()));
    let rows = machine.steps.iter().map(|step| step.rows.len()).max();
    assert_eq!(rows, Some(4), "nobody else waits, and there are four sequences to lend");
    let other = machine.connect(2000);
    let context = machine.open_with(other, "behind forty of them");
    let call = machine.begin(other, generate(context, 10));
    machine.finish(other, call).expect("it ends");
    let done = calls.iter().filter(|c| machine.reply(conn, **c).is_some()).count();
    assert!(done <= 4, "{done} of the group were done before the one that came last");
    machine.run();
    assert!(calls.iter().all(|c| machine.reply(conn, *c).is_some_and(|r| r.is_ok())));
}

#[test]
fn pressure_tells_what_work_waits_for() {
    let (mut machine, admin) = Machine::with_model(&format!("{TIMED},sequences=3"));
    let conn = machine.connect(1000);
    for n in 0..4 {
        machine.endless(conn, &format!("crowded {n}"));
    }
    machine.run_until(20_000_000);
    let group = machine.group(admin, "user.1000");
    assert!(group.memory.some[0] > 80.0, "two of four wait for a sequence: {:?}", group.memory);
    assert_eq!(group.memory.full, [0.0; 3], "the others run");
    assert!(group.steps.some[0] < 1.0, "{:?}", group.steps);
    assert_eq!((group.processes, group.contexts), (1, 4));
    let all = machine.group(admin, "/");
    assert_eq!(all.memory, group.memory, "nobody else is there");
}

#[test]
fn pressure_is_full_where_all_of_a_group_wait() {
    let (mut machine, admin) = Machine::with_model(&format!("{TIMED},sequences=2"));
    let (first, second) = (machine.connect(1000), machine.connect(2000));
    machine.endless(first, "it has the only sequence");
    machine.turn();
    machine.endless(second, "it has none");
    machine.run_until(30_000_000);
    let waiting = machine.group(admin, "user.2000");
    assert!(waiting.memory.some[0] > 90.0, "{:?}", waiting.memory);
    assert_eq!(waiting.memory.full, waiting.memory.some, "nobody of it runs");
    let all = machine.group(admin, "/");
    assert_eq!(all.memory.full, [0.0; 3], "somebody runs");
}

#[test]
fn pressure_of_steps_is_that_of_rows_left_out() {
    // A row costs as much as the step, so that no lower class goes along for nothing.
    let (mut machine, admin) = Machine::with_model("step_us=1000,row_us=9000,pool=65536,context=65536");
    let (first, second) = (machine.connect(1000), machine.connect_as(2000, Class::Batch, 0));
    machine.endless(first, "it has rows in every step");
    machine.endless(second, "it has one in twenty");
    machine.run_until(60_000_000);
    let [always, seldom, all] = ["user.1000", "user.2000", "/"].map(|name| machine.group(admin, name).steps);
    assert!(always.some[0] < 1.0 && always.full[0] < 1.0, "{always:?}");
    assert!(seldom.some[0] > 80.0, "{seldom:?}");
    assert_eq!(seldom.full, seldom.some, "it is alone in its group");
    assert!(all.some[0] > 80.0 && all.full[0] < 1.0, "one of the two has a row: {all:?}");
}

#[test]
fn pressure_knows_nothing_of_rows_of_a_group_that_has_gone() {
    let (mut machine, admin) = Machine::with_model("step_us=1000,row_us=9000,pool=65536,context=65536");
    let gone = machine.connect(3000);
    machine.endless(gone, "it goes in the middle of a step");
    machine.event(Event::Disconnected { conn: gone });
    let (first, second) = (machine.connect(1000), machine.connect_as(2000, Class::Batch, 0));
    machine.endless(first, "it has rows in every step");
    machine.endless(second, "it has one in twenty");
    machine.run_until(60_000_000);
    let all = machine.group(admin, "/").steps;
    assert!(all.some[0] > 80.0, "one of the two has no row: {all:?}");
}

#[test]
fn groups_belong_to_their_user_and_go_when_they_are_empty() {
    let (mut machine, admin) = Machine::with_model(TIMED);
    let conn = machine.connect(1000);
    let errno = |reply: Result<Reply, syscalls::Fault>| reply.expect_err("refused").errno;
    assert_eq!(errno(machine.call(conn, setgroup("/user.2000/x"))), Errno::EPERM);
    assert_eq!(errno(machine.call(conn, setgroup("a//b"))), Errno::EINVAL);
    assert_eq!(errno(machine.call(conn, setgroup("a b"))), Errno::EINVAL);
    assert_eq!(errno(machine.call(conn, setgroup("a/b/c/d/e/f/g/h"))), Errno::E2BIG);
    assert_eq!(errno(machine.call(conn, Setgroup { weight: Some(0), ..setgroup("a") })), Errno::EINVAL);
    assert_eq!(errno(machine.call(conn, limit("a", GroupLimit::TokensPerSecond, 0))), Errno::EINVAL);
    let pid = machine.spawn_in(conn, "jobs/nightly");
    machine.call(conn, setgroup("kept")).expect("own group");
    machine.call(admin, Setgroup { weight: Some(50), ..setgroup("/user.1000") }).expect("the administrator");
    let names =
        |machine: &mut Machine, conn| machine.groups(conn).into_iter().map(|g| g.name).collect::<Vec<_>>();
    let all = names(&mut machine, conn);
    assert!(
        all.contains(&"user.1000/jobs/nightly".to_owned()) && !all.contains(&"user.0".to_owned()),
        "{all:?}"
    );
    machine.call(conn, Kill { pid, signal: Signal::Kill }).expect("own child");
    machine.call(conn, Wait { pid: Some(pid), timeout_ms: None }).expect("it has ended");
    let all = names(&mut machine, admin);
    assert!(!all.iter().any(|name| name.contains("nightly")), "{all:?}");
    assert!(all.contains(&"user.1000/kept".to_owned()), "{all:?}");
    machine.call(conn, Setgroup { remove: true, ..setgroup("kept") }).expect("own group");
    assert!(!names(&mut machine, admin).contains(&"user.1000/kept".to_owned()));
}

#[test]
fn groups_of_a_user_are_bounded_and_leave_room_for_those_of_others() {
    let mut machine = Machine::default();
    let conn = machine.connect(1000);
    for n in 0..GROUPS_PER_USER_MAX {
        machine.call(conn, setgroup(&format!("kept-{n}"))).expect("there is room");
    }
    let fault = machine.call(conn, setgroup("kept-0/inner")).expect_err("one too many");
    assert_eq!(fault.errno, Errno::E2BIG);
    assert!(fault.message.contains("user.1000") && fault.message.contains("limit is 256"), "{fault}");
    let other = machine.connect(1001);
    machine.call(other, setgroup("own")).expect("others have room");
    machine.call(conn, Setgroup { remove: true, ..setgroup("kept-0") }).expect("own group");
    machine.call(conn, setgroup("kept-1/inner")).expect("there is room again");
}

#[test]
fn signal_to_a_group_reaches_those_in_it_and_in_its_groups() {
    let mut machine = Machine::default();
    let admin = machine.connect(ADMIN);
    let conn = machine.connect(1000);
    let pids = ["a", "a/b", "c"].map(|group| machine.spawn_in(conn, group));
    let stopped = |machine: &mut Machine| {
        let ps = machine.ps(admin);
        pids.map(|pid| ps.iter().any(|p| p.pid == pid && p.state == ProcessState::Stopped))
    };
    let kill = |group: &str, signal| KillGroup { group: group.into(), signal };
    machine.call(conn, kill("a", Signal::Stop)).expect("it is the user's own");
    assert_eq!(stopped(&mut machine), [true, true, false]);
    machine.call(admin, kill("/user.1000/a/b", Signal::Cont)).expect("the administrator reaches all");
    assert_eq!(stopped(&mut machine), [true, false, false]);
    let stranger = machine.connect(1001);
    let refused = |machine: &mut Machine, conn, group: &str| {
        machine.call(conn, kill(group, Signal::Kill)).expect_err("refused").errno
    };
    assert_eq!(refused(&mut machine, stranger, "/user.1000/a"), Errno::EPERM);
    assert_eq!(refused(&mut machine, conn, "nowhere"), Errno::ESRCH);
    machine.call(conn, kill("/user.1000", Signal::Kill)).expect("its own group, with itself");
    assert!(machine.ps(admin).iter().all(|p| p.uid != 1000), "all of them have ended");
}

#[test]
fn swap_limit_of_a_group_holds_for_all_in_it_and_nobody_else() {
    let (mut machine, _) = Machine::with_swap("pool=512,context=512", 4096, 0);
    let conn = machine.connect(1000);
    machine.call(conn, limit("tight", GroupLimit::SwapPages, 7)).expect("own group");
    let (one, two) = (machine.spawn_in(conn, "tight"), machine.spawn_in(conn, "tight/inside"));
    let free = machine.spawn_in(conn, "free");
    let prompt = |n: usize| format!("{n} and ").chars().rev().cycle().take(300).collect::<String>();
    let mut contexts = Vec::new();
    for (n, pid) in [one, two, free, one, two, free].into_iter().enumerate() {
        let context = machine.open_as(conn, pid, &prompt(n));
        generated(machine.call_as(conn, Some(pid), generate(context, 4)));
        let tight = machine.group(conn, "user.1000/tight");
        assert!(tight.swap_pages <= 7, "{tight:?}");
        contexts.push((n, pid, context));
    }
    let swapped = |machine: &mut Machine, group: &str| {
        let group = machine.group(conn, group);
        (group.swap_pages, group.swap_pages_max)
    };
    assert_eq!(swapped(&mut machine, "user.1000/tight"), (7, Some(7)));
    let inside = swapped(&mut machine, "user.1000/tight/inside").0;
    assert!((1..7).contains(&inside), "{inside} of the seven are of the group inside");
    let before = swapped(&mut machine, "user.1000/free");
    assert!(before.0 > 0 && before.1.is_none(), "{before:?}");
    // Whoever lost pages computes them again, and says the same.
    for (n, pid, context) in contexts {
        let said = generated(machine.call_as(conn, Some(pid), generate(context, 4))).text;
        assert_eq!(said, reference("", &prompt(n), 8)[4..], "context {n}");
        assert!(swapped(&mut machine, "user.1000/tight").0 <= 7);
    }
    // Without a limit they have what they need.
    machine
        .call(conn, Setgroup { limit: Some(GroupLimit::SwapPages), ..setgroup("tight") })
        .expect("own group");
    for (n, pid) in [(6, one), (7, two), (8, one), (9, two)] {
        let context = machine.open_as(conn, pid, &prompt(n));
        generated(machine.call_as(conn, Some(pid), generate(context, 4)));
    }
    let lifted = swapped(&mut machine, "user.1000/tight");
    assert!(lifted.0 > 7 && lifted.1.is_none(), "{lifted:?}");
}
