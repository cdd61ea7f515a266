//! Values that programs keep: whose they are, in which order they change, and what is refused.

use kernel::core::event::ConnId;
use kernel::core::{Event, KernelConfig};
use serde_json::{Value, json};
use syscalls::call::*;
use syscalls::limits::{STORE_ORDERS_MAX, STORE_ORDERS_PER_USER_MAX, STORE_VALUE_BYTES_MAX, VALUE_DEPTH_MAX};
use syscalls::{Call, Errno, Reply};

use crate::machine::{ADMIN, Job, Machine};

fn put(key: &str, value: Value) -> StorePut {
    StorePut { store: "notes".into(), key: key.into(), value }
}

fn get(key: &str) -> StoreGet {
    StoreGet { store: "notes".into(), key: key.into() }
}

fn list(prefix: &str) -> StoreList {
    StoreList { store: "notes".into(), prefix: prefix.into() }
}

fn keys(machine: &mut Machine, conn: ConnId, prefix: &str) -> Vec<String> {
    match machine.call(conn, list(prefix)) {
        Ok(Reply::Keys(keys)) => keys,
        other => panic!("{other:?}"),
    }
}

#[test]
fn value_put_is_there_for_its_user_in_its_store_until_it_is_deleted() {
    let mut machine = Machine::default();
    let (one, other, same) = (machine.connect(7), machine.connect(8), machine.connect(7));
    assert_eq!(machine.call(one, put("a", json!({"x": [1, "two"]}))), Ok(Reply::Done {}));
    machine.call(one, put("ab", json!(2))).expect("room");
    machine.call(one, put("b", json!(3))).expect("room");
    machine.call(one, put("b", json!(4))).expect("it is replaced");
    assert_eq!(machine.call(same, get("a")), Ok(Reply::Value(Some(json!({"x": [1, "two"]})))));
    assert_eq!(machine.call(same, get("b")), Ok(Reply::Value(Some(json!(4)))));
    assert_eq!(keys(&mut machine, same, ""), ["a", "ab", "b"]);
    assert_eq!(keys(&mut machine, same, "a"), ["a", "ab"]);
    let elsewhere = StoreGet { store: "note".into(), key: "a".into() };
    assert_eq!(machine.call(one, elsewhere), Ok(Reply::Value(None)), "another store");
    for stranger in [other, machine.connect(ADMIN)] {
        assert_eq!(machine.call(stranger, get("a")), Ok(Reply::Value(None)));
        assert_eq!(keys(&mut machine, stranger, ""), [""; 0]);
    }
    let delete = StoreDelete { store: "notes".into(), key: "a".into() };
    assert_eq!(machine.call(one, delete.clone()), Ok(Reply::Done {}));
    assert_eq!(machine.call(one, delete), Ok(Reply::Done {}), "a key without a value is no error");
    assert_eq!(machine.call(one, get("a")), Ok(Reply::Value(None)));
}

#[test]
fn value_nested_as_deep_as_may_be_outlives_the_daemon_as_a_reply_and_a_deeper_one_is_refused() {
    let nested = |depth: usize| (0..depth).fold(json!(1), |value, _| json!([value]));
    let mut machine = Machine::default();
    let conn = machine.connect_lasting(7, Lifetime::Persistent);
    let pid = machine.pid(conn);
    let (deepest, too_deep) = (nested(VALUE_DEPTH_MAX), nested(VALUE_DEPTH_MAX + 1));
    machine.call(conn, put("a", deepest.clone())).expect("as deep as may be");
    let calls: [Call; 2] = [put("b", too_deep.clone()).into(), Send { pid, data: too_deep }.into()];
    for call in calls {
        let fault = machine.call(conn, call).expect_err("nobody could read it inside of something else");
        assert_eq!(fault.errno, Errno::E2BIG);
        assert!(fault.message.contains("101 arrays and objects"), "{fault}");
    }
    machine.begin(conn, get("a"));
    machine.event(Event::Disconnected { conn });
    machine.run();
    let mut next = machine.crashed(KernelConfig::default());
    let conn = next.connect(7);
    let Ok(Reply::Attached(attached)) = next.call(conn, Attach { pid, force: false }) else {
        panic!("it outlives the daemon")
    };
    let follow = Follow { call: attached.calls[0].ticket, replay: true };
    assert_eq!(next.call_as(conn, Some(pid), follow), Ok(Reply::Value(Some(deepest))));
}

#[test]
fn search_finds_values_by_their_words_best_first() {
    let mut machine = Machine::default();
    let conn = machine.connect(7);
    for (key, text) in [("cat", "a cat"), ("cats", "a dog, and a cat among dogs"), ("dog", "a dog")] {
        machine.call(conn, put(key, json!({ "text": text }))).expect("room");
    }
    let search = |text: &str, count| StoreSearch { store: "notes".into(), text: text.into(), count };
    let Ok(Reply::Found(found)) = machine.call(conn, search("Cat!", 10)) else { panic!("found") };
    assert_eq!(found.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["cat", "cats"]);
    assert!(found[0].1 > found[1].1 && found[1].1 > 0.0, "{found:?}");
    assert!(matches!(machine.call(conn, search("cat", 1)), Ok(Reply::Found(found)) if found.len() == 1));
    assert_eq!(machine.call(conn, search("cat", 0)).expect_err("no results").errno, Errno::EINVAL);
}

#[test]
fn calls_about_stores_are_carried_out_in_their_order_and_answered_when_the_host_has() {
    let mut machine = Machine::default();
    let conn = machine.connect(7);
    let first = machine.begin(conn, put("a", json!(1)));
    let read = machine.begin(conn, get("a"));
    let second = machine.begin(conn, put("a", json!(2)));
    assert_eq!(machine.reply(conn, first), None, "not before it is durable");
    let state = machine.ps(conn).into_iter().find(|p| p.uid == 7).expect("it lives");
    assert_eq!(state.waits_for.as_deref(), Some("the store"));
    assert_eq!(machine.finish(conn, second), Ok(Reply::Done {}));
    assert_eq!(machine.reply(conn, read), Some(Ok(Reply::Value(Some(json!(1))))));
    assert_eq!(machine.call(conn, get("a")), Ok(Reply::Value(Some(json!(2)))));
}

#[test]
fn process_that_ends_while_the_store_works_leaves_nothing_behind() {
    let mut machine = Machine::default();
    let conn = machine.connect(7);
    machine.begin(conn, put("a", json!(1)));
    machine.event(kernel::core::Event::Disconnected { conn });
    assert!(matches!(machine.jobs.front(), Some(Job::Store(..))));
    machine.run();
    let conn = machine.connect(7);
    assert_eq!(machine.call(conn, get("a")), Ok(Reply::Value(Some(json!(1)))));
}

#[test]
fn store_misused_is_refused_with_the_limit_and_the_value() {
    let mut machine = Machine::default();
    let conn = machine.connect(7);
    let large = "x".repeat(STORE_VALUE_BYTES_MAX);
    let fault = machine.call(conn, put("a", json!(large))).expect_err("too large");
    assert_eq!(fault.errno, Errno::E2BIG);
    assert!(fault.message.contains("1048578 bytes") && fault.message.contains("1048576"), "{fault}");
    let zero = StoreGet { store: "notes\0".into(), key: "a".into() };
    assert_eq!(machine.call(conn, zero).expect_err("ends a name").errno, Errno::EINVAL);
    assert_eq!(machine.call(conn, put("", json!(1))).expect_err("no key").errno, Errno::EINVAL);
    let admin = machine.connect(ADMIN);
    let waiting: Vec<_> = (0..STORE_ORDERS_MAX).map(|_| machine.begin(admin, get("a"))).collect();
    let fault = machine.call(admin, get("a")).expect_err("one too many");
    assert_eq!(fault.errno, Errno::EAGAIN);
    for call in waiting {
        assert_eq!(machine.finish(admin, call), Ok(Reply::Value(None)));
    }
    assert_eq!(machine.call(admin, get("a")), Ok(Reply::Value(None)), "there is room again");
}

#[test]
fn store_calls_of_a_user_are_bounded_and_leave_room_for_those_of_others() {
    let mut machine = Machine::default();
    let (conn, again, other) = (machine.connect(7), machine.connect(7), machine.connect(8));
    let waiting: Vec<_> = (0..STORE_ORDERS_PER_USER_MAX).map(|_| machine.begin(conn, get("a"))).collect();
    let fault = machine.call(again, get("a")).expect_err("one too many");
    assert_eq!(fault.errno, Errno::EAGAIN);
    assert!(fault.message.contains("user 7 has 64 calls that wait for the store"), "{fault}");
    let theirs = machine.begin(other, get("a"));
    assert_eq!(machine.reply(other, theirs), None, "it waits for the disk and is not refused");
    for call in waiting {
        assert_eq!(machine.finish(conn, call), Ok(Reply::Value(None)));
    }
    assert_eq!(machine.call(again, get("a")), Ok(Reply::Value(None)), "there is room again");
}
