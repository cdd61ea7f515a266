//! Services that users start, and that are not of the configuration.

use super::*;

#[test]
fn transient_service_is_its_users_and_is_forgotten_when_it_has_ended_well() {
    let mut host = Host::boot(vec![service("a")]);
    host.start_all();
    let user = host.machine.connect(1000);
    let transient = |restart| Transient {
        argv: vec!["/bin/t".into()],
        class: None,
        nice: None,
        group: None,
        restart,
        rules: RestartRules::default(),
    };
    let run = |name: &str| ServiceStart { name: name.into(), transient: Some(transient(Restart::OnFailure)) };
    let call = host.machine.begin(user, run("t"));
    assert_eq!(host.start_all(), ["t"]);
    assert!(matches!(host.machine.reply(user, call), Some(Ok(Reply::Service(info))) if info.uid == 1000));
    let refused =
        |host: &mut Host, call: syscalls::Call| host.machine.call(user, call).expect_err("refused").errno;
    assert_eq!(refused(&mut host, run("t").into()), Errno::EEXIST);
    assert_eq!(refused(&mut host, run("a b").into()), Errno::EINVAL);
    assert_eq!(refused(&mut host, stop("a").into()), Errno::EPERM);
    assert_eq!(refused(&mut host, stop("z").into()), Errno::ENOENT);
    let stranger = host.machine.connect(1001);
    assert_eq!(host.machine.call(stranger, stop("t")).expect_err("refused").errno, Errno::EPERM);
    host.machine.event(Event::Disconnected { conn: user });
    host.end("t", 1);
    host.machine.pass_ms(100);
    assert_eq!(host.start_all(), ["t"], "it outlives the connection of who has made it");
    host.end("t", 0);
    assert!(host.list().iter().all(|service| service.name != "t"));
}

#[test]
fn transient_service_without_a_pause_between_its_starts_is_refused() {
    let mut host = Host::boot(vec![]);
    let user = host.machine.connect(1000);
    for (backoff_start_ms, backoff_max_ms) in [(0, 0), (0, 1000), (2, 1)] {
        let rules = RestartRules { backoff_start_ms, backoff_max_ms, ..RestartRules::default() };
        let (argv, restart) = (vec!["/bin/t".into()], Restart::Always);
        let transient = Transient { argv, class: None, nice: None, group: None, restart, rules };
        let call = ServiceStart { name: "t".into(), transient: Some(transient) };
        let fault = host.machine.call(user, call).expect_err("it would be started again and again at once");
        assert_eq!(fault.errno, Errno::EINVAL);
        assert!(fault.message.contains(&format!("backoff_start_ms is {backoff_start_ms}")), "{fault}");
    }
    assert!(host.list().is_empty());
}

#[test]
fn transient_services_of_a_user_are_limited() {
    let mut host = Host::boot(vec![]);
    let user = host.machine.connect(1000);
    let run = |n: usize| {
        let (argv, rules) = (vec!["/bin/t".into()], RestartRules::default());
        let restart = Restart::Never;
        let transient = Transient { argv, class: None, nice: None, group: None, restart, rules };
        ServiceStart { name: format!("t{n}"), transient: Some(transient) }
    };
    let most = syscalls::limits::SERVICES_PER_USER_MAX;
    for n in 0..most {
        host.machine.begin(user, run(n));
    }
    let fault = host.machine.call(user, run(most)).expect_err("there are as many as there may be");
    assert_eq!(fault.errno, Errno::EMFILE);
}
