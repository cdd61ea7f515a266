//! Bytes that a rank sends, by kind: what a layout costs is counted and not guessed.

use std::sync::atomic::{AtomicU64, Ordering};

/// What bytes were sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    AllReduce,
    ReduceScatter,
    AllGather,
    Broadcast,
    Send,
}

impl Kind {
    /// All of them, in the order of their counters.
    pub const ALL: [Kind; 5] =
        [Kind::AllReduce, Kind::ReduceScatter, Kind::AllGather, Kind::Broadcast, Kind::Send];
}

/// The counters of a group. Those of a library that does not say what it sends count what a ring would.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; 5]);

impl Counters {
    /// Counts bytes.
    pub fn add(&self, kind: Kind, bytes: usize) {
        self.0[kind as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// What was sent until now.
    pub fn sent(&self) -> Traffic {
        Traffic(std::array::from_fn(|kind| self.0[kind].load(Ordering::Relaxed)))
    }
}

/// Bytes that were sent, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic([u64; 5]);

impl Traffic {
    /// Bytes of one kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    /// Bytes of all kinds.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Together with what was sent by other means.
    #[cfg(feature = "nccl")]
    pub(super) fn with(&self, other: &Traffic) -> Traffic {
        Traffic(std::array::from_fn(|kind| self.0[kind] + other.0[kind]))
    }

    /// What was sent since.
    pub fn since(&self, before: &Traffic) -> Traffic {
        Traffic(std::array::from_fn(|kind| self.0[kind] - before.0[kind]))
    }
}
