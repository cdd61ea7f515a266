//! The values that programs keep: stores of each user's own, bounded, in a database beside that of the records.
//!
//! It has a thread of its own, so a search or a slow disk keeps nobody waiting but those who ask for values. Orders are
//! carried out in their order, and a change is durable before it is answered. A disk that cannot be written costs the
//! calls that write; they get ENOSPC or EROFS, and work again when it can. What was kept can be read meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;

use crossbeam::channel;
use syscalls::call::{StoreList, StorePut, StoreSearch};
use syscalls::limits::STORE_ORDERS_MAX;
use syscalls::{Errno, Fault, Reply};

use super::frozen::Opener;
use super::healing::Healing;
use super::search::Search;
use super::{Store, StoreError, refusal, with_access};
use crate::core::effect::StoreOrder;

/// How much a user may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Values.
    pub values: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

impl Default for Quota {
    /// A hundred thousand values, and what a search reads in well under a second.
    fn default() -> Self {
        Quota { values: 100_000, bytes: 64 << 20 }
    }
}

/// What a user keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    values: u64,
    bytes: u64,
}

/// All values, in a store that is open.
pub struct Values<S> {
    store: S,
    quota: Quota,
    used: BTreeMap<u32, Used>,
}

impl<S: Store> Values<S> {
    /// Takes a store, and counts what is in it.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn open(store: S, quota: Quota) -> Result<Self, StoreError> {
        let mut used: BTreeMap<u32, Used> = BTreeMap::new();
        store.walk("", &mut |key, value| {
            if let Some(uid) = key.split('/').next().and_then(|uid| uid.parse().ok()) {
                let used = used.entry(uid).or_default();
                used.values += 1;
                used.bytes += size(key, value);
            }
        })?;
        Ok(Values { store, quota, used })
    }

    /// Carries an order out; a change is durable when this returns.
    ///
    /// # Errors
    ///
    /// The disk fails; a change may be made or not.
    pub fn carry_out(&mut self, uid: u32, order: &StoreOrder) -> Result<Result<Reply, Fault>, StoreError> {
        match order {
            StoreOrder::Put(put) => self.put(uid, put),
            StoreOrder::Get(get) => {
                let value = self.store.get(&key_of(uid, &get.store, &get.key))?;
                let value = value.map(|bytes| serde_json::from_slice(&bytes)).transpose();
                value.map_err(|e| StoreError::Damaged(e.to_string())).map(|value| Ok(Reply::Value(value)))
            }
            StoreOrder::Delete(delete) => self.delete(uid, &key_of(uid, &delete.store, &delete.key)),
            StoreOrder::List(list) => self.list(uid, list),
            StoreOrder::Search(search) => self.search(uid, search),
        }
    }

    fn put(&mut self, uid: u32, put: &StorePut) -> Result<Result<Reply, Fault>, StoreError> {
        let key = key_of(uid, &put.store, &put.key);
        let value = put.value.to_string().into_bytes();
        let before =
            self.store.get(&key)?.map_or(Used::default(), |old| Used { values: 1, bytes: size(&key, &old) });
        let used = self.used.get(&uid).copied().unwrap_or_default();
        let after = Used {
            values: used.values - before.values + 1,
            bytes: used.bytes - before.bytes + size(&key, &value),
        };
        if let Err(fault) = self.quota.admit(uid, used, after) {
            return Ok(Err(fault));
        }
        self.store.put(&key, &value)?;
        self.store.flush()?;
        self.used.insert(uid, after);
        Ok(Ok(Reply::Done {}))
    }

    fn delete(&mut self, uid: u32, key: &str) -> Result<Result<Reply, Fault>, StoreError> {
        if let Some(old) = self.store.get(key)? {
            self.store.delete(key)?;
            self.store.flush()?;
            let used = self.used.entry(uid).or_default();
            used.values -= 1;
            used.bytes -= size(key, &old);
        }
        Ok(Ok(Reply::Done {}))
    }

    fn list(&self, uid: u32, list: &StoreList) -> Result<Result<Reply, Fault>, StoreError> {
        let store = key_of(uid, &list.store, "");
        let mut keys = Vec::new();
        self.store.walk(&format!("{store}{}", list.prefix), &mut |key, _| {
            keys.push(key[store.len()..].to_owned())
        })?;
        Ok(Ok(Reply::Keys(keys)))
    }

    fn search(&self, uid: u32, args: &StoreSearch) -> Result<Result<Reply, Fault>, StoreError> {
        let store = key_of(uid, &args.store, "");
        let mut search = Search::new(&args.text);
        self.store.walk(&store, &mut |key, value| {
            // What is no JSON has no words; `get` tells of the damage.
            if let Ok(value) = serde_json::from_slice(value) {
                search.see(&key[store.len()..], &value);
            }
        })?;
        Ok(Ok(Reply::Found(search.best(args.count as usize))))
    }
}

impl Quota {
    /// Whether a user may come to keep so much. What makes it less is always allowed.
    fn admit(&self, uid: u32, used: Used, after: Used) -> Result<(), Fault> {
        let refuse = |what: &str, after: u64, max: u64, key: &str| {
            let message = format!(
                "user {uid} would keep {after} {what}; the limit is {max}; delete some, or raise {key} in the configuration"
            );
            Err(Fault::new(Errno::EDQUOT, message))
        };
        if after.values > self.values && after.values > used.values {
            return refuse("values", after.values, self.values, "store_values_max");
        }
        if after.bytes > self.bytes && after.bytes > used.bytes {
            return refuse("bytes in stores", after.bytes, self.bytes, "store_bytes_max");
        }
        Ok(())
    }
}

fn changes(order: &StoreOrder) -> bool {
    match order {
        StoreOrder::Put(_) | StoreOrder::Delete(_) => true,
        StoreOrder::Get(_) | StoreOrder::List(_) | StoreOrder::Search(_) => false,
    }
}

/// Names have no control characters, so the zero byte ends the name of a store.
fn key_of(uid: u32, store: &str, key: &str) -> String {
    format!("{uid}/{store}\0{key}")
}

fn size(key: &str, value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

/// One order, and its number.
type Numbered = (u64, u32, StoreOrder);

/// The values at work on their thread, which ends when this is dropped.
#[derive(Debug)]
pub struct ValuesThread {
    orders: Option<channel::Sender<Numbered>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl ValuesThread {
    /// Starts to serve the values in a folder; `done` hears of each order that is carried out.
    pub fn start(
        folder: &Path,
        quota: Quota,
        done: impl Fn(u64, Result<Reply, Fault>) + Send + 'static,
    ) -> ValuesThread {
        let mut opener = Opener::new(folder);
        let open = move || {
            let (store, access) = with_access(opener.open()?);
            Ok((Values::open(store, quota)?, access))
        };
        ValuesThread::run(Healing::new("values", open), done)
    }

    fn run(
        mut values: Healing<Values<impl Store + 'static>>,
        done: impl Fn(u64, Result<Reply, Fault>) + Send + 'static,
    ) -> ValuesThread {
        // The kernel lets no more wait.
        let (orders, waiting) = channel::bounded::<Numbered>(STORE_ORDERS_MAX);
        let work = move || {
            for (number, uid, order) in waiting {
                let act = |values: &mut Values<_>| values.carry_out(uid, &order);
                let result = if changes(&order) { values.change(act) } else { values.read(act) };
                done(number, result.unwrap_or_else(|error| Err(refusal(&error))));
            }
        };
        let thread = thread::Builder::new().name("values".into()).spawn(work);
        ValuesThread {
            orders: Some(orders),
            thread: Some(thread.expect("the system has room for one thread")),
        }
    }

    /// Gives an order.
    ///
    /// # Errors
    ///
    /// The thread has ended, which it does not while this is there.
    pub fn order(&self, number: u64, uid: u32, order: StoreOrder) -> Result<(), Fault> {
        let ended = || Fault::new(Errno::EIO, "the thread of the store has ended; restart the daemon");
        self.orders.as_ref().ok_or_else(ended)?.try_send((number, uid, order)).map_err(|_| ended())
    }
}

impl Drop for ValuesThread {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported when it happened.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
