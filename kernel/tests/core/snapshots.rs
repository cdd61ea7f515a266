//! Snapshots: contexts that outlive their processes and the daemon, and say the same when they are opened again.

use kernel::core::effect::Record;
use kernel::core::event::ConnId;
use kernel::core::{Event, KernelConfig};
use syscalls::call::*;
use syscalls::limits::SNAPSHOTS_PER_USER_MAX;
use syscalls::{ContextId, Errno, Fault, Reply, Tokens};

use crate::machine::{ADMIN, Machine, append_bytes, generate, generated, mount, reference};

impl Machine {
    fn snapshot(&mut self, conn: ConnId, context: ContextId, name: &str) -> Result<(), Fault> {
        self.call(conn, Snapshot { context, name: name.into() }).map(drop)
    }

    fn restore(&mut self, conn: ConnId, name: &str) -> Result<(ContextId, Tokens), Fault> {
        match self.call(conn, Restore { name: name.into() })? {
            Reply::Opened { context, length, .. } => Ok((context, length)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn context_restored_goes_on_as_the_one_that_was_kept_would_have() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "once upon a time");
    machine.generate(conn, context, 10);
    machine.snapshot(conn, context, "story").expect("own context");
    let expected = machine.generate(conn, context, 20).text;
    machine.call(conn, Exit { status: 0 }).expect("it ends");
    let mut next = machine.crashed(KernelConfig::default());
    let conn = next.connect(ADMIN);
    // The call waits for the model.
    let (context, length) = next.restore(conn, "story").expect("own snapshot");
    assert_eq!(length, Tokens(26));
    assert_eq!(next.generate(conn, context, 20).text, expected);
    let (again, _) = next.restore(conn, "story").expect("as often as one likes");
    assert_eq!(next.generate(conn, again, 20).text, expected);
    let Ok(Reply::Snapshots(list)) = next.call(conn, Snapshots {}) else { panic!("they are listed") };
    assert_eq!((list[0].name.as_str(), list[0].model.as_str(), list[0].length), ("story", "m", Tokens(26)));
    next.call(conn, Discard { name: "story".into() }).expect("own snapshot");
    assert_eq!(next.restore(conn, "story").expect_err("gone").errno, Errno::ENOENT);
    assert!(next.records.keys().all(|key| !key.starts_with("snapshot/")));
}

#[test]
fn snapshot_of_a_running_generation_is_what_it_has_so_far_and_one_in_line_waits() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "running");
    let running = machine.begin(conn, generate(context, 30));
    while machine.events(conn, running).len() < 10 {
        assert!(machine.turn());
    }
    let at_once = machine.begin(conn, Snapshot { context, name: "now".into() });
    assert_eq!(machine.reply(conn, at_once), Some(Ok(Reply::Done {})));
    machine.begin(conn, append_bytes(context, " and on"));
    machine.snapshot(conn, context, "later").expect("in line");
    machine.finish(conn, running).expect("it ends");
    let whole = reference("", "running", 30);
    let (now, length) = machine.restore(conn, "now").expect("own");
    assert!((17..20).contains(&length.0), "{length}");
    let rest = machine.generate(conn, now, 30 + 7 - length.0).text;
    assert!(whole.ends_with(&rest) && !rest.is_empty(), "{rest}");
    assert_eq!(machine.restore(conn, "later").expect("own").1, Tokens(7 + 30 + 7));
}

#[test]
fn snapshot_on_another_model_is_refused_with_what_to_do() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "tokens of m");
    machine.snapshot(conn, context, "s").expect("own context");
    machine.call(conn, Unmount { name: "m".into(), force: true }).expect("the administrator");
    let fault = machine.restore(conn, "s").expect_err("there is no model");
    assert_eq!(fault.errno, Errno::ENOENT);
    machine.mount(conn, "m", "seed=9").expect("another file");
    let fault = machine.restore(conn, "s").expect_err("another file");
    assert_eq!(fault.errno, Errno::EINVAL);
    assert!(fault.message.contains("mount the file that it was made with"), "{fault}");
    machine.call(conn, mount("same", "")).expect("the file under another name");
    let (context, _) = machine.restore(conn, "s").expect("the same file");
    assert_eq!(machine.generate(conn, context, 10).text, reference("", "tokens of m", 10));
}

#[test]
fn store_that_is_begun_anew_gets_all_that_it_had() {
    let mut machine = Machine::default();
    machine.file = Some(1);
    let conn = machine.connect(ADMIN);
    machine.mount(conn, "m", "").expect("the script mounts");
    let context = machine.open_with(conn, "precious");
    machine.snapshot(conn, context, "s").expect("own context");
    let share = Share { context, name: "p".into(), length: None, mode: 0o644 };
    machine.call(conn, share).expect("own context");
    machine.begin(conn, mount("not yet", ""));
    let had = std::mem::take(&mut machine.records);
    machine.event(Event::StoreEmptied);
    assert_eq!((machine.records.len(), &machine.records), (4, &had));
}

#[test]
fn snapshot_damaged_is_found_out() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "precious");
    machine.snapshot(conn, context, "s").expect("own context");
    for record in machine.records.values_mut() {
        if let Record::Snapshot(snapshot) = record {
            snapshot.tokens[3].0 ^= 1;
        }
    }
    let mut next = machine.crashed(KernelConfig::default());
    let conn = next.connect(ADMIN);
    let fault = next.restore(conn, "s").expect_err("damaged");
    assert_eq!(fault.errno, Errno::EIO);
    assert!(fault.message.contains("damaged"), "{fault}");
}

#[test]
fn snapshots_are_each_users_own_and_bounded() {
    let (mut machine, _) = Machine::with_model("");
    let (one, two) = (machine.connect(7), machine.connect(8));
    let empty = machine.open(one);
    assert_eq!(machine.snapshot(one, empty, "s").expect_err("nothing there").errno, Errno::EINVAL);
    let context = machine.open_with(one, "mine");
    assert_eq!(machine.snapshot(one, context, "").expect_err("no name").errno, Errno::EINVAL);
    machine.snapshot(one, context, "s").expect("own context");
    assert_eq!(machine.restore(two, "s").expect_err("another user's").errno, Errno::ENOENT);
    for n in 1..SNAPSHOTS_PER_USER_MAX {
        machine.snapshot(one, context, &format!("s{n}")).expect("there is room");
    }
    assert_eq!(machine.snapshot(one, context, "more").expect_err("full").errno, Errno::EMFILE);
    machine.snapshot(one, context, "s").expect("in the place of itself");
    let theirs = machine.open_with(two, "theirs");
    machine.snapshot(two, theirs, "s").expect("his own name");
    let (restored, _) = machine.restore(one, "s").expect("his own");
    assert_eq!(machine.generate(one, restored, 5).text, reference("", "mine", 5));
    assert!(generated(machine.call(one, generate(restored, 1))).tokens.len() == 1);
}

#[test]
fn snapshot_that_the_disk_does_not_take_is_refused_and_the_one_before_stays() {
    let (mut machine, conn) = Machine::with_model("");
    let other = machine.connect(ADMIN);
    let context = machine.open_with(conn, "once");
    machine.snapshot(conn, context, "s").expect("there is room");
    machine.append(conn, context, " upon a time").expect("there is room");
    machine.cannot_keep = Some(Errno::ENOSPC);
    // In line, past a generation, and of another process.
    for (caller, name) in [(conn, "s"), (conn, "new"), (other, "s"), (other, "new")] {
        assert_eq!(machine.snapshot(caller, context, name).expect_err("full").errno, Errno::ENOSPC);
    }
    let running = machine.begin(conn, generate(context, 5));
    assert_eq!(machine.snapshot(conn, context, "new").expect_err("full").errno, Errno::ENOSPC);
    machine.finish(conn, running).expect("it goes on");
    assert_eq!(machine.restore(conn, "s").expect("the first").1, Tokens(4));
    assert_eq!(machine.restore(conn, "new").expect_err("never kept").errno, Errno::ENOENT);
    machine.cannot_keep = None;
    machine.snapshot(conn, context, "s").expect("there is room again");
    assert_eq!(machine.restore(conn, "s").expect("the last").1, Tokens(4 + 12 + 5));
}

#[test]
fn context_of_another_process_is_kept_as_it_is_and_for_its_user_alone() {
    let (mut machine, root) = Machine::with_model("");
    let (one, same, other) = (machine.connect(7), machine.connect(7), machine.connect(8));
    let context = machine.open_with(one, "running");
    let running = machine.begin(one, generate(context, 30));
    while machine.events(one, running).len() < 10 {
        assert!(machine.turn());
    }
    // At once, though a generation and an append are in line.
    machine.begin(one, append_bytes(context, " and on"));
    let at_once = machine.begin(same, Snapshot { context, name: "now".into() });
    assert_eq!(machine.reply(same, at_once), Some(Ok(Reply::Done {})));
    let by_root = machine.begin(root, Snapshot { context, name: "by root".into() });
    assert_eq!(machine.reply(root, by_root), Some(Ok(Reply::Done {})));
    let fault = machine.snapshot(other, context, "stolen").expect_err("another user's");
    assert_eq!(fault.errno, Errno::EBADF, "that it exists is not told");
    machine.finish(one, running).expect("it goes on undisturbed");
    let (restored, length) = machine.restore(same, "now").expect("its user's");
    let rest = machine.generate(same, restored, 30 + 7 - length.0).text;
    assert!(reference("", "running", 30).ends_with(&rest) && !rest.is_empty(), "{rest}");
    machine.restore(one, "by root").expect("it belongs to the user of the process");
    assert_eq!(machine.restore(root, "by root").expect_err("not to root").errno, Errno::ENOENT);
}

#[test]
fn context_that_has_killed_two_workers_is_still_known_to_when_it_is_restored() {
    let (mut machine, conn) = Machine::with_model("die_on_text=zzz");
    let context = machine.open_with(conn, "sleep zzz");
    machine.call(conn, generate(context, 5)).expect_err("it kills");
    assert_eq!(machine.stat(conn).worker_restarts, 2);
    machine.snapshot(conn, context, "poison").expect("own context");
    let (restored, length) = machine.restore(conn, "poison").expect("own snapshot");
    let fault = machine.call(conn, generate(restored, 5)).expect_err("it is known to kill");
    assert!(fault.errno == Errno::EIO && fault.message.contains("died twice"), "{fault}");
    assert_eq!(machine.stat(conn).worker_restarts, 2, "and does not get another chance");
    machine.call(conn, Truncate { context: restored, length: Tokens(5) }).expect("shorter");
    assert_eq!(machine.generate(conn, restored, 5).text, reference("", "sleep", 5));
    assert_eq!(length, Tokens(9));
    // The record says so as well.
    let mut next = machine.crashed(KernelConfig::default());
    let conn = next.connect(ADMIN);
    let (restored, _) = next.restore(conn, "poison").expect("own snapshot");
    assert_eq!(next.call(conn, generate(restored, 5)).expect_err("it is known").errno, Errno::EIO);
    assert_eq!(next.stat(conn).worker_restarts, 0);
}

#[test]
fn context_that_is_suspected_runs_alone_when_it_is_restored() {
    let (mut machine, conn) = Machine::with_model("die_on_text=zzz");
    let other = machine.connect(ADMIN);
    let innocent = machine.open_with(conn, "innocent");
    let poison = machine.open_with(conn, "sleep zzz");
    let running = machine.begin(conn, generate(innocent, 200));
    let killing = machine.begin(conn, generate(poison, 5));
    while machine.stat(conn).worker_restarts == 0 {
        assert!(machine.turn());
    }
    let at_once = machine.begin(other, Snapshot { context: poison, name: "suspect".into() });
    assert_eq!(machine.reply(other, at_once), Some(Ok(Reply::Done {})));
    assert_eq!(machine.finish(conn, killing).expect_err("it kills").errno, Errno::EIO);
    assert_eq!(machine.stat(conn).worker_restarts, 2);
    let (restored, _) = machine.restore(other, "suspect").expect("own snapshot");
    assert_eq!(machine.call(other, generate(restored, 5)).expect_err("it kills").errno, Errno::EIO);
    assert_eq!(machine.stat(conn).worker_restarts, 3, "no other one was in the step");
    assert_eq!(generated(machine.finish(conn, running)).text, reference("", "innocent", 200));
}

#[test]
fn snapshot_of_an_earlier_daemon_is_of_a_context_that_nothing_is_known_of() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "before");
    machine.snapshot(conn, context, "s").expect("own context");
    let record = machine.records.values().find(|r| matches!(r, Record::Snapshot(_))).expect("it is kept");
    let written = serde_json::to_value(record).expect("it has a form");
    assert!(!written.to_string().contains("condemned") && !written.to_string().contains("suspected"));
    let read: Record = serde_json::from_value(written).expect("as it was before there were these");
    assert_eq!(&read, record);
}
