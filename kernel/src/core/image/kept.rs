//! What is kept until somebody takes it, messages and replies, as the text that it is on the wire and on disk. As a value
//! it could take ninety times as much memory as it has bytes, and bytes are what is counted and bounded.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use syscalls::{Errno, Fault};

/// Something that is kept as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kept(Box<RawValue>);

impl Kept {
    /// Something as it is kept.
    pub(in crate::core) fn of(value: &impl Serialize) -> Kept {
        Kept(to_raw_value(value).expect("what programs say and hear has a form"))
    }

    /// What it was made of.
    ///
    /// # Errors
    ///
    /// EIO where it is nothing of the kind: it was not written by a daemon.
    pub(in crate::core) fn read<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        let unreadable = |e| Fault::new(Errno::EIO, format!("what was kept cannot be read: {e}"));
        serde_json::from_str(self.0.get()).map_err(unreadable)
    }

    /// How much it takes.
    pub(in crate::core) fn bytes(&self) -> u64 {
        self.0.get().len() as u64
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}
