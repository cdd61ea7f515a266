//! Which file a model is: a file that has changed is refused until somebody says that it is meant.

use kernel::core::Event;
use kernel::core::event::ConnId;
use syscalls::call::{Models, Mount, Unmount};
use syscalls::reply::{ModelInfo, ModelState};
use syscalls::{Errno, Fault, Reply};

use crate::machine::{ADMIN, Machine, mount, open};

/// The beginnings of the digests of the files 1 and 2.
const FIRST: &str = "010101010101…";
const SECOND: &str = "020202020202…";

/// A machine with the model m from file 1.
fn registered() -> (Machine, ConnId) {
    let mut machine = Machine::default();
    machine.file = Some(1);
    let conn = machine.connect(ADMIN);
    machine.mount(conn, "m", "").expect("mounts");
    (machine, conn)
}

fn model(machine: &mut Machine, conn: ConnId) -> ModelInfo {
    match machine.call(conn, Models {}) {
        Ok(Reply::Models(list)) => list.into_iter().next().expect("one is mounted"),
        other => panic!("{other:?}"),
    }
}

/// Ends the daemon, changes the file, and starts it again.
fn restarted(machine: &mut Machine, file: u8) -> (Machine, ConnId) {
    machine.file = Some(file);
    let mut next = machine.crashed(Default::default());
    next.run();
    let conn = next.connect(ADMIN);
    (next, conn)
}

#[track_caller]
fn is_offline(machine: &mut Machine, conn: ConnId) -> String {
    let info = model(machine, conn);
    assert_eq!(info.state, ModelState::Offline);
    info.trouble.expect("it says why")
}

fn accepting() -> Mount {
    Mount { accept_changed: true, ..mount("m", "") }
}

#[test]
fn file_that_has_changed_is_refused_at_the_next_start_with_both_digests() {
    let (mut machine, conn) = registered();
    assert_eq!(model(&mut machine, conn).digest, Some(format!("sha256:{}", "01".repeat(32))));
    let (mut next, conn) = restarted(&mut machine, 2);
    let trouble = is_offline(&mut next, conn);
    for part in [FIRST, SECOND, "mount --accept-changed sim: --name m", "umount and mount"] {
        assert!(trouble.contains(part), "{trouble}");
    }
    let fault = next.call(conn, open()).expect_err("nothing runs");
    assert_eq!(fault.errno, Errno::ENODEV);
    // It is refused at each further start, and is as it was when the file is.
    let (mut again, conn) = restarted(&mut next, 2);
    is_offline(&mut again, conn);
    let (mut back, conn) = restarted(&mut again, 1);
    assert_eq!(model(&mut back, conn).state, ModelState::Ready);
}

#[test]
fn file_that_has_changed_is_accepted_by_name_alone() {
    let (mut machine, _) = registered();
    let (mut next, conn) = restarted(&mut machine, 2);
    let plain = next.call(conn, mount("m", "")).expect_err("the name is taken");
    assert_eq!(plain.errno, Errno::EEXIST);
    next.call(conn, accepting()).expect("it is meant");
    assert_eq!(model(&mut next, conn).digest, Some(format!("sha256:{}", "02".repeat(32))));
    let (mut again, conn) = restarted(&mut next, 2);
    assert_eq!(model(&mut again, conn).state, ModelState::Ready, "that is what it is from now on");
    let running = again.call(conn, accepting()).expect_err("it runs");
    assert_eq!(running.errno, Errno::EEXIST);
}

#[test]
fn file_that_has_changed_is_accepted_by_mounting_anew() {
    let (mut machine, _) = registered();
    let (mut next, conn) = restarted(&mut machine, 2);
    next.call(conn, Unmount { name: "m".into(), force: false }).expect("nobody uses it");
    assert!(next.records.is_empty(), "{:?}", next.records);
    next.mount(conn, "m", "").expect("it is another model now");
    assert_eq!(next.records.len(), 2);
}

#[test]
fn file_that_has_changed_under_a_worker_is_refused_when_that_is_started_again() {
    let (mut machine, conn) = registered();
    let context = machine.open_with(conn, "text");
    machine.file = Some(2);
    machine.kill_worker();
    machine.run();
    is_offline(&mut machine, conn);
    let fault: Result<Reply, Fault> = machine.call(conn, crate::machine::generate(context, 1));
    assert_eq!(fault.expect_err("nothing runs").errno, Errno::ENODEV);
}

#[test]
fn mount_refused_registers_nothing_and_hears_how_far_the_reading_is() {
    let mut machine = Machine::default();
    machine.file = Some(1);
    let conn = machine.connect(ADMIN);
    machine.mount(conn, "m", "refuse=no model").expect_err("refused");
    assert!(machine.records.is_empty());
    let id = machine.begin(conn, mount("m", ""));
    let model = kernel::core::event::ModelId(2);
    machine.event(Event::Checking { model, fraction: 0.5 });
    let heard = machine.events(conn, id).to_vec();
    let expected = syscalls::Event::Progress { fraction: 0.5, what: "checking m".into() };
    assert_eq!(heard, [expected]);
    machine.finish(conn, id).expect("mounts");
    assert_eq!(machine.records.len(), 2);
}
