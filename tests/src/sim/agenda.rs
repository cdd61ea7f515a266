//! What will happen, in the order of its time; what happens at one time, in the order in which it was entered.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Debug)]
struct Entry<T> {
    at: u64,
    number: u64,
    what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// An agenda.
#[derive(Debug)]
pub struct Agenda<T> {
    entries: BinaryHeap<Reverse<Entry<T>>>,
    entered: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Agenda { entries: BinaryHeap::new(), entered: 0 }
    }
}

impl<T> Agenda<T> {
    /// Enters something at a time in microseconds.
    pub fn enter(&mut self, at: u64, what: T) {
        self.entered += 1;
        self.entries.push(Reverse(Entry { at, number: self.entered, what }));
    }

    /// Takes what comes next, with its time.
    pub fn take_next(&mut self) -> Option<(u64, T)> {
        self.entries.pop().map(|Reverse(entry)| (entry.at, entry.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_by_time_and_then_as_entered() {
        let mut agenda = Agenda::default();
        for (at, what) in [(5, "c"), (1, "a"), (5, "d"), (2, "b")] {
            agenda.enter(at, what);
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.take_next()).collect();
        assert_eq!(order, [(1, "a"), (2, "b"), (5, "c"), (5, "d")]);
    }
}
