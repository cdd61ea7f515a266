//! Workers that cannot be started, and files that cannot be looked at, because the machine is short of something.

use kernel::core::effect::Record;
use syscalls::Errno;

use crate::machine::{ADMIN, Machine, generate, generated, open, reference};

#[test]
fn worker_that_the_machine_has_too_little_for_is_tried_until_it_starts() {
    for errno in [Errno::EMFILE, Errno::EAGAIN, Errno::ENOMEM] {
        let (mut machine, conn) = Machine::with_model("");
        let context = machine.open_with(conn, "short");
        let running = machine.begin(conn, generate(context, 30));
        machine.short_of = Some(errno);
        machine.kill_worker();
        while machine.delays.len() < 20 {
            assert!(machine.turn(), "it is tried again: {:?}", machine.delays);
        }
        assert_eq!(machine.delays[..7], [0, 0, 200, 1000, 5000, 30_000, 30_000]);
        let fault = machine.mount(conn, "other", "").expect_err("who waits for a mount is told");
        assert_eq!(fault.errno, errno);
        machine.short_of = None;
        assert_eq!(generated(machine.finish(conn, running)).text, reference("", "short", 30));
        let said = machine.logs.iter().filter(|line| line.contains("no worker can be had")).count();
        assert_eq!(said, 1, "{:?}", machine.logs);
        machine.mount(conn, "other", "").expect("there is enough again");
    }
}

#[test]
fn model_of_an_earlier_boot_waits_for_what_its_worker_takes() {
    let mut machine = Machine::default();
    machine.short_of = Some(Errno::EMFILE);
    let records = vec![Record::Mount(syscalls::client::mount("sim:", "m"))];
    machine.event(kernel::core::Event::Booted { records });
    while machine.delays.len() < 20 {
        assert!(machine.turn(), "it is tried again");
    }
    machine.short_of = None;
    let conn = machine.connect(ADMIN);
    let context = machine.open_with(conn, "late");
    assert_eq!(machine.generate(conn, context, 9).text, reference("", "late", 9));
}

/// A machine whose daemon was started with the model m, whose file cannot be looked at.
fn booted_without(errno: Errno) -> Machine {
    let mut machine = Machine::default();
    machine.cannot_inspect = Some(errno);
    let records = vec![Record::Mount(syscalls::client::mount("sim:", "m"))];
    machine.event(kernel::core::Event::Booted { records });
    machine
}

#[test]
fn model_that_cannot_be_looked_at_for_want_of_something_is_looked_at_again_until_it_can() {
    for errno in [Errno::EMFILE, Errno::ENOMEM, Errno::EAGAIN] {
        let mut machine = booted_without(errno);
        while machine.inspection_delays.len() < 20 {
            assert!(machine.turn(), "it is tried again: {:?}", machine.inspection_delays);
        }
        assert_eq!(machine.inspection_delays[..6], [0, 200, 1000, 5000, 30_000, 30_000]);
        let said = machine.logs.iter().filter(|line| line.contains("cannot be looked at now")).count();
        assert_eq!(said, 1, "{:?}", machine.logs);
        let conn = machine.connect(ADMIN);
        let opening = machine.begin(conn, open());
        machine.cannot_inspect = None;
        machine.finish(conn, opening).expect("a call that came meanwhile has waited");
    }
}

#[test]
fn model_that_the_disk_does_not_give_is_looked_at_a_few_times() {
    let mut machine = booted_without(Errno::EIO);
    machine.run();
    assert_eq!(machine.inspection_delays, [0, 200, 1000, 5000, 30_000, 30_000]);
    let conn = machine.connect(ADMIN);
    assert_eq!(machine.call(conn, open()).expect_err("it is offline").errno, Errno::ENODEV);
}

#[test]
fn model_that_is_not_there_or_that_somebody_mounts_is_looked_at_once() {
    let mut machine = booted_without(Errno::ENOENT);
    machine.run();
    assert_eq!(machine.inspection_delays, [0]);
    machine.cannot_inspect = Some(Errno::EMFILE);
    let conn = machine.connect(ADMIN);
    let fault = machine.mount(conn, "other", "").expect_err("who waits for a mount is told");
    assert_eq!((fault.errno, machine.inspection_delays.len()), (Errno::EMFILE, 2));
}
