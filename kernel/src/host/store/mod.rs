//! What outlives the daemon: records under their keys, durable when a write is answered.
//!
//! A [`Store`] is a plain ordered map; [`sled`] keeps it on disk. It lives on a thread of its own, so that the
//! disk never stops the main loop from reading; the loop waits where an effect demands that a record is durable
//! before the next one. Nothing here is fatal while the daemon runs: what cannot be written is reported in the
//! log, a database that cannot be read is moved aside and begun anew, and one whose disk is full or read-only is
//! [`frozen`].
//!
//! What changes with every step, the images of processes that outlive the daemon, goes to a [`journal`] beside it: a file
//! that is only appended to, one write a step. sled's flush waits for the disk, which takes longer than many a step.

mod frozen;
mod healing;
pub mod journal;
mod search;
pub mod sled;
pub mod values;
mod witness;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crossbeam::channel;
use syscalls::{Errno, Fault};
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use crate::core::effect::Record;
use frozen::{Opened, Opener};
use healing::{Access, Healing};

/// Orders that may wait for the disk.
const ORDERS_WAITING_MAX: usize = 256;

/// How long after a failure the disk is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// As long as nothing has failed.
const NEVER: Duration = Duration::from_secs(1 << 32);

/// Records that cannot be understood are kept under this prefix, for people to look at.
const QUARANTINE: &str = "quarantine/";

/// Why the store failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// What is on disk is not what was written.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// A newer daemon has written it.
    #[error("the database has version {0}, which this daemon does not know")]
    Newer(u32),
    /// The system refuses.
    #[error("{0}")]
    System(io::Error),
}

/// An ordered map of keys to values.
pub trait Store: Send {
    /// Sets a value.
    ///
    /// # Errors
    ///
    /// The disk is full or broken; the value may or may not be set.
    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError>;

    /// Removes a value. A key without one is no error.
    ///
    /// # Errors
    ///
    /// As [`Store::put`].
    fn delete(&mut self, key: &str) -> Result<(), StoreError>;

    /// One value.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Shows the values whose keys begin so, in the order of their keys.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str, &[u8])) -> Result<(), StoreError>;

    /// All values, in the order of their keys.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    fn scan(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut all = Vec::new();
        self.walk("", &mut |key, value| all.push((key.to_owned(), value.to_vec())))?;
        Ok(all)
    }

    /// Returns when all that was put and deleted is durable.
    ///
    /// # Errors
    ///
    /// As [`Store::put`].
    fn flush(&mut self) -> Result<(), StoreError>;
}

/// A store in memory, which outlives nothing: for simulations and tests.
impl Store for BTreeMap<String, Vec<u8>> {
    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.insert(key.into(), value.into());
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), StoreError> {
        self.remove(key);
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str, &[u8])) -> Result<(), StoreError> {
        let within = self.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        within.for_each(|(key, value)| each(key, value));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// One change to the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Sets the record of its own key.
    Persist(Record),
    /// Removes the record of a key.
    Forget(String),
}

impl Change {
    fn key(&self) -> String {
        match self {
            Change::Persist(record) => record.key(),
            Change::Forget(key) => key.clone(),
        }
    }
}

/// What becomes of a change that cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Otherwise {
    /// The kernel goes by it all the same, and it is written when the disk lets it be.
    Later,
    /// What the key had stays.
    Never,
}

/// What the thread is to do.
enum Order {
    /// Make a change, and tell that it is durable.
    Make(Box<Change>, Otherwise, oneshot::Sender<Result<(), StoreError>>),
    /// Write these records, now or when the disk lets them be.
    PutBack(Vec<Record>),
}

/// A store at work on its thread, which ends when this is dropped.
#[derive(Debug)]
pub struct StoreThread {
    orders: Option<channel::Sender<Order>>,
    thread: Option<thread::JoinHandle<()>>,
    /// How often the database was begun anew since this was opened.
    emptied: watch::Receiver<u64>,
}

impl StoreThread {
    /// Opens the store in a folder, and gives the records that it holds.
    ///
    /// # Errors
    ///
    /// The system does not let the folder be used.
    pub fn open(folder: &Path) -> Result<(StoreThread, Vec<Record>), StoreError> {
        let mut opener = Opener::new(folder);
        let mut store = opener.open()?;
        let records = records(&mut store)?;
        let store = with_access(store);
        let (empties, emptied) = watch::channel(0);
        let store = Healing::opened("records", store, opening_again(opener, empties));
        Ok((StoreThread::run(store, emptied), records))
    }

    /// Takes a store that is open.
    fn run(mut store: Healing<impl Store + 'static>, emptied: watch::Receiver<u64>) -> StoreThread {
        let (orders, waiting) = channel::bounded::<Order>(ORDERS_WAITING_MAX);
        let mut unwritten = Unwritten::default();
        let work = move || loop {
            match waiting.recv_timeout(if unwritten.0.is_empty() { NEVER } else { RETRY_PAUSE }) {
                Ok(Order::Make(change, otherwise, done)) => {
                    unwritten.write(&mut store);
                    let made = match otherwise {
                        Otherwise::Later => unwritten.make(&mut store, *change),
                        Otherwise::Never => unwritten.try_to_make(&mut store, *change),
                    };
                    // The main loop may have gone; the change counts all the same.
                    let _ = done.send(made);
                }
                Ok(Order::PutBack(records)) => {
                    let changes = records.into_iter().map(Change::Persist);
                    unwritten.0.extend(changes.map(|change| (change.key(), change)));
                    unwritten.write(&mut store);
                }
                Err(channel::RecvTimeoutError::Timeout) => unwritten.write(&mut store),
                Err(channel::RecvTimeoutError::Disconnected) => return unwritten.write(&mut store),
            }
        };
        let thread = thread::Builder::new().name("store".into()).spawn(work);
        StoreThread {
            orders: Some(orders),
            thread: Some(thread.expect("the system has room for one thread")),
            emptied,
        }
    }

    /// Makes a change, and returns when it is durable.
    ///
    /// # Errors
    ///
    /// The disk is full or broken; the change is made when it can be, and lost if the daemon ends before.
    pub async fn make(&self, change: Change) -> Result<(), StoreError> {
        self.order(change, Otherwise::Later).await
    }

    /// Sets a record, and returns when it is durable.
    ///
    /// # Errors
    ///
    /// The disk is full or broken; what was there before stays.
    pub async fn keep(&self, record: Record) -> Result<(), StoreError> {
        self.order(Change::Persist(record), Otherwise::Never).await
    }

    async fn order(&self, change: Change, otherwise: Otherwise) -> Result<(), StoreError> {
        let ended = || StoreError::System(io::Error::other("the thread of the store has ended"));
        let (done, answer) = oneshot::channel();
        let orders = self.orders.as_ref().ok_or_else(ended)?;
        orders.send(Order::Make(Box::new(change), otherwise, done)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Waits until the database is begun anew, since the one that was open cannot be used: it lacks every record that was
    /// made durable before.
    pub async fn emptied(&mut self) {
        // Who tells it ends with this, and not before.
        if self.emptied.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Has records written that the database lacks. Nobody waits for it.
    pub fn put_back(&self, records: Vec<Record>) {
        if let Some(orders) = &self.orders {
            // The thread is gone only when the daemon ends.
            let _ = orders.send(Order::PutBack(records));
        }
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported when it happened.
            let _ = thread.join();
        }
    }
}

/// Changes that could not be written, by their keys: the kernel goes by them, so they are written when the disk lets
/// them. There are not many more than records.
#[derive(Debug, Default)]
struct Unwritten(BTreeMap<String, Change>);

impl Unwritten {
    fn write(&mut self, store: &mut Healing<impl Store>) {
        self.0.retain(|_, change| store.change(|store| apply(store, change)).is_err());
    }

    /// Makes a change, now or later.
    fn make(&mut self, store: &mut Healing<impl Store>, change: Change) -> Result<(), StoreError> {
        let made = store.change(|store| apply(store, &change));
        match made {
            Ok(()) => self.0.remove(&change.key()),
            Err(_) => self.0.insert(change.key(), change),
        };
        made
    }

    /// Makes a change now, or leaves what its key has. Where it failed in the middle, that is written again.
    fn try_to_make(&mut self, store: &mut Healing<impl Store>, change: Change) -> Result<(), StoreError> {
        let key = change.key();
        let before = match self.0.get(&key) {
            Some(unwritten) => unwritten.clone(),
            None => store.read(|store| present(&*store, &key))?,
        };
        let made = store.change(|store| apply(store, &change));
        if made.is_ok() {
            self.0.remove(&key);
        } else if store.read(|store| present(&*store, &key)).ok().as_ref() != Some(&before) {
            self.0.insert(key, before);
        }
        made
    }
}

/// The change that leads to what a key has.
fn present(store: &impl Store, key: &str) -> Result<Change, StoreError> {
    let record = store.get(key)?.and_then(|value| serde_json::from_slice(&value).ok());
    Ok(record.map_or_else(|| Change::Forget(key.to_owned()), Change::Persist))
}

fn apply(store: &mut impl Store, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::Persist(record) => {
            let value = serde_json::to_vec(record).map_err(|e| StoreError::System(e.into()))?;
            store.put(&record.key(), &value)?;
        }
        Change::Forget(key) => store.delete(key)?,
    }
    store.flush()
}

/// Opens a database again, and tells when it was begun anew.
fn opening_again(
    mut opener: Opener,
    empties: watch::Sender<u64>,
) -> impl FnMut() -> Result<(Opened, Access), StoreError> + Send + 'static {
    move || {
        let store = opener.open()?;
        if store.is_new() {
            empties.send_modify(|times| *times += 1);
        }
        Ok(with_access(store))
    }
}

/// What may be done with a store that was opened.
fn with_access(store: Opened) -> (Opened, Access) {
    let access = if store.is_whole() { Access::Full } else { Access::ReadOnly };
    (store, access)
}

/// What a program is told where the disk fails.
pub(super) fn refusal(error: &StoreError) -> Fault {
    let (errno, advice) = match error {
        StoreError::System(e) => match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                (Errno::ENOSPC, "make room on the disk")
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                (Errno::EROFS, "make the data folder writable")
            }
            _ => (Errno::EIO, "see the daemon's log"),
        },
        StoreError::Damaged(_) | StoreError::Newer(_) => (Errno::EIO, "see the daemon's log"),
    };
    Fault::new(errno, format!("the store cannot be used: {error}; {advice}, and try again"))
}

/// Whether an error says that a disk can be read and not written.
pub(super) fn refuses_writes(error: &io::Error) -> bool {
    use io::ErrorKind::{
        FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull, WriteZero,
    };
    matches!(
        error.kind(),
        FileTooLarge | PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull | WriteZero
    )
}

/// Reads all records. Those of an unknown form are put under the quarantine's prefix.
fn records(store: &mut impl Store) -> Result<Vec<Record>, StoreError> {
    let mut records = Vec::new();
    for (key, value) in store.scan()? {
        if key.starts_with(QUARANTINE) {
            continue;
        }
        match serde_json::from_slice(&value) {
            Ok(record) => records.push(record),
            Err(e) => {
                tracing::warn!(
                    "the record `{key}` cannot be read ({e}); kept as `{QUARANTINE}{key}` and ignored"
                );
                match put_in_quarantine(store, &key, &value) {
                    // The next start finds it again.
                    Err(StoreError::System(e)) if refuses_writes(&e) => {}
                    other => other?,
                }
            }
        }
    }
    Ok(records)
}

fn put_in_quarantine(store: &mut impl Store, key: &str, value: &[u8]) -> Result<(), StoreError> {
    store.put(&format!("{QUARANTINE}{key}"), value)?;
    store.delete(key)?;
    store.flush()
}

/// The name that a damaged folder is moved to: the first of `NAME.damaged-1`, `NAME.damaged-2`, … that is free.
pub(super) fn set_aside_name(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut numbers = 1..;
    let free =
        numbers.by_ref().map(|n| folder.with_file_name(format!("{name}.damaged-{n}"))).find(|p| !p.exists());
    free.expect("numbers do not end before the disk is full")
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod damage;
