//! Lines that have begun and not ended: how much of them is kept for each user, over all of his connections. A line is kept
//! until it is whole, and for a user who begins a long one on each of a thousand connections, and ends none, that would be
//! gigabytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use syscalls::limits::HALF_LINES_BYTES_MAX;

/// What is kept for each user who has some, in bytes.
#[derive(Clone, Debug, Default)]
pub struct Halves(Arc<Mutex<BTreeMap<u32, usize>>>);

/// What is kept for one connection, until this is dropped.
#[derive(Debug)]
pub struct Half {
    all: Halves,
    uid: u32,
    bytes: usize,
}

impl Halves {
    /// The part of a connection of a user, for which nothing is kept yet.
    pub fn of(&self, uid: u32) -> Half {
        Half { all: self.clone(), uid, bytes: 0 }
    }
}

impl Half {
    /// Notes how much is kept for the connection now. Gives whether its user may have so much.
    pub fn note(&mut self, bytes: usize) -> bool {
        if bytes == self.bytes {
            return true;
        }
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.remove(&self.uid).unwrap_or(0);
        let of_user = before + bytes - self.bytes;
        if of_user > 0 {
            all.insert(self.uid, of_user);
        }
        self.bytes = bytes;
        of_user <= HALF_LINES_BYTES_MAX
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.note(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_a_user_has_begun_are_bounded_over_all_of_his_connections() {
        let halves = Halves::default();
        let (mut one, mut two, mut other) = (halves.of(7), halves.of(7), halves.of(8));
        assert!(one.note(HALF_LINES_BYTES_MAX - 1) && two.note(1));
        assert!(!two.note(2));
        assert!(other.note(HALF_LINES_BYTES_MAX), "another user has as much");
        drop(one);
        assert!(two.note(3), "a connection that has ended has nothing");
        drop((two, other));
        assert!(halves.0.lock().expect("nobody died with it").is_empty());
    }
}
