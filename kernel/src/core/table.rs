//! A map from numbers that count up, as pids and contexts' numbers do, to what they name.
//!
//! It is ordered like a `BTreeMap` and finds an entry several times faster: entries stand in blocks of
//! [`BLOCK`] numbers, and only the blocks are searched for. An entry that outlives its neighbours keeps a block of
//! pointers alive and nothing more.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use syscalls::{ContextId, Pid};

use super::call::CallNo;

/// Numbers in a block.
const BLOCK: usize = 64;

/// A number that counts up.
pub(super) trait Number: Copy {
    /// As an integer.
    fn number(self) -> u64;
    /// From an integer that was one.
    fn of(number: u64) -> Self;
}

impl Number for ContextId {
    fn number(self) -> u64 {
        self.0
    }
    fn of(number: u64) -> Self {
        ContextId(number)
    }
}

impl Number for CallNo {
    fn number(self) -> u64 {
        self.0
    }
    fn of(number: u64) -> Self {
        CallNo(number)
    }
}

impl Number for Pid {
    fn number(self) -> u64 {
        self.0.into()
    }
    fn of(number: u64) -> Self {
        Pid(number as u32)
    }
}

#[derive(Debug)]
struct Block<V> {
    entries: [Option<Box<V>>; BLOCK],
    used: usize,
}

/// The map.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    blocks: BTreeMap<u64, Box<Block<V>>>,
    length: usize,
    keys: PhantomData<K>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table { blocks: BTreeMap::new(), length: 0, keys: PhantomData }
    }
}

impl<K: Number, V> Table<K, V> {
    fn place(key: K) -> (u64, usize) {
        (key.number() / BLOCK as u64, (key.number() % BLOCK as u64) as usize)
    }

    /// The entry of a number.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let (block, at) = Self::place(*key);
        self.blocks.get(&block)?.entries[at].as_deref()
    }

    /// The entry of a number, to be changed.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (block, at) = Self::place(*key);
        self.blocks.get_mut(&block)?.entries[at].as_deref_mut()
    }

    /// Whether a number has an entry.
    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Gives a number an entry, and tells what it had before.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (block, at) = Self::place(key);
        let empty = || Box::new(Block { entries: [const { None }; BLOCK], used: 0 });
        let block = self.blocks.entry(block).or_insert_with(empty);
        let before = block.entries[at].replace(Box::new(value));
        if before.is_none() {
            block.used += 1;
            self.length += 1;
        }
        before.map(|value| *value)
    }

    /// Takes the entry of a number out.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (number, at) = Self::place(*key);
        let block = self.blocks.get_mut(&number)?;
        let value = block.entries[at].take()?;
        block.used -= 1;
        self.length -= 1;
        if block.used == 0 {
            self.blocks.remove(&number);
        }
        Some(*value)
    }

    /// The entry of a number, made where there is none.
    pub(super) fn get_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        if !self.contains_key(&key) {
            self.insert(key, V::default());
        }
        self.get_mut(&key).expect("it has been made")
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// All entries in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.blocks.iter().flat_map(|(block, entries)| {
            let first = block * BLOCK as u64;
            let entries = entries.entries.iter().enumerate();
            entries.filter_map(move |(at, v)| Some((K::of(first + at as u64), v.as_deref()?)))
        })
    }

    /// All numbers, in their order.
    pub(super) fn keys(&self) -> impl Iterator<Item = K> {
        self.iter().map(|(key, _)| key)
    }

    /// All entries in the order of their numbers.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// All entries in the order of their numbers, to be changed.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.blocks.values_mut().flat_map(|block| block.entries.iter_mut().filter_map(|v| v.as_deref_mut()))
    }
}

impl<K: Number, V> std::ops::Index<&K> for Table<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("the number has an entry")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_does_what_a_map_does() {
        let (mut table, mut map) = (Table::<CallNo, u64>::default(), BTreeMap::new());
        for n in 0..2000_u64 {
            let key = CallNo(n * n % 700);
            if n % 3 == 0 {
                assert_eq!(table.remove(&key), map.remove(&key));
            } else {
                assert_eq!(table.insert(key, n), map.insert(key, n));
            }
            assert_eq!((table.get(&key), table.len()), (map.get(&key), map.len()));
        }
        assert!(table.iter().eq(map.iter().map(|(k, v)| (*k, v))));
        let keys: Vec<CallNo> = table.keys().collect();
        for key in &keys {
            table.remove(key);
        }
        assert_eq!((table.len(), table.blocks.len()), (0, 0), "nothing is left of empty blocks");
    }
}
