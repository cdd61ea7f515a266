//! The five policies: their orders, their names, and changing them while all runs.

use kernel::core::event::ConnId;
use kernel::core::{Event, KernelConfig, Policy};
use syscalls::call::*;
use syscalls::{CallId, Errno, Reply};

use crate::machine::{ADMIN, Machine, generate, generated, reference};

const TIMED: &str = "step_us=9000,row_us=1000,token_us=100,pool=65536,context=8192";

fn machine(policy: Policy) -> (Machine, ConnId) {
    let mut machine = Machine::new(KernelConfig { policy, ..KernelConfig::default() });
    let conn = machine.connect(ADMIN);
    machine.mount(conn, "m", TIMED).expect("it mounts");
    (machine, conn)
}

impl Machine {
    /// Begins a generation of one token on a prompt of so many.
    fn prompt(&mut self, conn: ConnId, tokens: usize, deadline_ms: Option<i64>) -> CallId {
        // Prompts with nothing in common: what was computed for one serves no other.
        let prompt: String = format!("{}, {};", self.now, conn.0).chars().cycle().take(tokens).collect();
        let context = self.open_with(conn, &prompt);
        self.begin(conn, Generate { deadline_ms, ..generate(context, 1) })
    }

    /// The order in which calls are answered.
    fn order(&mut self, calls: &[(ConnId, CallId)]) -> Vec<usize> {
        let mut order = Vec::new();
        while order.len() < calls.len() {
            assert!(self.turn());
            for (at, (conn, call)) in calls.iter().enumerate() {
                if !order.contains(&at) && self.reply(*conn, *call).is_some() {
                    order.push(at);
                }
            }
        }
        order
    }
}

/// The order in which three processes are served that ask one after another for a long, a long, and a short prompt,
/// the first of which has used much already.
fn order_under(policy: Policy) -> Vec<usize> {
    let (mut machine, first) = machine(policy);
    let conns = [first, machine.connect(ADMIN), machine.connect(ADMIN)];
    let call = machine.prompt(first, 8000, None);
    machine.finish(first, call).expect("it ends");
    // All begin while a step runs, so that the policy chooses among the three.
    let blocker = machine.connect(ADMIN);
    machine.prompt(blocker, 2048, None);
    let calls: Vec<_> =
        conns.iter().zip([6000, 5000, 1000]).map(|(c, n)| (*c, machine.prompt(*c, n, None))).collect();
    machine.order(&calls)
}

#[test]
fn policies_order_prompts_each_in_its_way() {
    assert_eq!(order_under(Policy::Fifo), [0, 1, 2], "in the order of the calls");
    assert_eq!(order_under(Policy::Edf), [0, 1, 2], "without deadlines, in the order of the calls");
    assert_eq!(order_under(Policy::Fair)[2], 0, "whoever has used most comes last");
    assert_eq!(order_under(Policy::Mlfq)[2], 0, "whoever has used most comes last");
    assert_eq!(order_under(Policy::Rr)[0], 2, "the short one needs the fewest turns");
}

#[test]
fn policy_of_a_new_configuration_begins_with_all_of_them_level() {
    let (mut machine, first) = machine(Policy::Fifo);
    let call = machine.prompt(first, 8000, None);
    machine.finish(first, call).expect("it ends");
    let config = KernelConfig { policy: Policy::Fair, ..KernelConfig::default() };
    machine.event(Event::Configured { config: Box::new(config) });
    let conns = [first, machine.connect(ADMIN)];
    let blocker = machine.connect(ADMIN);
    machine.prompt(blocker, 2048, None);
    let calls = conns.map(|conn| (conn, machine.prompt(conn, 5000, None)));
    assert_eq!(machine.order(&calls), [0, 1], "what it used under another policy is not held against it");
}

/// Runs until a prompt of an old process has its turn beside so many newcomers with prompts of so many tokens, each of which
/// makes room for the next one when it is done; fewer than `most` may go before it.
fn check_newcomers(
    machine: &mut Machine,
    old: ConnId,
    (together, tokens): (usize, usize),
    most: u32,
    case: &str,
) {
    let newcomer = |machine: &mut Machine| {
        let conn = machine.connect(ADMIN);
        (conn, machine.prompt(conn, tokens, None))
    };
    let mut newcomers: Vec<_> = (0..together).map(|_| newcomer(machine)).collect();
    let call = machine.prompt(old, 2048, None);
    let mut came = 0;
    while machine.reply(old, call).is_none() {
        assert!(machine.turn());
        for (conn, call) in &mut newcomers {
            if machine.reply(*conn, *call).is_some() {
                (*conn, *call) = newcomer(machine);
                came += 1;
            }
        }
        assert!(came < most, "{case}: {came} newcomers went before");
    }
}

#[test]
fn newcomers_without_end_starve_nobody() {
    let room = [TIMED.to_owned(), TIMED.replace("65536", "8192")];
    let cases =
        [Policy::Rr, Policy::Fair, Policy::Mlfq].into_iter().flat_map(|p| room.iter().map(move |r| (p, r)));
    for (policy, script) in cases {
        let mut machine = Machine::new(KernelConfig { policy, ..KernelConfig::default() });
        let old = machine.connect(ADMIN);
        machine.mount(old, "m", script).expect("it mounts");
        let call = machine.prompt(old, 8000, None);
        machine.finish(old, call).expect("it ends");
        // Of 0.2 s each: under mlfq all rise once in 10 s.
        check_newcomers(&mut machine, old, (2, 2048), 100, &format!("{policy}, {script}"));
    }
}

#[test]
fn newcomers_without_end_keep_nobody_out_of_memory() {
    for policy in [Policy::Rr, Policy::Fair, Policy::Mlfq] {
        let mut machine = Machine::new(KernelConfig { policy, ..KernelConfig::default() });
        let old = machine.connect(ADMIN);
        machine.mount(old, "m", &TIMED.replace("65536", "8192")).expect("it mounts");
        let call = machine.prompt(old, 8000, None);
        machine.finish(old, call).expect("it ends");
        // Two of them have all of it, and others are in line for that before these end.
        // They take 0.4 s each: under mlfq all rise once in 10 s.
        check_newcomers(&mut machine, old, (4, 4000), 60, &policy.to_string());
    }
}

#[test]
fn earliest_deadline_goes_first_under_edf_and_in_realtime() {
    for (policy, class) in [(Policy::Edf, Class::Normal), (Policy::Fair, Class::Realtime)] {
        let (mut machine, _) = machine(policy);
        let conns: Vec<ConnId> = (0..3).map(|_| machine.connect_as(ADMIN, class, 0)).collect();
        machine.prompt(conns[0], 2048, None);
        let deadlines = [None, Some(60_000), Some(20_000)];
        let calls: Vec<_> =
            conns.iter().zip(deadlines).map(|(c, at)| (*c, machine.prompt(*c, 5000, at))).collect();
        assert_eq!(machine.order(&calls), [2, 1, 0], "{policy} {class:?}");
    }
}

#[test]
fn deadline_is_not_held_up_by_a_beginning_that_one_without_computes() {
    for (policy, class) in [(Policy::Edf, Class::Normal), (Policy::Fair, Class::Realtime)] {
        let (mut machine, _) = machine(policy);
        let conns: Vec<ConnId> = (0..3).map(|_| machine.connect_as(ADMIN, class, 0)).collect();
        let begin = |machine: &mut Machine, conn: ConnId, letter: &str, deadline_ms| {
            let context = machine.open_with(conn, &letter.repeat(6000));
            (conn, machine.begin(conn, Generate { deadline_ms, ..generate(context, 1) }))
        };
        // The first is in the middle of it when the others come, of whom the last begins in the same way.
        begin(&mut machine, conns[0], "a", None);
        let later = begin(&mut machine, conns[1], "b", Some(60_000));
        let sooner = begin(&mut machine, conns[2], "a", Some(20_000));
        assert_eq!(machine.order(&[sooner, later]), [0, 1], "{policy} {class:?}");
    }
}

#[test]
fn deadline_that_is_past_is_refused() {
    let (mut machine, conn) = machine(Policy::Edf);
    let context = machine.open_with(conn, "late");
    let late = Generate { deadline_ms: Some(-20), ..generate(context, 1) };
    let fault = machine.call(conn, late).expect_err("past");
    assert_eq!(fault.errno, Errno::EINVAL);
    assert!(fault.message.contains("deadline_ms is -20, which is past"), "{fault}");
    // The second waits for the first, and its deadline passes meanwhile.
    let first = machine.begin(conn, generate(context, 100));
    let second = machine.begin(conn, Generate { deadline_ms: Some(5), ..generate(context, 1) });
    machine.finish(conn, first).expect("it ends");
    let fault = machine.finish(conn, second).expect_err("too late");
    assert_eq!(fault.errno, Errno::ETIMEDOUT);
    assert!(fault.message.contains("before the generation could begin"), "{fault}");
}

#[test]
fn policy_is_changed_by_the_administrator_while_all_runs() {
    let (mut machine, admin) = machine(Policy::Fair);
    let set = |policy: &str| Setpolicy { policy: policy.into() };
    let fault = machine.call(admin, set("lottery")).expect_err("unknown");
    assert_eq!(fault.errno, Errno::EINVAL);
    assert!(fault.message.ends_with("choose one of fifo, rr, fair, mlfq, edf"), "{fault}");
    let user = machine.connect(1000);
    assert_eq!(machine.call(user, set("fifo")).expect_err("a user").errno, Errno::EPERM);
    let conns: Vec<ConnId> = (0..4).map(|_| machine.connect(1000)).collect();
    let calls: Vec<CallId> = conns
        .iter()
        .enumerate()
        .map(|(n, conn)| {
            let context = machine.open_with(*conn, &format!("process {n}"));
            machine.begin(*conn, generate(context, 100))
        })
        .collect();
    for (name, _) in Policy::ALL {
        (0..10).for_each(|_| assert!(machine.turn()));
        machine.call(admin, set(name)).expect("the administrator");
        let Ok(Reply::Sysinfo(info)) = machine.call(admin, Sysinfo {}) else { panic!("sysinfo") };
        assert_eq!(info.policy, name);
    }
    for (n, (conn, call)) in conns.iter().zip(calls).enumerate() {
        let text = generated(machine.finish(*conn, call)).text;
        assert_eq!(text, reference("", &format!("process {n}"), 100));
    }
}
