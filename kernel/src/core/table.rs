//! A map from numbers that count up, as pids and contexts' numbers do, to what they name.
//!
//! It is ordered like a `BTreeMap` and finds an entry many times faster: entries stand in blocks of [`BLOCK`] numbers
//! and blocks on shelves of as many, and only the shelves are searched for. There is one for each 4,096 numbers, so as
//! a rule there are few. An entry that outlives its neighbours keeps a shelf and a block of pointers alive and nothing
//! more.

use std::marker::PhantomData;

use syscalls::{ContextId, Pid};

use super::call::CallNo;
use super::event::ConnId;

/// Numbers in a block, and blocks on a shelf.
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

impl Number for ConnId {
    fn number(self) -> u64 {
        self.0
    }
    fn of(number: u64) -> Self {
        ConnId(number)
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

/// Boxes by the last digit of a number, in base [`BLOCK`].
#[derive(Debug)]
struct Boxes<T> {
    entries: [Option<Box<T>>; BLOCK],
    used: usize,
}

impl<T> Default for Boxes<T> {
    fn default() -> Self {
        Boxes { entries: [const { None }; BLOCK], used: 0 }
    }
}

impl<T> Boxes<T> {
    fn replace(&mut self, at: usize, entry: T) -> Option<T> {
        let before = self.entries[at].replace(Box::new(entry));
        self.used += usize::from(before.is_none());
        before.map(|entry| *entry)
    }

    fn take(&mut self, at: usize) -> Option<T> {
        let entry = self.entries[at].take()?;
        self.used -= 1;
        Some(*entry)
    }

    fn get_or_default(&mut self, at: usize) -> &mut T
    where
        T: Default,
    {
        let entry = &mut self.entries[at];
        self.used += usize::from(entry.is_none());
        entry.get_or_insert_default()
    }
}

type Shelf<V> = Boxes<Boxes<V>>;

/// Where a number stands: its shelf, the block there, and the place in that.
#[derive(Clone, Copy)]
struct At {
    shelf: u64,
    block: usize,
    place: usize,
}

impl At {
    fn of(number: u64) -> Self {
        const BASE: u64 = BLOCK as u64;
        At {
            shelf: number / (BASE * BASE),
            block: (number / BASE % BASE) as usize,
            place: (number % BASE) as usize,
        }
    }
}

/// The map.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    /// By their numbers. As a rule there is one, and what is looked for is not far away.
    shelves: Vec<(u64, Box<Shelf<V>>)>,
    length: usize,
    keys: PhantomData<K>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table { shelves: Vec::new(), length: 0, keys: PhantomData }
    }
}

impl<K: Number, V> Table<K, V> {
    /// Where a shelf stands, or would.
    fn find(&self, shelf: u64) -> Result<usize, usize> {
        match self.shelves.as_slice() {
            [(only, _)] if *only == shelf => Ok(0),
            shelves => shelves.binary_search_by_key(&shelf, |(number, _)| *number),
        }
    }

    /// Where a shelf stands, which is made where there is none.
    fn make(&mut self, shelf: u64) -> usize {
        self.find(shelf).unwrap_or_else(|at| {
            self.shelves.insert(at, (shelf, Box::default()));
            at
        })
    }

    /// The entry of a number.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let at = At::of(key.number());
        let (_, shelf) = &self.shelves[self.find(at.shelf).ok()?];
        shelf.entries[at.block].as_ref()?.entries[at.place].as_deref()
    }

    /// The entry of a number, to be changed.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = At::of(key.number());
        let found = self.find(at.shelf).ok()?;
        let (_, shelf) = &mut self.shelves[found];
        shelf.entries[at.block].as_mut()?.entries[at.place].as_deref_mut()
    }

    /// Whether a number has an entry.
    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Enters something under a number, and gives back what was there.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = At::of(key.number());
        let shelf = self.make(at.shelf);
        let before = self.shelves[shelf].1.get_or_default(at.block).replace(at.place, value);
        self.length += usize::from(before.is_none());
        before
    }

    /// Takes the entry of a number out.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let at = At::of(key.number());
        let found = self.find(at.shelf).ok()?;
        let (_, shelf) = &mut self.shelves[found];
        let block = shelf.entries[at.block].as_mut()?;
        let value = block.take(at.place)?;
        self.length -= 1;
        if block.used == 0 {
            shelf.take(at.block);
        }
        if shelf.used == 0 {
            self.shelves.remove(found);
        }
        Some(value)
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// All entries in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        fn there<T>(boxes: &Boxes<T>, first: u64) -> impl Iterator<Item = (u64, &T)> {
            let entries = boxes.entries.iter().enumerate();
            entries.filter_map(move |(at, entry)| Some((first + at as u64, entry.as_deref()?)))
        }
        const BASE: u64 = BLOCK as u64;
        let blocks = self.shelves.iter().flat_map(|(shelf, blocks)| there(blocks, shelf * BASE));
        let entries = blocks.flat_map(|(block, entries)| there(entries, block * BASE));
        entries.map(|(number, value)| (K::of(number), value))
    }

    /// All numbers, in their order.
    pub(super) fn keys(&self) -> impl Iterator<Item = K> {
        self.iter().map(|(key, _)| key)
    }

    /// All entries in the order of their numbers.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
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
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn table_does_what_a_map_does() {
        let (mut table, mut map) = (Table::<CallNo, u64>::default(), BTreeMap::new());
        for n in 0..2000_u64 {
            let key = CallNo(n * n % 700 * 37);
            if n % 3 == 0 {
                assert_eq!(table.remove(&key), map.remove(&key));
            } else {
                assert_eq!(table.insert(key, n), map.insert(key, n));
            }
            assert_eq!((table.get(&key), table.len()), (map.get(&key), map.len()));
        }
        for n in [3, 1 << 40, u64::MAX] {
            assert_eq!(table.insert(CallNo(n), n), map.insert(CallNo(n), n));
        }
        assert!(table.iter().eq(map.iter().map(|(k, v)| (*k, v))));
        let keys: Vec<CallNo> = table.keys().collect();
        for key in &keys {
            table.remove(key);
        }
        assert_eq!((table.len(), table.shelves.len()), (0, 0), "nothing is left of empty blocks");
    }
}
