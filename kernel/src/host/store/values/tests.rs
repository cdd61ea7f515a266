use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use syscalls::call::StoreGet;

use super::super::healing::Access;
use super::super::sled;
use super::*;

fn put(key: &str, value: Value) -> StoreOrder {
    StoreOrder::Put(StorePut { store: "s".into(), key: key.into(), value })
}

fn get(key: &str) -> StoreOrder {
    StoreOrder::Get(StoreGet { store: "s".into(), key: key.into() })
}

/// Values, with a channel on which each order is answered.
struct Bench {
    values: ValuesThread,
    answers: channel::Receiver<Result<Reply, Fault>>,
}

impl Bench {
    fn sled(folder: &Path) -> Bench {
        let (done, answers) = channel::unbounded();
        let values = ValuesThread::start(folder, Quota::default(), move |_, result| {
            done.send(result).expect("somebody listens");
        });
        Bench { values, answers }
    }

    fn call(&self, order: StoreOrder) -> Result<Reply, Fault> {
        self.values.order(1, 7, order).expect("it runs");
        self.answers.recv().expect("it answers")
    }
}

#[test]
fn quota_used_up_is_refused_with_its_name_and_freed_by_deleting() {
    let quota = Quota { values: 2, bytes: 100 };
    let mut values = Values::open(BTreeMap::new(), quota).expect("empty");
    let mut call = |uid, order| values.carry_out(uid, &order).expect("memory does not fail");
    call(7, put("a", json!("x"))).expect("room");
    call(7, put("b", json!("x".repeat(50)))).expect("room");
    let fault = call(7, put("c", json!(1))).expect_err("a third");
    assert_eq!(fault.errno, Errno::EDQUOT);
    assert!(fault.message.contains("3 values; the limit is 2"), "{fault}");
    let fault = call(7, put("a", json!("x".repeat(50)))).expect_err("too many bytes");
    assert!(
        fault.message.contains("the limit is 100") && fault.message.contains("store_bytes_max"),
        "{fault}"
    );
    call(8, put("a", json!("x".repeat(50)))).expect("another user has his own");
    call(7, put("b", json!("y"))).expect("less is always allowed");
    call(7, put("a", json!("x".repeat(50)))).expect("there is room now");
}

#[test]
fn quota_counts_what_was_there_before_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("values");
    Bench::sled(&path).call(put("a", json!("x"))).expect("room");
    let values =
        Values::open(sled::open_or_set_aside(&path).expect("opens"), Quota::default()).expect("reads");
    assert_eq!(values.used[&7], Used { values: 1, bytes: size("7/s\0a", b"\"x\"") });
}

#[test]
fn values_of_version_1_are_read() {
    // As that daemon has them: JSON, under user, store and key.
    let store = BTreeMap::from([("7/s\0a".to_owned(), br#"{"n":[1,null]}"#.to_vec())]);
    let mut values = Values::open(store, Quota::default()).expect("memory does not fail");
    let read = values.carry_out(7, &get("a")).expect("memory does not fail");
    assert_eq!(read, Ok(Reply::Value(Some(json!({"n": [1, null]})))));
}

/// A store whose disk is full while a flag says so, and which, as sled, refuses everything from then on.
struct Full {
    inner: sled_like::Shared,
    full: Arc<AtomicBool>,
    broken: bool,
}

mod sled_like {
    use super::*;
    use std::sync::Mutex;

    /// What outlives a store that is closed.
    pub type Shared = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

    impl Full {
        fn write(&mut self, write: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Result<(), StoreError> {
            self.broken |= self.full.load(Ordering::SeqCst);
            if self.broken {
                return Err(StoreError::System(io::ErrorKind::StorageFull.into()));
            }
            write(&mut self.inner.lock().expect("no panic"));
            Ok(())
        }
    }

    impl Store for Full {
        fn put(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
            assert_ne!(value, b"\"panic\"", "damage that is found late");
            self.write(|map| drop(map.insert(key.into(), value.into())))
        }

        fn delete(&mut self, key: &str) -> Result<(), StoreError> {
            self.write(|map| drop(map.remove(key)))
        }

        fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(self.inner.lock().expect("no panic").get(key).cloned())
        }

        fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str, &[u8])) -> Result<(), StoreError> {
            self.inner.lock().expect("no panic").walk(prefix, each)
        }

        fn flush(&mut self) -> Result<(), StoreError> {
            self.write(|_| {})
        }
    }
}

#[test]
fn disk_full_costs_the_writes_and_heals_without_a_restart() {
    let full = Arc::new(AtomicBool::new(false));
    let inner = sled_like::Shared::default();
    let flag = Arc::clone(&full);
    let open = move || {
        let store = Full { inner: Arc::clone(&inner), full: Arc::clone(&flag), broken: false };
        Ok((Values::open(store, Quota::default())?, Access::Full))
    };
    let (done, answers) = channel::unbounded();
    let values =
        ValuesThread::run(Healing::new("values", open), move |_, r| done.send(r).expect("somebody listens"));
    let bench = Bench { values, answers };
    bench.call(put("a", json!(1))).expect("room");
    full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let fault = bench.call(put("a", json!(2))).expect_err("full");
        assert_eq!(fault.errno, Errno::ENOSPC);
        assert!(fault.message.contains("make room"), "{fault}");
        assert_eq!(bench.call(get("a")), Ok(Reply::Value(Some(json!(1)))), "what was acknowledged is there");
    }
    full.store(false, Ordering::SeqCst);
    bench.call(put("a", json!(3))).expect("there is room again");
    let fault = bench.call(put("b", json!("panic"))).expect_err("it panics inside");
    assert_eq!(fault.errno, Errno::EIO);
    assert_eq!(bench.call(get("a")), Ok(Reply::Value(Some(json!(3)))), "and the thread goes on");
}
