//! Values of programs: whoever reads one finds what was put under that key by the same user, and no older value than
//! the last one whose `store_put` had been answered, restarts or not.

use std::collections::BTreeMap;

use kernel::core::event::ConnId;
use serde_json::{Value, json};
use syscalls::call::{StoreGet, StorePut};
use syscalls::{CallId, Pid, Reply};

use super::History;

const KEYS: [&str; 2] = ["a", "b"];

/// A key of a user.
type Key = (u32, &'static str);

/// What was put, and what was read.
#[derive(Default)]
pub(super) struct Kept {
    /// Users of processes, as they connected.
    pub uids: BTreeMap<Pid, u32>,
    /// Counts all values.
    last: u64,
    /// The last value of each key that is known to be kept.
    answered: BTreeMap<Key, u64>,
    puts: Vec<(ConnId, CallId, Key, u64)>,
    /// Reads, and the value that they must find at least.
    gets: Vec<(ConnId, CallId, Key, u64)>,
}

impl History {
    /// One puts a value, or reads one.
    pub(super) fn keep_value(&mut self) {
        let Some(at) = self.program() else { return };
        let (conn, pid) = (self.programs[at].conn, self.programs[at].pid);
        let Some(uid) = self.kept.uids.get(&pid).copied() else { return };
        let key = KEYS[self.chance.below(KEYS.len())];
        let store = "notes".to_owned();
        if self.chance.once_in(2) {
            self.kept.last += 1;
            let value = json!([uid, key, self.kept.last]);
            let id = self.begin(at, StorePut { store, key: key.to_owned(), value });
            self.kept.puts.push((conn, id, (uid, key), self.kept.last));
        } else {
            let least = self.kept.answered.get(&(uid, key)).copied().unwrap_or(0);
            let id = self.begin(at, StoreGet { store, key: key.to_owned() });
            self.kept.gets.push((conn, id, (uid, key), least));
        }
    }

    /// Takes in what has been answered.
    pub(super) fn collect_values(&mut self) {
        let (machine, kept) = (&self.machine, &mut self.kept);
        let answered = &mut kept.answered;
        kept.puts.retain(|(conn, id, key, value)| {
            let reply = machine.reply(*conn, *id);
            if let Some(Ok(_)) = reply {
                let last = answered.entry(*key).or_default();
                *last = (*last).max(*value);
            }
            reply.is_none()
        });
        let checked = &mut self.seen.values_checked;
        kept.gets.retain(|(conn, id, (uid, key), least)| {
            let reply = machine.reply(*conn, *id);
            if let Some(Ok(Reply::Value(found))) = &reply {
                let number = found.as_ref().map_or(0, |value| number_of(value, *uid, key));
                assert!(number >= *least, "user {uid} reads value {number} of {key} where {least} was kept");
                *checked += 1;
            }
            reply.is_none()
        });
    }

    /// What was not answered when the daemon was killed never is.
    pub(super) fn forget_calls_of_stores(&mut self) {
        self.kept.puts.clear();
        self.kept.gets.clear();
    }
}

/// The number of a value, which must be of this user and key.
fn number_of(value: &Value, uid: u32, key: &str) -> u64 {
    let number = value[2].as_u64().expect("values are numbered");
    assert_eq!(*value, json!([uid, key, number]), "user {uid} reads {key}");
    number
}
