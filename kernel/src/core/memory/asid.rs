//! Sequence ids of a worker, lent to resident contexts as hardware lends address-space ids.
//!
//! The last id is never lent: moving pages between tiers needs an empty sequence to move them through.

use drivers::wire::Asid;

/// The right to use a sequence id. It cannot be copied, and is given back to [`Asids`].
#[derive(Debug)]
pub(in crate::core) struct Lease(Asid);

impl Lease {
    /// The id, as the worker is told.
    pub(in crate::core) fn asid(&self) -> Asid {
        self.0
    }
}

/// The ids of one worker that nobody uses.
#[derive(Debug)]
pub(in crate::core) struct Asids {
    free: Vec<Lease>,
    total: usize,
}

impl Asids {
    /// The ids of a worker with so many sequences. One with a single sequence has none to reserve.
    pub(in crate::core) fn new(sequences: u16) -> Self {
        let lent = sequences.saturating_sub(1).max(sequences.min(1));
        Asids { free: (0..lent).rev().map(|n| Lease(Asid(n))).collect(), total: usize::from(lent) }
    }

    /// Lends an id, or none if all are lent.
    pub(in crate::core) fn lend(&mut self) -> Option<Lease> {
        self.free.pop()
    }

    /// Takes an id back.
    pub(in crate::core) fn give_back(&mut self, lease: Lease) {
        self.free.push(lease);
    }

    /// Whether one can be lent.
    pub(in crate::core) fn any_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Checks that none is lost.
    ///
    /// # Panics
    ///
    /// Where free ids and `lent` ones are not all.
    pub(in crate::core) fn check(&self, lent: usize) {
        assert_eq!(self.free.len() + lent, self.total, "sequence ids are lost or there twice");
    }
}
