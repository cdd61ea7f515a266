//! Services: who is started when, what becomes of those that end, and what a new configuration changes.

mod transient;

use kernel::core::event::{ConnId, Event};
use kernel::core::printed::Printed;
use kernel::core::service::{OrderError, ServiceConfig, check_order};
use kernel::core::{KernelConfig, Now};
use syscalls::call::*;
use syscalls::event::Stream;
use syscalls::reply::{ServiceInfo, ServiceState, ServiceStatusReply};
use syscalls::{Errno, Fault, Pid, Reply};

use super::machine::{ADMIN, Machine};

/// The host's side of programs that are services.
struct Host {
    machine: Machine,
    conn: ConnId,
    born: u64,
}

fn service(name: &str) -> ServiceConfig {
    ServiceConfig::new(name, vec![format!("/bin/{name}")], ADMIN)
}

fn after(name: &str, before: &[&str]) -> ServiceConfig {
    ServiceConfig { after: before.iter().map(|&name| name.to_owned()).collect(), ..service(name) }
}

fn requiring(name: &str, before: &[&str]) -> ServiceConfig {
    ServiceConfig { requires: before.iter().map(|&name| name.to_owned()).collect(), ..service(name) }
}

impl Host {
    /// A daemon that has just started with these services.
    fn boot(services: Vec<ServiceConfig>) -> Host {
        check_order(&services).expect("they have an order");
        let mut machine = Machine::new(KernelConfig { services, ..KernelConfig::default() });
        machine.event(Event::Booted { records: vec![] });
        let conn = machine.connect(ADMIN);
        Host { machine, conn, born: 9000 }
    }

    /// The programs that the kernel has asked for since the last time, by name.
    fn asked(&mut self) -> Vec<String> {
        let asked = self.machine.programs.iter().map(|(_, program)| program.argv[0].clone());
        asked.map(|name| name.trim_start_matches("/bin/").to_owned()).collect()
    }

    /// Starts what the kernel has asked for, until it asks for nothing more. Tells the names in their order.
    fn start_all(&mut self) -> Vec<String> {
        let mut names = vec![];
        while !self.machine.programs.is_empty() {
            names.extend(self.asked());
            for (pid, _) in std::mem::take(&mut self.machine.programs) {
                self.born += 1;
                self.machine.event(Event::ProgramStarted { pid, conn: ConnId(self.born), os_pid: 77 });
            }
        }
        names
    }

    /// The program of a service ends by itself.
    fn end(&mut self, name: &str, status: u8) {
        let pid = self.pid(name);
        self.machine.event(Event::ProgramEnded { pid, status });
    }

    /// Those programs that were told to end do, by TERM.
    fn end_told(&mut self) -> Vec<String> {
        let mut names = vec![];
        loop {
            let signals = std::mem::take(&mut self.machine.program_signals);
            let told = signals.into_iter().filter(|(_, signal)| *signal != Signal::Cont).map(|(pid, _)| pid);
            let told: Vec<Pid> = told.chain(std::mem::take(&mut self.machine.programs_told_to_end)).collect();
            if told.is_empty() {
                return names;
            }
            for pid in told {
                let of = self.list().into_iter().find(|service| service.pid == Some(pid));
                names.extend(of.map(|service| service.name));
                self.machine.event(Event::ProgramEnded { pid, status: 128 + 15 });
            }
        }
    }

    fn list(&mut self) -> Vec<ServiceInfo> {
        match self.machine.call(self.conn, ServiceList {}) {
            Ok(Reply::Services(list)) => list,
            other => panic!("unexpected {other:?}"),
        }
    }

    fn info(&mut self, name: &str) -> ServiceInfo {
        self.list().into_iter().find(|service| service.name == name).expect("it is there")
    }

    fn state(&mut self, name: &str) -> ServiceState {
        self.info(name).state
    }

    fn states(&mut self, names: &[&str]) -> Vec<ServiceState> {
        names.iter().map(|name| self.state(name)).collect()
    }

    fn pid(&mut self, name: &str) -> Pid {
        self.info(name).pid.expect("it has run")
    }

    fn status(&mut self, name: &str) -> ServiceStatusReply {
        match self.machine.call(self.conn, ServiceStatus { name: name.into(), lines: None }) {
            Ok(Reply::ServiceStatus(reply)) => reply,
            other => panic!("unexpected {other:?}"),
        }
    }

    fn configure(&mut self, services: Vec<ServiceConfig>) {
        let config = Box::new(KernelConfig { services, ..KernelConfig::default() });
        self.machine.event(Event::Configured { config });
    }

    fn begin(&mut self, call: impl Into<syscalls::Call>) -> syscalls::CallId {
        self.machine.begin(self.conn, call)
    }

    fn reply(&self, call: syscalls::CallId) -> Option<Result<Reply, Fault>> {
        self.machine.reply(self.conn, call)
    }
}

fn start(name: &str) -> ServiceStart {
    ServiceStart { name: name.into(), transient: None }
}

fn stop(name: &str) -> ServiceStop {
    ServiceStop { name: name.into() }
}

#[test]
fn services_start_with_the_daemon_in_their_order() {
    let disabled = ServiceConfig { enabled: false, ..service("d") };
    let mut host = Host::boot(vec![after("a", &["b"]), requiring("b", &["c"]), service("c"), disabled]);
    assert_eq!(host.start_all(), ["c", "b", "a"]);
    let states = host.states(&["a", "b", "c", "d"]);
    assert_eq!(states, [[ServiceState::Running; 3].as_slice(), &[ServiceState::Inactive]].concat());
    let ps = host.machine.ps(host.conn);
    let parents = ps.iter().filter(|p| p.name.len() == 1).map(|p| p.parent);
    assert!(parents.eq([Pid::KERNEL; 3]), "they are the kernel's own children");
}

#[test]
fn what_a_service_requires_is_started_with_it() {
    let disabled = |config: ServiceConfig| ServiceConfig { enabled: false, ..config };
    let mut host = Host::boot(vec![
        disabled(requiring("a", &["b"])),
        disabled(service("b")),
        disabled(after("c", &["b"])),
    ]);
    assert!(host.asked().is_empty());
    let call = host.begin(start("a"));
    assert_eq!(host.start_all(), ["b", "a"]);
    assert!(
        matches!(host.reply(call), Some(Ok(Reply::Service(info))) if info.state == ServiceState::Running)
    );
    let mut host = Host::boot(vec![disabled(service("b")), disabled(after("c", &["b"]))]);
    host.begin(start("c"));
    assert_eq!(host.start_all(), ["c"], "after alone starts nobody");
}

#[test]
fn all_that_a_service_requires_is_started_though_two_require_the_same_one() {
    let disabled = |config: ServiceConfig| ServiceConfig { enabled: false, ..config };
    let mut host = Host::boot(vec![
        disabled(requiring("a", &["b", "c", "d"])),
        disabled(service("b")),
        disabled(service("c")),
        disabled(requiring("d", &["c"])),
    ]);
    let call = host.begin(start("a"));
    assert_eq!(host.start_all(), ["b", "c", "d", "a"]);
    assert!(
        matches!(host.reply(call), Some(Ok(Reply::Service(info))) if info.state == ServiceState::Running)
    );
}

#[test]
fn services_in_a_circle_are_refused_with_their_names() {
    let circle = [after("x", &["a"]), after("a", &["b"]), requiring("b", &["c"]), after("c", &["a"])];
    let names = ["a", "b", "c", "a"].map(str::to_owned).to_vec();
    assert_eq!(check_order(&circle), Err(OrderError::Cycle(names)));
    let own = check_order(&[after("a", &["a"])]).expect_err("it waits for itself");
    assert!(own.to_string().contains("a → a"), "{own}");
    let unknown = check_order(&[requiring("a", &["z"])]).expect_err("there is no z");
    assert!(unknown.to_string().contains("`z` in requires"), "{unknown}");
    let diamond = [after("a", &["b", "c"]), after("b", &["d"]), after("c", &["d"]), service("d")];
    assert_eq!(check_order(&diamond), Ok(()), "two ways to one are no circle");
}

#[test]
fn service_that_fails_is_started_again_after_pauses_that_double() {
    let mut host = Host::boot(vec![service("a")]);
    host.start_all();
    for pause_ms in [100, 200, 400, 800] {
        host.end("a", 1);
        assert_eq!(host.state("a"), ServiceState::Backoff);
        assert_eq!(host.machine.wake, Some(Now(host.machine.now - 1 + pause_ms * 1000)));
        host.machine.pass_ms(pause_ms - 1);
        assert!(host.asked().is_empty(), "the pause is not over after {pause_ms} ms less one");
        host.machine.pass_ms(1);
        assert_eq!(host.start_all(), ["a"]);
    }
    assert_eq!(host.info("a").restarts, 4);
}

#[test]
fn service_that_reaches_its_start_limit_has_failed_with_the_reason() {
    let mut host = Host::boot(vec![service("a"), requiring("b", &["a"])]);
    host.start_all();
    for _ in 0..5 {
        host.end("a", 3);
        host.machine.pass_ms(1700);
        host.start_all();
    }
    let info = host.info("a");
    let reason = "started 5 times within 10000 ms, which is its start limit; it last ended with status 3";
    assert_eq!((info.state, info.reason.as_deref()), (ServiceState::Failed, Some(reason)));
    assert_eq!(host.state("b"), ServiceState::Running, "what ends by itself stops nobody");
    assert!(host.machine.logs.iter().any(|line| line.contains("service a has failed: started 5 times")));
    let call = host.begin(start("a"));
    assert_eq!(host.start_all(), ["a"], "somebody who asks for it begins anew");
    assert!(matches!(host.reply(call), Some(Ok(_))));
}

#[test]
fn service_that_ran_long_begins_with_the_shortest_pause() {
    let mut host = Host::boot(vec![service("a")]);
    host.start_all();
    for _ in 0..3 {
        host.end("a", 1);
        host.machine.pass_ms(1000);
        host.start_all();
    }
    host.machine.pass_ms(30_000);
    host.end("a", 1);
    assert_eq!(host.info("a").next_start_ms, Some(99), "100 ms, less what the question took");
}

#[test]
fn policy_says_who_is_started_again() {
    let of = |restart, status| {
        let mut host = Host::boot(vec![ServiceConfig { restart, ..service("a") }]);
        host.start_all();
        host.end("a", status);
        host.info("a")
    };
    let state = |restart, status| of(restart, status).state;
    let (backoff, inactive, failed) = (ServiceState::Backoff, ServiceState::Inactive, ServiceState::Failed);
    assert_eq!(
        [0, 1, 137, 143].map(|s| state(Restart::OnFailure, s)),
        [inactive, backoff, backoff, inactive]
    );
    assert_eq!([0, 1, 137, 143].map(|s| state(Restart::Always, s)), [backoff; 4]);
    assert_eq!([0, 1, 137, 143].map(|s| state(Restart::Never, s)), [inactive, failed, failed, inactive]);
    assert_eq!(of(Restart::Never, 137).reason.as_deref(), Some("ended by KILL"));
}

#[test]
fn service_whose_program_is_refused_fails_with_that_and_so_does_what_requires_it() {
    let once = ServiceConfig { restart: Restart::Never, enabled: false, ..service("a") };
    let mut host = Host::boot(vec![once, ServiceConfig { enabled: false, ..requiring("b", &["a"]) }]);
    let call = host.begin(start("b"));
    let (pid, _) = host.machine.programs.pop().expect("a is asked for");
    let fault = Fault::new(Errno::ENOENT, "there is no /bin/a");
    host.machine.event(Event::ProgramRefused { pid, fault });
    assert_eq!(host.info("a").reason.as_deref(), Some("there is no /bin/a"));
    let fault = host.reply(call).expect("is answered").expect_err("it cannot run");
    assert_eq!(fault.errno, Errno::EIO);
    assert!(fault.message.contains("requires `a`, which has failed: there is no /bin/a"), "{fault}");
}

#[test]
fn service_that_has_done_its_work_serves_those_that_require_it() {
    let mut host = Host::boot(vec![service("prepare"), requiring("a", &["prepare"])]);
    host.start_all();
    host.end("prepare", 0);
    host.end("a", 1);
    host.machine.pass_ms(100);
    assert_eq!(host.start_all(), ["a"]);
}

#[test]
fn service_that_is_stopped_stops_those_that_require_it_first() {
    let mut host =
        Host::boot(vec![service("a"), requiring("b", &["a"]), requiring("c", &["b"]), after("d", &["a"])]);
    host.start_all();
    let call = host.begin(stop("a"));
    assert_eq!(host.machine.program_signals.len(), 2, "c alone gets TERM, and CONT to act on it");
    assert_eq!(host.end_told(), ["c", "b", "a"]);
    assert!(
        matches!(host.reply(call), Some(Ok(Reply::Service(info))) if info.state == ServiceState::Inactive)
    );
    let inactive = [ServiceState::Inactive; 3].as_slice();
    assert_eq!(host.states(&["a", "b", "c", "d"]), [inactive, &[ServiceState::Running]].concat());
    assert!(host.asked().is_empty(), "what was stopped stays so");
}

#[test]
fn service_that_is_restarted_takes_those_along_that_require_it() {
    let mut host = Host::boot(vec![service("a"), requiring("b", &["a"])]);
    host.start_all();
    let before = host.pid("a");
    let call = host.begin(ServiceRestart { name: "a".into() });
    assert_eq!(host.end_told(), ["b", "a"]);
    assert_eq!(host.start_all(), ["a", "b"]);
    assert!(matches!(host.reply(call), Some(Ok(Reply::Service(info))) if info.pid > Some(before)));
}

#[test]
fn service_that_does_not_end_is_killed_when_its_grace_is_over() {
    let slow = ServiceConfig { stop_signal: Signal::Int, stop_grace_ms: 500, ..service("a") };
    let mut host = Host::boot(vec![slow]);
    host.start_all();
    let pid = host.pid("a");
    let call = host.begin(stop("a"));
    assert_eq!(host.machine.program_signals, [(pid, Signal::Int), (pid, Signal::Cont)]);
    host.machine.pass_ms(499);
    assert!(host.machine.programs_told_to_end.is_empty());
    host.machine.pass_ms(1);
    assert_eq!(host.machine.programs_told_to_end, [pid]);
    assert!(host.reply(call).is_none(), "its program is there still");
    host.machine.event(Event::ProgramEnded { pid, status: 137 });
    assert!(matches!(host.reply(call), Some(Ok(_))));
    assert_eq!((host.state("a"), host.info("a").status), (ServiceState::Inactive, Some(137)));
}

#[test]
fn service_that_is_stopped_in_a_pause_stays_stopped() {
    let mut host = Host::boot(vec![service("a")]);
    host.start_all();
    host.end("a", 1);
    host.machine.call(host.conn, stop("a")).expect("it is the administrator's");
    host.machine.pass_ms(60_000);
    assert!(host.asked().is_empty());
    assert_eq!(host.state("a"), ServiceState::Inactive);
}

#[test]
fn service_that_is_started_while_it_stops_is_started_again() {
    let mut host = Host::boot(vec![service("a")]);
    host.start_all();
    let stopping = host.begin(stop("a"));
    let starting = host.begin(start("a"));
    host.end_told();
    assert_eq!(host.start_all(), ["a"]);
    assert!(matches!(host.reply(starting), Some(Ok(_))));
    assert!(host.reply(stopping).is_none(), "it waits for the next stop");
}

#[test]
fn service_keeps_what_it_has_printed_through_its_starts() {
    let mut host = Host::boot(vec![service("a")]);
    host.start_all();
    for text in ["one", "two"] {
        let pid = host.pid("a");
        let line = Printed { stream: Stream::Stderr, text: text.into(), cut: false };
        host.machine.event(Event::ProgramPrinted { pid, lines: vec![line] });
        host.end("a", 1);
        host.machine.pass_ms(1000);
        host.start_all();
    }
    let program = host.status("a").program.expect("the administrator reads it");
    let lines: Vec<_> = program.output.lines.iter().map(|l| (l.number, l.text.as_str())).collect();
    assert_eq!((lines, program.argv), (vec![(0, "one"), (1, "two")], vec!["/bin/a".to_owned()]));
    let stranger = host.machine.connect(1000);
    match host.machine.call(stranger, ServiceStatus { name: "a".into(), lines: None }) {
        Ok(Reply::ServiceStatus(reply)) => assert_eq!(reply.program, None, "others see the state alone"),
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn configuration_adds_changes_and_removes_services() {
    let mut host = Host::boot(vec![service("same"), service("changed"), service("gone")]);
    host.start_all();
    let same = host.pid("same");
    let changed = ServiceConfig { nice: 3, ..service("changed") };
    host.configure(vec![service("same"), changed, service("new")]);
    assert_eq!(host.end_told(), ["changed", "gone"]);
    assert_eq!(host.start_all(), ["new", "changed"]);
    let names: Vec<String> = host.list().into_iter().map(|service| service.name).collect();
    assert_eq!(names, ["changed", "new", "same"]);
    assert_eq!(host.pid("same"), same, "what has not changed runs on");
    let ps = host.machine.ps(host.conn);
    assert!(ps.iter().any(|process| process.name == "changed" && process.nice == 3));
}

#[test]
fn service_that_comes_back_while_it_goes_is_started_again() {
    let mut host = Host::boot(vec![service("a")]);
    host.start_all();
    host.configure(vec![]);
    host.configure(vec![service("a")]);
    host.end_told();
    assert_eq!(host.start_all(), ["a"]);
}

#[test]
fn subscriber_hears_how_services_change() {
    let mut host = Host::boot(vec![service("a")]);
    let call = host.begin(Subscribe { kinds: vec!["service".into()], timeout_ms: None });
    host.start_all();
    host.end("a", 0);
    let states: Vec<ServiceState> = host
        .machine
        .events(host.conn, call)
        .iter()
        .map(|event| match event {
            syscalls::Event::Service { state, .. } => *state,
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    assert_eq!(states, [ServiceState::Running, ServiceState::Inactive]);
}

#[test]
fn service_has_the_class_group_and_limits_that_are_declared_and_is_no_administrator() {
    let mut config = ServiceConfig { class: Class::Batch, group: Some("nightly".into()), ..service("a") };
    config.limits.contexts = Some(0);
    let mut host = Host::boot(vec![config]);
    host.start_all();
    let born = ConnId(host.born);
    let ps = host.machine.ps(born);
    let own = ps.iter().find(|process| process.name == "a").expect("it lives");
    assert_eq!((own.class, own.group.as_str()), (Class::Batch, "user.0/nightly"));
    let refused = host.machine.call(born, Setpolicy { policy: "fifo".into() });
    assert_eq!(refused.expect_err("it is no administrator").errno, Errno::EPERM);
    let refused = host.machine.call(born, super::machine::open());
    assert!(refused.is_err(), "it may have no context");
}
