//! Numbers and names out of their range: each is one error that names the limit and the value, and changes nothing.

use harness::said::greedy;
use harness::{Daemon, wait_until};
use syscalls::call::{
    Call, Class, Fork, Generate, GroupLimit, Hello, Limit, Mount, Open, Setgroup, Setlimit, Setpolicy,
    Setpriority, Spawn,
};
use syscalls::client::blocking::Client;
use syscalls::client::{hello, mount};
use syscalls::limits::{CONTEXTS_PER_PROCESS_MAX, FORK_COPIES_MAX};
use syscalls::reply::ProcessInfo;
use syscalls::{ContextId, Errno, Fault, Pid, Tokens};

use super::beside_a_neighbour;

/// A context that can be continued.
fn opened(client: &mut Client) -> ContextId {
    let context = client.open(None).expect("opens").context;
    client.append_text(context, "some text").expect("appends");
    context
}

fn check(fault: &Fault, errno: Errno, words: &[&str]) {
    assert_eq!(fault.errno, errno, "{fault}");
    for word in words {
        assert!(fault.message.contains(word), "`{word}` is missing: {fault}");
    }
}

fn priority(pid: Pid, nice: i8) -> Call {
    Setpriority { pid, class: None, nice: Some(nice) }.into()
}

fn open_with(tokens_max: u32) -> Call {
    Open { model: None, tokens_max: Some(Tokens(tokens_max)), on_full: Default::default(), prefix: None }
        .into()
}

fn group(weight: Option<u32>, limit: Option<GroupLimit>, value: Option<u64>) -> Call {
    Setgroup { group: "g".into(), weight, limit, value, remove: false }.into()
}

#[test]
fn values_out_of_range_are_refused_with_limit_and_value() {
    beside_a_neighbour("context=512,row_us=500", |daemon| {
        let mut client = daemon.client();
        let (pid, context) = (client.pid(), opened(&mut client));
        let generate = || greedy(context, 1);
        let rate = Setlimit { pid, limit: Limit::TokensPerSecond, value: Some(0), then: None };
        let spawn = Spawn { nice: Some(127), ..syscalls::client::spawn("s") };
        let fork = |copies| Fork { context, copies, length: None };
        const RANGE: &str = "from -20 to 19";
        let cases: Vec<(Call, &[&str])> = vec![
            (priority(pid, 20), &["nice is 20", RANGE]),
            (priority(pid, -21), &["nice is -21", RANGE]),
            (spawn.into(), &["nice is 127", RANGE]),
            (Setpolicy { policy: "lottery".into() }.into(), &["lottery", "fifo, rr, fair, mlfq, edf"]),
            (Setpolicy { policy: String::new() }.into(), &["fifo, rr, fair, mlfq, edf"]),
            (Generate { deadline_ms: Some(0), ..generate() }.into(), &["deadline_ms is 0", "at least 1"]),
            (Generate { deadline_ms: Some(-5), ..generate() }.into(), &["deadline_ms is -5", "past"]),
            (greedy(context, 0).into(), &["max_tokens is 0", "at least 1"]),
            (rate.into(), &["tokens_per_second is 0", "at least 1"]),
            (group(None, Some(GroupLimit::TokensPerSecond), Some(0)), &["tokens_per_second is 0"]),
            (group(Some(0), None, None), &["weight is 0", "from 1 to 10000"]),
            (fork(0).into(), &["copies is 0", "from 1 to 1024"]),
            (fork(FORK_COPIES_MAX + 1).into(), &["copies is 1025", "from 1 to 1024"]),
            (open_with(0), &["tokens_max is 0", "at least 1"]),
            (Mount { context: Some(Tokens(0)), ..mount("sim:", "none") }.into(), &["context is 0"]),
        ];
        let before = client.ps().expect("lists");
        for (call, words) in cases {
            let fault = client.call(call.clone()).expect_err("it is out of range");
            check(&fault, Errno::EINVAL, words);
        }
        check(&client.call(open_with(513)).expect_err("too large"), Errno::ENOSPC, &["513", "512"]);
        let after = client.ps().expect("lists");
        let own = |list: &[ProcessInfo]| {
            list.iter().find(|p| p.pid == pid).map(|p| (p.nice, p.class, p.contexts, p.context_tokens))
        };
        assert_eq!(own(&before), own(&after), "a refused call changes nothing");
        assert_eq!(client.sysinfo().expect("describes").policy, "fair");
        client.generate(generate(), |_| {}).expect("the context is as it was");
    });
}

#[test]
fn hello_with_a_nice_value_beyond_the_range_is_refused() {
    let daemon = Daemon::start();
    for nice in [20, 127, -21, -128] {
        let hello = Hello { nice, ..hello("test") };
        let fault = Client::connect_with(&daemon.socket(), hello).expect_err("it is out of range");
        check(&fault, Errno::EINVAL, &[&format!("nice is {nice}"), "from -20 to 19"]);
    }
}

#[test]
fn limits_of_zero_say_what_they_forbid_and_to_whom() {
    beside_a_neighbour("row_us=500", |daemon| {
        let cases = [
            (Limit::Contexts, Errno::EMFILE),
            (Limit::ContextTokens, Errno::E2BIG),
            (Limit::ResidentFrames, Errno::ENOMEM),
            (Limit::GeneratedTokens, Errno::E2BIG),
        ];
        for (limit, errno) in cases {
            let mut client = daemon.client();
            let (pid, context) = (client.pid(), opened(&mut client));
            client.call(Setlimit { pid, limit, value: Some(0), then: None }).expect("own limit");
            let fault = match limit {
                Limit::Contexts => client.open(None).map(drop),
                Limit::ContextTokens => client.append_text(context, "more").map(drop),
                _ => client.generate(greedy(context, 1), |_| {}).map(drop),
            };
            check(&fault.expect_err("nothing is allowed"), errno, &["limit is 0", &pid.to_string()]);
        }
        // Without pages in slots, what is taken is computed again: nothing is forbidden.
        let mut client = daemon.client();
        let (pid, context) = (client.pid(), opened(&mut client));
        client
            .call(Setlimit { pid, limit: Limit::SwapPages, value: Some(0), then: None })
            .expect("own limit");
        client.generate(greedy(context, 5), |_| {}).expect("generates");
    });
}

#[test]
fn fork_bomb_of_contexts_stops_at_the_limit_and_goes_with_its_process() {
    beside_a_neighbour("row_us=500", |daemon| {
        let before = (daemon.resident_kib(), daemon.client().stat(None, None).expect("counts").contexts);
        let mut bomb = daemon.client();
        let context = bomb.open(None).expect("opens").context;
        bomb.append_text(context, &"x".repeat(1000)).expect("appends");
        let mut has = 1;
        let fault = loop {
            match bomb.fork(context, FORK_COPIES_MAX) {
                Ok(copies) => has += copies.len(),
                Err(fault) => break fault,
            }
            assert!(has <= CONTEXTS_PER_PROCESS_MAX, "{has} contexts");
        };
        check(&fault, Errno::EMFILE, &[&has.to_string(), "1024 more", "the limit is 4096"]);
        let grown = daemon.resident_kib().saturating_sub(before.0);
        assert!(grown < 64 << 10, "{has} contexts took {grown} KiB");
        bomb.generate(greedy(context, 3), |_| {}).expect("what it has it may use");
        drop(bomb);
        let mut watcher = daemon.client();
        // The neighbour has a context of its own, and may have closed it by now.
        wait_until("its contexts are gone", || {
            watcher.stat(None, None).expect("counts").contexts <= before.1 + 1
        });
    });
}

#[test]
fn fork_bomb_of_processes_stops_at_the_limit_of_its_group() {
    beside_a_neighbour("row_us=500", |daemon| {
        const MOST: u64 = 40;
        let mut admin = daemon.client();
        admin.call(group(None, Some(GroupLimit::Contexts), Some(MOST))).expect("the administrator");
        let grouped = |class| Hello { group: Some("g".into()), class, ..hello("bomb") };
        let mut bombs: Vec<Client> = (0..5)
            .map(|_| Client::connect_with(&daemon.socket(), grouped(Class::Normal)).expect("connects"))
            .collect();
        let contexts: Vec<ContextId> = bombs.iter_mut().map(opened).collect();
        let mut has = contexts.len() as u64;
        let fault = (0..)
            .find_map(|round| {
                let at = round % bombs.len();
                match bombs[at].fork(contexts[at], 3) {
                    Ok(copies) => {
                        has += copies.len() as u64;
                        None
                    }
                    Err(fault) => Some(fault),
                }
            })
            .expect("it ends");
        check(&fault, Errno::EMFILE, &["g has", &format!("has {has} contexts"), "3 more", "limit is 40"]);
        assert!(has <= MOST && has + 3 > MOST, "{has}");
        let mut other = daemon.client();
        opened(&mut other);
    });
}
