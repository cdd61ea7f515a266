//! The bound of the policy `fair`: processes, groups and classes get their shares, whatever the load.

use kernel::core::event::ConnId;
use kernel::core::{Event, KernelConfig};
use proptest::prelude::*;
use syscalls::call::*;
use syscalls::{CallId, Pid};

use crate::machine::{ADMIN, Machine, generate};

/// A machine whose steps take as long as on a small one, with contexts that are never full.
const TIMED: &str = "step_us=9000,row_us=1000,token_us=100,depth_ns=50,pool=262144,context=65536";

fn config(fair_lag_us: u64) -> KernelConfig {
    KernelConfig { fair_lag_us, fair_lag_tokens: 0, ..KernelConfig::default() }
}

/// Weights as the kernel has them, in whole 1,024ths, with nice 0 at 1. The true power would not do: service is charged
/// for a whole life, and half a percent of that outgrows any constant.
fn weight(nice: i8) -> f64 {
    (1024.0 * 1.25f64.powi(-i32::from(nice))).floor() / 1024.0
}

/// What rounding virtual times down to 1,024ths of a microsecond in every step comes to, in microseconds.
const ROUNDING_US: f64 = 10.0;

/// Jain's index: 1 where all are equal, 1/n where one has all.
fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|x| x * x).sum::<f64>());
    sum * sum / (shares.len() as f64 * squares)
}

impl Machine {
    /// Service of processes, in microseconds.
    fn service(&mut self, conn: ConnId, pids: &[Pid]) -> Vec<f64> {
        let list = self.ps(conn);
        pids.iter()
            .map(|pid| list.iter().find(|p| p.pid == *pid).map_or(0.0, |p| p.service_us as f64))
            .collect()
    }

    /// Begins a generation that goes on for as long as the test.
    pub fn endless(&mut self, conn: ConnId, prompt: &str) -> CallId {
        let context = self.open_with(conn, prompt);
        self.begin(conn, Generate { stream: false, ..generate(context, 60_000) })
    }

    pub fn run_until(&mut self, at_us: u64) {
        while self.now < at_us {
            assert!(self.turn(), "nothing is left to do");
        }
    }
}

#[test]
fn process_with_many_contexts_gets_no_more_than_one_with_one() {
    let lag = 100_000;
    let mut machine = Machine::new(config(lag));
    let watcher = machine.connect(ADMIN);
    machine.mount(watcher, "m", TIMED).expect("it mounts");
    let (many, one) = (machine.connect(ADMIN), machine.connect(ADMIN));
    for n in 0..10 {
        machine.endless(many, &format!("one of many {n}"));
    }
    machine.endless(one, "alone");
    let pids = [machine.pid(many), machine.pid(one)];
    machine.run_until(60_000_000);
    let service = machine.service(watcher, &pids);
    let bound = (lag + machine.longest_step_us) as f64;
    assert!((service[0] - service[1]).abs() <= bound, "{service:?} differ by more than {bound} µs");
    assert!(service[0] + service[1] > 59e6, "and the device was never idle");
}

#[test]
fn clients_in_overload_get_equal_service_whatever_they_offer() {
    for sequences in [9, 256] {
        let mut machine = Machine::new(config(1_000_000));
        let watcher = machine.connect(ADMIN);
        machine.mount(watcher, "m", &format!("{TIMED},sequences={sequences}")).expect("it mounts");
        let clients = [machine.connect(ADMIN), machine.connect(ADMIN)];
        let pids = clients.map(|c| machine.pid(c));
        // Requests a second, and how many have come.
        let mut offered = [(1.5, 0u32), (3.0, 0u32)];
        while machine.now < 200_000_000 {
            for (client, (rate, come)) in clients.iter().zip(&mut offered) {
                while f64::from(*come) / *rate * 1e6 <= machine.now as f64 {
                    *come += 1;
                    let context = machine.open_with(*client, &"request ".repeat(8 + *come as usize % 5));
                    machine.begin(*client, Generate { stream: false, ..generate(context, 400) });
                }
            }
            machine.turn();
        }
        let service = machine.service(watcher, &pids);
        let bound = (1_000_000 + machine.longest_step_us) as f64;
        let (difference, index) = ((service[0] - service[1]).abs(), jain(&service));
        eprintln!("{sequences} sequences: difference {difference} of {bound} µs, Jain's index {index:.5}");
        assert!(difference <= bound, "{service:?} differ by more than {bound} µs");
        assert!(index >= 0.98, "Jain's index is {index}");
    }
}

#[test]
fn users_share_before_their_processes_do() {
    let lag = 100_000;
    let mut machine = Machine::new(config(lag));
    let watcher = machine.connect(ADMIN);
    machine.mount(watcher, "m", TIMED).expect("it mounts");
    let conns: Vec<ConnId> = [1000, 1000, 1000, 2000].into_iter().map(|uid| machine.connect(uid)).collect();
    for conn in &conns {
        machine.endless(*conn, "a process of a user");
    }
    let pids: Vec<Pid> = conns.iter().map(|conn| machine.pid(*conn)).collect();
    machine.run_until(60_000_000);
    let service = machine.service(watcher, &pids);
    let bound = (lag + machine.longest_step_us) as f64;
    let first = service[0] + service[1] + service[2];
    assert!((first - service[3]).abs() <= bound, "{first} and {} µs", service[3]);
    assert!((service[0] - service[2]).abs() <= bound, "{service:?}");
}

#[test]
fn lower_classes_get_their_twentieth() {
    // A row costs as much as the step, so that no row is free.
    let mut machine = Machine::new(KernelConfig::default());
    let watcher = machine.connect(ADMIN);
    machine.mount(watcher, "m", "step_us=1000,row_us=9000,pool=262144,context=65536").expect("it mounts");
    let classes = [Class::Interactive, Class::Normal, Class::Batch];
    let conns = classes.map(|class| machine.connect_as(ADMIN, class, 0));
    for conn in conns {
        machine.endless(conn, "a process of a class");
    }
    let pids = conns.map(|conn| machine.pid(conn));
    machine.run_until(100_000_000);
    let service = machine.service(watcher, &pids);
    let least = 100e6 / 20.0 - 2e6;
    assert!(service[1] >= least && service[2] >= least, "{service:?} µs, of which each is owed {least}");
    assert!(service[0] >= 0.85 * 100e6, "{service:?} µs: classes are strict beyond that");
}

#[test]
fn class_that_others_keep_out_of_memory_has_turns_there() {
    for host_pages in [0, 64] {
        // Eight frames, of which higher classes want more than there are all the time.
        let script = "step_us=9000,row_us=1000,token_us=100,pool=512,context=512";
        let (mut machine, watcher) = Machine::with_swap(script, host_pages, 0);
        let batch = machine.connect_as(ADMIN, Class::Batch, 0);
        let watched = [0; 3].map(|_| machine.connect_as(ADMIN, Class::Interactive, 0));
        let mut calls = watched.map(|conn| {
            let context = machine.open_with(conn, &"w".repeat(130));
            (context, machine.begin(conn, generate(context, 50)))
        });
        machine.turn();
        let story = |n: usize| format!("story {n} that nobody waits for, ").repeat(5);
        let tell = |machine: &mut Machine, n| {
            let context = machine.open_with(batch, &story(n));
            (context, machine.begin(batch, generate(context, 250)))
        };
        let (mut told, mut telling) = (0, tell(&mut machine, 0));
        let (begin, mut done) = (machine.now, 0);
        while machine.now - begin < 200_000_000 {
            for (conn, (context, call)) in watched.iter().zip(&mut calls) {
                if machine.reply(*conn, *call).is_some() {
                    done += 1;
                    machine.call(*conn, Close { context: *context }).expect("own context");
                    *context = machine.open_with(*conn, &format!("{done} {}", "w".repeat(130)));
                    *call = machine.begin(*conn, generate(*context, 50));
                }
            }
            if let Some(reply) = machine.reply(batch, telling.1) {
                let text = crate::machine::generated(reply).text;
                assert_eq!(text, crate::machine::reference(script, &story(told), 250), "as if it were alone");
                machine.call(batch, Close { context: telling.0 }).expect("own context");
                told += 1;
                telling = tell(&mut machine, told);
            }
            assert!(machine.turn());
        }
        assert!(told >= 2, "{told} stories in 200 seconds with {host_pages} pages of swap");
        let pids = [batch, watched[0], watched[1], watched[2]].map(|conn| machine.pid(conn));
        let service = machine.service(watcher, &pids);
        eprintln!("{told} stories, {done} others: {service:?} µs");
        assert!(service[0] >= 200e6 / 20.0 - 2e6, "{service:?} µs, of which batch is owed a twentieth");
        assert!(service[1..].iter().sum::<f64>() >= 0.85 * 200e6, "{service:?} µs: and no more");
    }
}

#[test]
fn turn_in_memory_ends_where_a_rate_is_used_up() {
    // Six of eight frames are what the batch job needs, and nobody else fits beside it.
    let script = "step_us=9000,row_us=1000,token_us=100,pool=512,context=512";
    let (mut machine, _) = Machine::with_model(script);
    let batch = machine.connect_as(ADMIN, Class::Batch, 0);
    machine.limit(batch, Limit::TokensPerSecond, 1);
    let watched = [0; 3].map(|_| machine.connect_as(ADMIN, Class::Interactive, 0));
    let mut asked = 0;
    let mut ask = |machine: &mut Machine, conn| {
        asked += 1;
        let context = machine.open_with(conn, &format!("{asked} {}", "w".repeat(130)));
        (context, machine.begin(conn, generate(context, 50)))
    };
    let mut calls = watched.map(|conn| ask(&mut machine, conn));
    machine.turn();
    let job = machine.open_with(batch, &"nobody waits for it ".repeat(17));
    let working = machine.begin(batch, generate(job, 150));
    let mut done = 0;
    while machine.now < 100_000_000 {
        for (conn, (context, call)) in watched.iter().zip(&mut calls) {
            if machine.reply(*conn, *call).is_some() {
                done += 1;
                machine.call(*conn, Close { context: *context }).expect("own context");
                (*context, *call) = ask(&mut machine, *conn);
            }
        }
        if !machine.turn() {
            let wake = machine.wake.expect("somebody waits for tokens of a rate");
            machine.now = machine.now.max(wake.0);
            machine.event(Event::Tick);
        }
    }
    let had = machine.events(batch, working).len();
    assert!(done >= 150 && had >= 5, "{done} answers of half a second, beside {had} tokens");
}

#[test]
fn realtime_gives_no_memory_to_those_that_it_keeps_out() {
    let (mut machine, _) =
        Machine::with_model("step_us=9000,row_us=1000,token_us=100,pool=8192,context=8192");
    let urgent = machine.connect_as(ADMIN, Class::Realtime, 0);
    let filling = machine.open_with(urgent, &"r".repeat(4000));
    let call = machine.begin(urgent, Generate { stream: false, ..generate(filling, 4100) });
    machine.turn();
    let batch = machine.connect_as(ADMIN, Class::Batch, 0);
    let context = machine.open_with(batch, &"b".repeat(5000));
    let waiting = machine.begin(batch, generate(context, 5));
    machine.run_until(38_000_000);
    assert!(machine.events(batch, waiting).is_empty(), "deadlines go before what is owed");
    machine.finish(urgent, call).expect("it ends");
    machine.finish(batch, waiting).expect("it has room now");
}

#[test]
fn prefix_of_one_that_sits_steps_out_is_not_waited_for() {
    let mut machine = Machine::new(config(20_000));
    let watcher = machine.connect(ADMIN);
    let script = "step_us=1000,row_us=1000,token_us=1000,pool=65536,context=8192,batch=1000";
    machine.mount(watcher, "m", script).expect("it mounts");
    let known = machine.open_with(watcher, "what tokens cost");
    machine.generate(watcher, known, 20);
    // A step of a second, in which somebody else comes who is so much behind then.
    let [ahead, steady, newcomer] = [0; 3].map(|_| machine.connect(ADMIN));
    let prompt = "a long beginning ".repeat(82);
    let context = machine.open_with(ahead, &prompt);
    let first = machine.begin(ahead, generate(context, 1));
    machine.endless(steady, "steady");
    machine.turn();
    machine.turn();
    assert!(machine.reply(ahead, first).is_none(), "it has computed a part of it");
    let before = machine.now;
    let context = machine.open_with(newcomer, &prompt);
    let call = machine.begin(newcomer, generate(context, 1));
    machine.finish(newcomer, call).expect("it has all that it needs");
    assert!(machine.now - before < 900_000, "its first token took {} µs", machine.now - before);
    assert!(machine.reply(ahead, first).is_none(), "who is ahead still sits out");
    assert!(machine.finish(ahead, first).is_ok());
}

#[test]
fn suspects_of_a_dead_worker_are_held_to_the_bound() {
    let lag = 50_000;
    let mut machine = Machine::new(config(lag));
    let watcher = machine.connect(ADMIN);
    machine.mount(watcher, "m", TIMED).expect("it mounts");
    let [long, short] = [0; 2].map(|_| machine.connect(ADMIN));
    machine.endless(long, &"a long log ".repeat(1000));
    machine.endless(short, "a short one");
    let pids = [long, short].map(|conn| machine.pid(conn));
    machine.run_until(8_000_000);
    machine.longest_step_us = 0;
    // Both were in the step, and the long one takes more than a second to compute again.
    machine.kill_worker();
    let until = machine.now + 6_000_000;
    let (mut low, mut high) = (f64::MAX, f64::MIN);
    while machine.now < until {
        machine.turn();
        let service = machine.service(watcher, &pids);
        (low, high) = (low.min(service[0] - service[1]), high.max(service[0] - service[1]));
    }
    let bound = 2.0 * (lag + machine.longest_step_us) as f64;
    assert!(high - low <= bound + ROUNDING_US, "{} of {bound} µs", high - low);
}

/// One that is backlogged all the time.
#[derive(Clone, Debug)]
struct Load {
    nice: i8,
    contexts: usize,
    prompt: usize,
}

fn load() -> impl Strategy<Value = Load> {
    (-8i8..=8, 1usize..6, 1usize..900).prop_map(|(nice, contexts, prompt)| Load { nice, contexts, prompt })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The theorem of `sched/policy/fair.rs`: over any span of time, weighted service of two processes that are
    /// backlogged all the time differs by at most twice the lag and the longest step.
    #[test]
    fn weighted_service_of_backlogged_processes_stays_within_the_bound(
        loads in prop::collection::vec(load(), 2..6),
        lag_ms in 0u64..400,
        batch in prop::sample::select(vec![8u32, 64, 2048]),
        visitors in 0usize..4,
    ) {
        let lag = lag_ms * 1000;
        let mut machine = Machine::new(config(lag));
        machine.check_every = 64;
        let watcher = machine.connect(ADMIN);
        machine.mount(watcher, "m", &format!("{TIMED},batch={batch}")).expect("it mounts");
        let conns: Vec<ConnId> =
            loads.iter().map(|l| machine.connect_as(ADMIN, Class::Normal, l.nice)).collect();
        for (conn, load) in conns.iter().zip(&loads) {
            for n in 0..load.contexts {
                machine.endless(*conn, &format!("{} {n}{}", conn.0, "p".repeat(load.prompt)));
            }
        }
        let pids: Vec<Pid> = conns.iter().map(|conn| machine.pid(*conn)).collect();
        let weights: Vec<f64> = loads.iter().map(|l| weight(l.nice)).collect();
        let mut range = vec![vec![(f64::MAX, f64::MIN); pids.len()]; pids.len()];
        let visitor = machine.connect(ADMIN);
        for round in 0..400 {
            for _ in 0..7 {
                machine.turn();
            }
            if round % 20 == 0 {
                // Somebody who comes and goes.
                for n in 0..visitors {
                    let context = machine.open_with(visitor, &format!("visit {round} {n}"));
                    machine.begin(visitor, Generate { stream: false, ..generate(context, 30) });
                }
            }
            let service = machine.service(watcher, &pids);
            for i in 0..pids.len() {
                for j in 0..i {
                    let difference = service[i] / weights[i] - service[j] / weights[j];
                    let (low, high) = &mut range[i][j];
                    (*low, *high) = (low.min(difference), high.max(difference));
                }
            }
        }
        for i in 0..pids.len() {
            for j in 0..i {
                let (low, high) = range[i][j];
                let least = weights[i].min(weights[j]);
                let bound = 2.0 * (lag as f64 + machine.longest_step_us as f64 / least);
                eprintln!("bound: {:.0} of {bound:.0} µs", high - low);
                prop_assert!(high - low <= bound + ROUNDING_US, "{i} and {j}: {} µs of {bound}", high - low);
            }
        }
    }

    /// The same one level up: groups by their weights, whatever is in them.
    #[test]
    fn weighted_service_of_backlogged_groups_stays_within_the_bound(
        groups in prop::collection::vec((20u32..500, prop::collection::vec(load(), 1..4)), 2..4),
        lag_ms in 0u64..400,
    ) {
        let lag = lag_ms * 1000;
        let mut machine = Machine::new(config(lag));
        machine.check_every = 64;
        let watcher = machine.connect(ADMIN);
        machine.mount(watcher, "m", TIMED).expect("it mounts");
        let mut pids = Vec::new();
        for (at, (weight, loads)) in groups.iter().enumerate() {
            let uid = 1000 + at as u32;
            let group = format!("/user.{uid}");
            let set = Setgroup { group, weight: Some(*weight), limit: None, value: None, remove: false };
            machine.call(watcher, set).expect("the administrator");
            let mut members = Vec::new();
            for load in loads {
                let conn = machine.connect_as(uid, Class::Normal, load.nice.max(0));
                for n in 0..load.contexts {
                    machine.endless(conn, &format!("{} {n}{}", conn.0, "p".repeat(load.prompt)));
                }
                members.push(machine.pid(conn));
            }
            pids.push(members);
        }
        let mut range = vec![vec![(f64::MAX, f64::MIN); pids.len()]; pids.len()];
        for _ in 0..400 {
            for _ in 0..7 {
                machine.turn();
            }
            let service: Vec<f64> = pids
                .iter()
                .zip(&groups)
                .map(|(pids, (weight, _))| {
                    machine.service(watcher, pids).iter().sum::<f64>() * 100.0 / f64::from(*weight)
                })
                .collect();
            for i in 0..pids.len() {
                for j in 0..i {
                    let (low, high) = &mut range[i][j];
                    let difference = service[i] - service[j];
                    (*low, *high) = (low.min(difference), high.max(difference));
                }
            }
        }
        for i in 0..pids.len() {
            for j in 0..i {
                let (low, high) = range[i][j];
                let least = f64::from(groups[i].0.min(groups[j].0)) / 100.0;
                let bound = 2.0 * (lag as f64 + machine.longest_step_us as f64 / least);
                prop_assert!(high - low <= bound + ROUNDING_US, "{i} and {j}: {} µs of {bound}", high - low);
            }
        }
    }
}
