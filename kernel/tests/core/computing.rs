//! Programs that compute by themselves: whose turn it is, and what their time is charged to.

use kernel::core::event::ConnId;
use syscalls::call::*;
use syscalls::limits::QUANTUM_US_MAX;
use syscalls::reply::ProcessState;
use syscalls::{CallId, Errno, Pid, Reply};

use crate::machine::{ADMIN, Machine, generate};

const MS: u32 = 1000;

fn compute(us: u32) -> Compute {
    Compute { device: None, us }
}

/// A program that computes for its quantum, and perhaps some time more, and asks again, as long as it is let.
struct Trainer {
    conn: ConnId,
    asked: CallId,
    until: Option<u64>,
    late_ms: u64,
    computed_ms: u64,
}

impl Trainer {
    fn start(machine: &mut Machine, class: Class, nice: i8) -> Trainer {
        let conn = machine.connect_as(ADMIN, class, nice);
        let asked = machine.begin(conn, compute(10 * MS));
        Trainer { conn, asked, until: None, late_ms: 0, computed_ms: 0 }
    }

    /// One millisecond has passed.
    fn go_on(&mut self, machine: &mut Machine) {
        if self.until.is_some_and(|until| machine.now >= until) {
            self.computed_ms += 10 + self.late_ms;
            self.until = None;
            self.asked = machine.begin(self.conn, compute(10 * MS));
        }
        if self.until.is_none() && machine.reply(self.conn, self.asked).is_some() {
            self.until = Some(machine.now + 1000 * (10 + self.late_ms));
        }
    }
}

/// How many milliseconds each of these computes in so many.
fn share_out(machine: &mut Machine, trainers: &mut [Trainer], ms: u64) -> Vec<u64> {
    for _ in 0..ms {
        machine.pass_ms(1);
        trainers.iter_mut().for_each(|trainer| trainer.go_on(machine));
    }
    trainers.iter().map(|trainer| trainer.computed_ms).collect()
}

fn info(machine: &mut Machine, conn: ConnId, pid: Pid) -> syscalls::reply::ProcessInfo {
    machine.ps(conn).into_iter().find(|p| p.pid == pid).expect("it is listed")
}

/// A generation of this class that has a step under way which is never done.
fn busy(machine: &mut Machine, class: Class) {
    let admin = machine.connect(ADMIN);
    machine.mount(admin, "m", "").expect("it mounts");
    let conn = machine.connect_as(ADMIN, class, 0);
    let context = machine.open_with(conn, "abc");
    machine.begin(conn, generate(context, 100));
}

#[test]
fn quantum_alone_begins_at_once_and_is_charged_until_it_ends() {
    let mut machine = Machine::default();
    let conn = machine.connect(ADMIN);
    let pid = machine.pid(conn);
    assert_eq!(machine.call(conn, compute(50 * MS)), Ok(Reply::Quantum { us: 50 * MS }));
    assert_eq!(info(&mut machine, conn, pid).state, ProcessState::Running);
    machine.pass_ms(40);
    assert_eq!(machine.call(conn, Yield {}), Ok(Reply::Done {}));
    let after = info(&mut machine, conn, pid);
    assert_eq!(after.state, ProcessState::Idle);
    assert!((40_000..41_000).contains(&after.service_us), "{} µs", after.service_us);
    machine.pass_ms(100);
    assert_eq!(info(&mut machine, conn, pid).service_us, after.service_us, "it rests");
}

#[test]
fn quantum_that_is_over_keeps_nobody_waiting() {
    let mut machine = Machine::default();
    let (first, second) = (machine.connect(ADMIN), machine.connect(ADMIN));
    machine.call(first, compute(50 * MS)).expect("it is alone");
    let waiting = machine.begin(second, compute(50 * MS));
    let pid = machine.pid(second);
    let blocked = info(&mut machine, first, pid);
    assert_eq!(
        (blocked.state, blocked.waits_for.as_deref()),
        (ProcessState::Blocked, Some("its turn to compute"))
    );
    machine.pass_ms(49);
    assert_eq!(machine.reply(second, waiting), None);
    let wake = machine.wake.expect("the kernel wants to be woken when it is over");
    machine.pass_ms((wake.0 - machine.now).div_ceil(1000));
    assert!(machine.reply(second, waiting).is_some(), "the first computes on, and the second begins");
}

#[test]
fn quanta_go_by_weight() {
    let mut machine = Machine::default();
    let mut trainers = [0, 5, 5].map(|nice| Trainer::start(&mut machine, Class::Batch, nice));
    let had = share_out(&mut machine, &mut trainers, 10_000);
    let wanted = [6044, 1978, 1978];
    for (had, wanted) in had.iter().zip(wanted) {
        assert!(had.abs_diff(wanted) < 600, "{had} of {wanted} ms");
    }
}

#[test]
fn quanta_go_by_weight_though_what_is_computed_in_them_ends_late() {
    let mut machine = Machine::default();
    let late = |trainer| Trainer { late_ms: 7, ..trainer };
    let mut trainers = [0, 5, 5].map(|nice| late(Trainer::start(&mut machine, Class::Batch, nice)));
    let shares = share_out(&mut machine, &mut trainers, 6000);
    let ratio = shares[0] as f64 / (shares[1] + shares[2]) as f64;
    assert!((1.3..1.8).contains(&ratio), "{shares:?}: three times as much as each of the others");
}

#[test]
fn newcomer_begins_with_the_least_served_of_those_who_are_there() {
    let mut machine = Machine::default();
    let mut trainers = vec![Trainer::start(&mut machine, Class::Batch, 0)];
    share_out(&mut machine, &mut trainers, 5_000);
    trainers.push(Trainer::start(&mut machine, Class::Batch, 0));
    let served = |machine: &mut Machine, of: &Trainer| {
        let pid = machine.pid(of.conn);
        info(machine, of.conn, pid).service_us
    };
    let before = served(&mut machine, &trainers[0]);
    share_out(&mut machine, &mut trainers, 2_000);
    let (old, new) = (served(&mut machine, &trainers[0]) - before, served(&mut machine, &trainers[1]));
    assert!(old.abs_diff(new) <= 25_000, "{old} and {new} µs");
}

#[test]
fn newcomers_without_end_starve_nobody_who_computes() {
    let mut machine = Machine::default();
    let mut trainers = vec![Trainer::start(&mut machine, Class::Batch, 0)];
    share_out(&mut machine, &mut trainers, 100);
    let mut guests: Vec<ConnId> = (0..2).map(|_| machine.connect_as(ADMIN, Class::Batch, 0)).collect();
    let mut asked: Vec<_> = guests.iter().map(|conn| machine.begin(*conn, compute(10 * MS))).collect();
    let before = trainers[0].computed_ms;
    for _ in 0..6_000 {
        share_out(&mut machine, &mut trainers, 1);
        for (conn, asked) in guests.iter_mut().zip(&mut asked) {
            if machine.reply(*conn, *asked).is_some() {
                // Each computes for its one quantum and goes, and the next one comes.
                machine.pass_ms(10);
                machine.call(*conn, Exit { status: 0 }).expect("it ends");
                *conn = machine.connect_as(ADMIN, Class::Batch, 0);
                *asked = machine.begin(*conn, compute(10 * MS));
            }
        }
    }
    let had = trainers[0].computed_ms - before;
    assert!(had > 1_000, "{had} ms");
}

#[test]
fn time_that_a_process_is_stopped_or_rests_is_neither_charged_nor_made_up_for() {
    for stopped in [true, false] {
        let mut machine = Machine::default();
        let boss = machine.connect(ADMIN);
        let mut trainers = vec![Trainer::start(&mut machine, Class::Batch, 0)];
        share_out(&mut machine, &mut trainers, 1_005);
        let pid = machine.pid(trainers[0].conn);
        if stopped {
            // In the middle of a quantum.
            machine.call(boss, Kill { pid, signal: Signal::Stop }).expect("it may");
        } else {
            machine.call(trainers[0].conn, Yield {}).expect("it may");
        }
        let mut other = [Trainer::start(&mut machine, Class::Batch, 0)];
        share_out(&mut machine, &mut other, 5_000);
        if stopped {
            machine.call(boss, Kill { pid, signal: Signal::Cont }).expect("it may");
        }
        let before = trainers[0].computed_ms;
        trainers.extend(other);
        let had = share_out(&mut machine, &mut trainers, 2_000)[0] - before;
        // It looks for its turn once a millisecond, and loses as much of each.
        assert!(had.abs_diff(1_000) <= 150, "stopped {stopped}: {had} ms of 2,000");
    }
}

#[test]
fn newcomer_beside_one_that_never_ends_its_quantum_gets_no_more_than_its_share() {
    let mut machine = Machine::default();
    let lost = machine.connect_as(ADMIN, Class::Batch, 0);
    machine.call(lost, compute(10 * MS)).expect("it is alone");
    let mut trainers = vec![Trainer::start(&mut machine, Class::Batch, 0)];
    share_out(&mut machine, &mut trainers, 5_000);
    trainers.push(Trainer::start(&mut machine, Class::Batch, 0));
    let before = trainers[0].computed_ms;
    let had = share_out(&mut machine, &mut trainers, 2_000)[0] - before;
    assert!(had.abs_diff(1_000) <= 150, "{had} ms of 2,000");
}

#[test]
fn classes_go_before_each_other() {
    let mut machine = Machine::default();
    let mut trainers = [Class::Batch, Class::Normal].map(|class| Trainer::start(&mut machine, class, 0));
    let had = share_out(&mut machine, &mut trainers, 1_000);
    assert!(had[1] > 900 && had[0] <= 20, "{had:?}");
}

#[test]
fn share_beside_a_model_is_a_twentieth_below_it_a_half_beside_it_and_all_above_it() {
    for (class, wanted) in [(Class::Batch, 500), (Class::Normal, 5_000), (Class::Interactive, 9_700)] {
        let mut machine = Machine::default();
        busy(&mut machine, Class::Normal);
        let mut trainers = [Trainer::start(&mut machine, class, 0)];
        let had = share_out(&mut machine, &mut trainers, 10_000)[0];
        assert!(had.abs_diff(wanted) <= wanted / 10 + 20, "{class:?}: {had} of {wanted} ms");
    }
}

#[test]
fn programs_beside_a_model_in_their_class_have_a_part_each() {
    let mut machine = Machine::default();
    busy(&mut machine, Class::Normal);
    let mut trainers = [0, 0].map(|nice| Trainer::start(&mut machine, Class::Normal, nice));
    let had = share_out(&mut machine, &mut trainers, 10_000);
    for ms in &had {
        assert!(ms.abs_diff(3_333) <= 400, "{had:?} of 10,000 ms, which three share");
    }
}

#[test]
fn debt_is_forgiven_when_the_model_rests() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "abc");
    let call = machine.begin(conn, generate(context, 4));
    let trainer = machine.connect_as(ADMIN, Class::Batch, 0);
    machine.call(trainer, compute(QUANTUM_US_MAX)).expect("nothing is held against it");
    machine.pass_ms(1000);
    let asked = machine.begin(trainer, compute(QUANTUM_US_MAX));
    assert_eq!(machine.reply(trainer, asked), None, "it had more than its share");
    machine.finish(conn, call).expect("it generates");
    assert!(machine.reply(trainer, asked).is_some(), "nobody else wants the device");
}

#[test]
fn stopped_process_has_no_turn_until_it_goes_on() {
    let mut machine = Machine::default();
    let (boss, conn) = (machine.connect(ADMIN), machine.connect(ADMIN));
    let pid = machine.pid(conn);
    machine.call(boss, Kill { pid, signal: Signal::Stop }).expect("it may");
    let asked = machine.begin(conn, compute(MS));
    machine.pass_ms(100);
    assert_eq!(machine.reply(conn, asked), None);
    machine.call(boss, Kill { pid, signal: Signal::Cont }).expect("it may");
    assert_eq!(machine.reply(conn, asked), Some(Ok(Reply::Quantum { us: MS })));
}

#[test]
fn end_of_a_process_ends_its_quantum() {
    let mut machine = Machine::default();
    let (boss, conn) = (machine.connect(ADMIN), machine.connect(ADMIN));
    let pid = machine.pid(conn);
    machine.call(conn, compute(QUANTUM_US_MAX)).expect("it is alone");
    let asked = machine.begin(boss, compute(MS));
    assert_eq!(machine.reply(boss, asked), None);
    machine.call(boss, Kill { pid, signal: Signal::Kill }).expect("it may");
    assert!(machine.reply(boss, asked).is_some());
}

#[test]
fn limit_of_service_holds_for_computing() {
    let mut machine = Machine::default();
    let (boss, conn) = (machine.connect(ADMIN), machine.connect(ADMIN));
    let pid = machine.pid(conn);
    let limit = Setlimit { pid, limit: Limit::ServiceUs, value: Some(30_000), then: Some(AtLimit::Stop) };
    machine.call(boss, limit).expect("it may");
    machine.call(conn, compute(20 * MS)).expect("it is alone");
    machine.pass_ms(20);
    machine.call(conn, compute(20 * MS)).expect("10 ms are left");
    machine.pass_ms(20);
    let asked = machine.begin(conn, compute(20 * MS));
    assert_eq!(info(&mut machine, boss, pid).state, ProcessState::Stopped);
    assert_eq!(machine.reply(conn, asked), None);
}

#[test]
fn program_that_has_used_its_service_up_is_refused_where_its_limit_says_so() {
    let mut machine = Machine::default();
    let (boss, conn) = (machine.connect(ADMIN), machine.connect(ADMIN));
    let pid = machine.pid(conn);
    let limit = |us| Setlimit { pid, limit: Limit::ServiceUs, value: Some(us), then: Some(AtLimit::Refuse) };
    machine.call(boss, limit(30_000)).expect("it may");
    for _ in 0..2 {
        machine.call(conn, compute(20 * MS)).expect("it is not used up");
        machine.pass_ms(20);
    }
    let fault = machine.call(conn, compute(20 * MS)).expect_err("it has had 40 ms");
    assert!(fault.errno == Errno::E2BIG && fault.message.contains("30000"), "{fault}");
    machine.call(boss, limit(60_000)).expect("it may");
    machine.call(conn, compute(20 * MS)).expect("20 ms are left");
}

#[test]
fn limit_of_service_holds_for_one_that_never_ends_its_quantum() {
    let mut machine = Machine::default();
    let (boss, conn) = (machine.connect(ADMIN), machine.connect(ADMIN));
    let pid = machine.pid(conn);
    let limit = |us| Setlimit { pid, limit: Limit::ServiceUs, value: Some(us), then: Some(AtLimit::Stop) };
    machine.call(boss, limit(1_000_000)).expect("it may");
    machine.call(conn, compute(10 * MS)).expect("it is alone");
    machine.pass_ms(200);
    // The limit is lowered in the middle of what it computes.
    machine.call(boss, limit(300_000)).expect("it may");
    machine.pass_ms(90);
    assert_ne!(info(&mut machine, boss, pid).state, ProcessState::Stopped, "it has 10 ms left");
    let soon = machine.now + 10_000;
    assert!(machine.wake.is_some_and(|at| at.0 <= soon), "the kernel wants to be woken for that");
    machine.pass_ms(10);
    let stopped = info(&mut machine, boss, pid);
    assert_eq!(stopped.state, ProcessState::Stopped);
    assert!((300_000..302_000).contains(&stopped.service_us), "{} µs", stopped.service_us);
}

#[test]
fn wrong_arguments_are_refused_with_what_is_allowed() {
    let mut machine = Machine::default();
    let conn = machine.connect(ADMIN);
    for us in [0, QUANTUM_US_MAX + 1] {
        let fault = machine.call(conn, compute(us)).expect_err("it is out of range");
        assert_eq!(fault.errno, Errno::EINVAL);
        assert!(fault.message.contains(&QUANTUM_US_MAX.to_string()), "{}", fault.message);
    }
    let unknown = Compute { device: Some("cuda:7".into()), us: MS };
    let fault = machine.call(conn, unknown).expect_err("there is none");
    assert!(fault.message.contains("there are cpu"), "{}", fault.message);
    let other = machine.connect(ADMIN);
    machine.call(other, compute(MS)).expect("it is alone");
    machine.begin(conn, compute(MS));
    assert_eq!(machine.call(conn, compute(MS)).expect_err("it waits already").errno, Errno::EAGAIN);
    assert_eq!(machine.call(conn, Yield {}), Ok(Reply::Done {}), "nothing to end is no fault");
}
