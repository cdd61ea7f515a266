//! What is on disk, and the next daemon that begins with it.

use std::collections::BTreeMap;

use kernel::core::effect::Record;
use kernel::core::image::{Entry, Images};
use kernel::core::{Event, KernelConfig};
use kernel::host::store::values::{Quota, Values};

use super::Machine;

impl Machine {
    /// The daemon is killed, and another one begins with what is on disk.
    pub fn crashed(&mut self, config: KernelConfig) -> Machine {
        let mut next = Machine::new(config);
        next.records = std::mem::take(&mut self.records);
        next.images = std::mem::take(&mut self.images);
        next.disks = self.disks.iter().map(|(name, swap)| (name.clone(), swap.disk())).collect();
        next.values = std::mem::replace(&mut self.values, no_values());
        (next.next_conn, next.next_id, next.file) = (self.next_conn, self.next_id, self.file);
        let mut records: Vec<Record> = next.records.values().cloned().collect();
        // The host does not say in which order they come.
        records.reverse();
        records.extend(next.images.clone().into_records());
        next.event(Event::Booted { records });
        if self.watched.is_some() {
            next.watch_states();
            next.transitions = std::mem::take(&mut self.transitions);
        }
        next
    }
}

pub(super) fn no_values() -> Values<BTreeMap<String, Vec<u8>>> {
    Values::open(BTreeMap::new(), Quota::default()).expect("it is empty")
}

pub(super) trait Disk {
    /// Takes entries in as the host writes and reads them. Gives how many bytes they take.
    fn write(&mut self, entries: &[Entry]) -> usize;
}

impl Disk for Images {
    fn write(&mut self, entries: &[Entry]) -> usize {
        let bytes = postcard::to_stdvec(entries).expect("they have a form");
        let read: Vec<Entry> = postcard::from_bytes(&bytes).expect("they are read as they were written");
        assert_eq!(read, entries);
        read.into_iter().for_each(|entry| self.apply(entry));
        bytes.len()
    }
}
