//! What outlives the daemon: records under their keys, durable when a write is answered.
//!
//! A [`Store`] is a plain ordered map; [`sled`] keeps it on disk. It lives on a thread of its own, so that the
//! disk never stops the main loop from reading; the loop waits where an effect demands that a record is durable
//! before the next one. Nothing here is fatal while the daemon runs: what cannot be written is reported in the
//! log, and a database that cannot be read is moved aside and begun anew.
//!
//! What changes with every step, the images of processes that outlive the daemon, goes to a [`journal`] beside it: a file
//! that is only appended to, one write a step. sled's flush waits for the disk, which takes longer than many a step.

pub mod journal;
pub mod sled;

use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use crossbeam::channel;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::core::effect::Record;

/// Changes that may wait for the disk.
const CHANGES_WAITING_MAX: usize = 256;

/// Records that cannot be understood are kept under this prefix, for people to look at.
const QUARANTINE: &str = "quarantine/";

/// Why the store failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// What is on disk is not what was written.
    #[error("the database is damaged: {0}")]
    Damaged(String),
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

    /// All values, in the order of their keys.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    fn scan(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Returns when all that was put and deleted is durable.
    ///
    /// # Errors
    ///
    /// As [`Store::put`].
    fn flush(&mut self) -> Result<(), StoreError>;
}

/// One change to the store.
#[derive(Debug)]
pub enum Change {
    /// Sets the record of its own key.
    Persist(Record),
    /// Removes the record of a key.
    Forget(String),
}

/// A change, and where to tell that it is durable.
type Order = (Change, oneshot::Sender<Result<(), StoreError>>);

/// A store at work on its thread, which ends when this is dropped.
#[derive(Debug)]
pub struct StoreThread {
    changes: Option<channel::Sender<Order>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl StoreThread {
    /// Opens the store in a folder, and gives the records that it holds.
    ///
    /// # Errors
    ///
    /// The system does not let the folder be used.
    pub fn open(folder: &Path) -> Result<(StoreThread, Vec<Record>), StoreError> {
        let mut store = sled::open_or_set_aside(folder)?;
        let records = records(&mut store)?;
        Ok((StoreThread::run(store), records))
    }

    /// Takes a store that is open.
    fn run(mut store: impl Store + 'static) -> StoreThread {
        let (changes, waiting) = channel::bounded::<Order>(CHANGES_WAITING_MAX);
        let work = move || {
            for (change, done) in waiting {
                // The main loop may have gone; the change counts all the same.
                let _ = done.send(apply(&mut store, &change));
            }
        };
        let thread = thread::Builder::new().name("store".into()).spawn(work);
        StoreThread {
            changes: Some(changes),
            thread: Some(thread.expect("the system has room for one thread")),
        }
    }

    /// Makes a change, and returns when it is durable.
    ///
    /// # Errors
    ///
    /// The disk is full or broken; the change may be lost.
    pub async fn make(&self, change: Change) -> Result<(), StoreError> {
        let ended = || StoreError::System(io::Error::other("the thread of the store has ended"));
        let (done, answer) = oneshot::channel();
        let changes = self.changes.as_ref().ok_or_else(ended)?;
        changes.send((change, done)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        drop(self.changes.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported when it happened.
            let _ = thread.join();
        }
    }
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
                store.put(&format!("{QUARANTINE}{key}"), &value)?;
                store.delete(&key)?;
                store.flush()?;
            }
        }
    }
    Ok(records)
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
