//! Who sees whom.

use crate::Result;
use crate::error::shape;

/// Which keys each query sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mask {
    /// Whether a query sees no key that comes after it.
    pub causal: bool,
    /// The position of the first query among the keys; more than 0 where keys of earlier passes come first.
    pub offset: usize,
    /// 0 for keys that nobody sees, row after row; `None` where all are seen.
    pub keys: Option<Vec<u8>>,
    /// The documents of queries and of keys, row after row: a query sees keys of its own document.
    pub segments: Option<[Vec<u32>; 2]>,
}

impl Mask {
    pub(super) fn check(&self, rows: usize, queries: usize, keys: usize) -> Result<()> {
        if self.keys.as_ref().is_some_and(|mask| mask.len() != rows * keys) {
            return shape("attention", format!("a mask of another form than {rows} rows of {keys} keys"));
        }
        if self.segments.as_ref().is_some_and(|[q, k]| q.len() != rows * queries || k.len() != rows * keys) {
            return shape(
                "attention",
                format!("documents of another form than {rows} × ({queries}, {keys})"),
            );
        }
        match self.causal && self.offset + queries > keys {
            true => shape("attention", format!("{queries} queries from {} on, and {keys} keys", self.offset)),
            false => Ok(()),
        }
    }

    /// How many keys, from the first, a query sees at most.
    pub(in crate::ops) fn limit(&self, query: usize, keys: usize) -> usize {
        if self.causal { (self.offset + query + 1).min(keys) } else { keys }
    }

    /// Whether looking at each key is needed at all.
    pub(super) fn has_gaps(&self) -> bool {
        self.keys.is_some() || self.segments.is_some()
    }

    /// Whether a query sees a key that is within its limit.
    pub(super) fn sees(&self, row: usize, [query, queries]: [usize; 2], [key, keys]: [usize; 2]) -> bool {
        let real = self.keys.as_ref().is_none_or(|mask| mask[row * keys + key] != 0);
        let same = |[q, k]: &[Vec<u32>; 2]| q[row * queries + query] == k[row * keys + key];
        real && self.segments.as_ref().is_none_or(same)
    }
}
