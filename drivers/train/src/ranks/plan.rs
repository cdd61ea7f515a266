//! Which gradients travel together. Small ones would cost a round of messages each, and one message of all could not
//! begin before the last gradient is there.

use std::ops::Range;

use crate::parameters::Parameters;

/// Bytes of a bucket, where nothing else is said: enough that a message's fixed cost does not show, and few enough that
/// the first is under way early.
pub const BUCKET_BYTES: usize = 4 << 20;

/// A parameter in a bucket.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub id: usize,
    /// Its numbers in the bucket.
    pub range: Range<usize>,
}

/// Parameters whose gradients travel together.
#[derive(Clone, Debug, Default)]
pub(super) struct Bucket {
    pub entries: Vec<Entry>,
    pub length: usize,
}

/// The buckets, in the order in which they are summed. It is the same on all ranks of a data group.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub buckets: Vec<Bucket>,
}

impl Plan {
    /// Buckets of so many bytes of the trainable ones of `parameters`, beginning with the last: going backwards finishes
    /// it first. One that stages of a pipeline share is finished last.
    pub fn new(parameters: &Parameters, bytes: usize) -> Plan {
        let numbers = bytes / parameters.dtype().size_in_bytes();
        let list: Vec<_> =
            parameters.iter().enumerate().filter(|(_, parameter)| parameter.trainable).collect();
        let (shared, own): (Vec<_>, Vec<_>) =
            list.into_iter().rev().partition(|(_, parameter)| parameter.shared);
        let mut buckets: Vec<Bucket> = Vec::new();
        for (id, parameter) in own.into_iter().chain(shared) {
            if buckets.last().is_none_or(|bucket| bucket.length >= numbers) {
                buckets.push(Bucket::default());
            }
            let bucket = buckets.last_mut().expect("there is one now");
            let range = bucket.length..bucket.length + parameter.count();
            bucket.length = range.end;
            bucket.entries.push(Entry { id, range });
        }
        Plan { buckets }
    }

    /// For each parameter its bucket and its place there.
    pub fn places(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.buckets
            .iter()
            .enumerate()
            .flat_map(|(number, bucket)| bucket.entries.iter().map(move |e| (number, e)))
    }
}
