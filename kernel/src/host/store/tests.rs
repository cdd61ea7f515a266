use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

fn mount(name: &str) -> Record {
    Record::Mount(syscalls::client::mount("/m.gguf", name))
}

fn make(store: &StoreThread, change: Change) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(store.make(change)).expect("the disk is there");
}

/// A folder that holds a store with two records.
fn filled() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    let (store, records) = StoreThread::open(&path).expect("opens");
    assert!(records.is_empty());
    make(&store, Change::Persist(mount("a")));
    make(&store, Change::Persist(mount("b")));
    (folder, path)
}

#[test]
fn records_persisted_are_there_after_a_restart_and_forgotten_ones_are_not() {
    let (_folder, path) = filled();
    let (store, records) = StoreThread::open(&path).expect("opens");
    assert_eq!(records, [mount("a"), mount("b")]);
    make(&store, Change::Forget(mount("a").key()));
    drop(store);
    assert_eq!(StoreThread::open(&path).expect("opens").1, [mount("b")]);
}

/// Damages files of the store, and expects that they are kept and that a new store works.
fn set_aside_after(files: &[&str], damage: impl Fn(&mut Vec<u8>)) {
    let (folder, path) = filled();
    for n in 1..=2 {
        for file in files {
            let mut bytes = fs::read(path.join(file)).expect("the store is on disk");
            damage(&mut bytes);
            fs::write(path.join(file), bytes).expect("writes");
        }
        let (store, records) = StoreThread::open(&path).expect("is never fatal");
        assert!(records.is_empty());
        assert!(folder.path().join(format!("store.damaged-{n}")).exists(), "the damaged one is kept");
        make(&store, Change::Persist(mount("c")));
        drop(store);
        assert_eq!(StoreThread::open(&path).expect("opens").1, [mount("c")]);
    }
}

#[test]
fn database_damaged_is_set_aside_and_a_new_one_begun() {
    set_aside_after(&["db", "conf"], |bytes| bytes.fill(0xa5));
    set_aside_after(&["conf"], |bytes| bytes.fill(0xa5));
}

#[test]
fn database_emptied_is_damaged_although_it_opens() {
    set_aside_after(&["db"], |bytes| bytes.fill(0xa5));
    set_aside_after(&["db"], |bytes| bytes.fill(0));
    set_aside_after(&["db"], Vec::clear);
}

#[test]
fn snapshot_half_written_does_not_keep_the_database_shut() {
    let (folder, path) = filled();
    fs::write(path.join("snap.0000000000000400.generating"), b"half").expect("writes");
    let (_store, records) = StoreThread::open(&path).expect("opens");
    assert_eq!(records, [mount("a"), mount("b")]);
    assert!(!folder.path().join("store.damaged-1").exists(), "nothing was damaged");
}

#[test]
fn record_of_an_unknown_form_is_put_in_quarantine() {
    let (_folder, path) = filled();
    let mut raw = sled::open_or_set_aside(&path).expect("opens");
    raw.put("mount/a", b"{\"Mount\":7}").expect("writes");
    raw.flush().expect("writes");
    drop(raw);
    assert_eq!(StoreThread::open(&path).expect("opens").1, [mount("b")]);
    let raw = sled::open_or_set_aside(&path).expect("opens");
    let keys: Vec<String> = raw.scan().expect("reads").into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["mount/b", "quarantine/mount/a"]);
}

#[test]
fn folder_that_cannot_be_made_is_the_systems_error_and_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "precious").expect("writes");
    assert!(StoreThread::open(&file.join("store")).is_err());
    assert_eq!(fs::read_to_string(&file).expect("reads"), "precious");
}

#[test]
fn database_in_use_is_waited_for_and_then_opened() {
    let (_folder, path) = filled();
    let holder = sled::open_or_set_aside(&path).expect("opens");
    let opening = std::thread::spawn(move || StoreThread::open(&path).map(|(_, records)| records.len()));
    drop(holder);
    assert_eq!(opening.join().expect("runs").expect("opens"), 2);
}

#[test]
fn database_of_a_newer_version_is_kept_and_another_one_begun() {
    let (folder, path) = filled();
    assert_eq!(fs::read_to_string(path.join("version")).expect("it says so"), super::sled::version_line(1));
    for aside in ["store.version-2", "store.version-2.damaged-1"] {
        fs::write(path.join("version"), super::sled::version_line(2)).expect("writes");
        let (store, records) = StoreThread::open(&path).expect("is never fatal");
        assert!(records.is_empty() && folder.path().join(aside).join("begun").exists(), "{aside}");
        drop(store);
    }
    let aside = folder.path().join("store.version-2");
    fs::write(aside.join("version"), super::sled::version_line(1)).expect("writes");
    assert_eq!(StoreThread::open(&aside).expect("opens").1, [mount("a"), mount("b")], "nothing is lost");
}

#[test]
fn database_without_a_version_or_with_a_damaged_one_is_one_of_the_first() {
    let (_folder, path) = filled();
    for said in [&b""[..], b"2\n", b"\xb1 c2e3\n", b"9 00000000\n"] {
        fs::write(path.join("version"), said).expect("writes");
        assert_eq!(StoreThread::open(&path).expect("opens").1, [mount("a"), mount("b")], "{said:?}");
    }
    fs::remove_file(path.join("version")).expect("it is there");
    assert_eq!(StoreThread::open(&path).expect("opens").1, [mount("a"), mount("b")]);
}

/// Records as a daemon of version 1 wrote them, one a line under its key: they are read by every later one.
const RECORDS_1: &str = include_str!("fixtures/records-1.txt");

#[test]
fn records_of_version_1_are_read() {
    let mut store = BTreeMap::new();
    for line in RECORDS_1.lines() {
        let (key, value) = line.split_once(' ').expect("a key and a value");
        store.insert(key.to_owned(), value.as_bytes().to_vec());
    }
    let found = records(&mut store).expect("memory does not fail");
    let keys: Vec<String> = found.iter().map(Record::key).collect();
    assert_eq!(keys, ["mount/m", "segment/p", "snapshot/7/s"]);
    assert!(store.keys().all(|key| !key.starts_with(QUARANTINE)));
}

#[test]
fn database_with_the_segments_of_an_earlier_daemon_is_opened_with_them_and_kept() {
    let (folder, path) = filled();
    let records: Vec<(String, Vec<u8>)> = sled::open_whole(&path).expect("opens").scan().expect("reads");
    fs::remove_dir_all(&path).expect("it is there");
    let before = ::sled::open(&path).expect("sled's own size is what earlier daemons had");
    for (key, value) in records {
        before.insert(key, value).expect("inserts");
    }
    before.flush().expect("flushes");
    drop(before);
    let (store, records) = StoreThread::open(&path).expect("opens");
    assert_eq!(records, [mount("a"), mount("b")]);
    make(&store, Change::Persist(mount("c")));
    drop(store);
    assert_eq!(StoreThread::open(&path).expect("opens").1.len(), 3);
    assert!(!folder.path().join("store.damaged-1").exists());
}

/// A store in memory that is shared with those that are opened later, and that fails after it has put a value.
struct Torn(Arc<Mutex<BTreeMap<String, Vec<u8>>>>, Arc<AtomicBool>);

impl Store for Torn {
    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.0.lock().expect("no panic").put(key, value)
    }

    fn delete(&mut self, key: &str) -> Result<(), StoreError> {
        self.0.lock().expect("no panic").delete(key)
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Store::get(&*self.0.lock().expect("no panic"), key)
    }

    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str, &[u8])) -> Result<(), StoreError> {
        self.0.lock().expect("no panic").walk(prefix, each)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        match self.1.load(Ordering::SeqCst) {
            true => Err(StoreError::System(io::ErrorKind::StorageFull.into())),
            false => Ok(()),
        }
    }
}

#[test]
fn record_that_is_kept_or_refused_leaves_nothing_when_it_is_refused() {
    let (contents, full) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let (inner, flag) = (Arc::clone(&contents), Arc::clone(&full));
    let open = move || Ok((Torn(Arc::clone(&inner), Arc::clone(&flag)), Access::Full));
    let store = StoreThread::run(Healing::new("records", open), watch::channel(0).1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let keep = |record| runtime.block_on(store.keep(record));
    let longer = |name: &str| Record::Mount(syscalls::client::mount("/longer.gguf", name));
    keep(mount("a")).expect("there is room");
    full.store(true, Ordering::SeqCst);
    let error = keep(longer("a")).expect_err("it is not on the disk");
    assert_eq!(refusal(&error).errno, Errno::ENOSPC);
    keep(mount("b")).expect_err("nor is this");
    runtime.block_on(store.make(Change::Persist(mount("c")))).expect_err("nor is this yet");
    full.store(false, Ordering::SeqCst);
    drop(store);
    let found = records(&mut *contents.lock().expect("no panic")).expect("memory does not fail");
    assert_eq!(found, [mount("a"), mount("c")], "what was refused is not there, and what was not refused is");
}

#[test]
fn database_that_is_set_aside_while_it_is_in_use_is_told_of_and_can_be_filled_again() {
    let (folder, path) = filled();
    let (empties, emptied) = watch::channel(0);
    let mut open = opening_again(Opener::new(&path), empties);
    drop(open().expect("opens"));
    assert_eq!(*emptied.borrow(), 0, "it has what it had");
    let bytes = fs::read(path.join("db")).expect("it is on disk").len();
    fs::write(path.join("db"), vec![0xa5; bytes]).expect("writes");
    drop(open().expect("another one is begun"));
    assert!(folder.path().join("store.damaged-1").exists() && *emptied.borrow() == 1);
    let (store, records) = StoreThread::open(&path).expect("opens");
    assert!(records.is_empty());
    store.put_back(vec![mount("a"), mount("b")]);
    make(&store, Change::Forget(mount("b").key()));
    drop(store);
    assert_eq!(StoreThread::open(&path).expect("opens").1, [mount("a")]);
}
