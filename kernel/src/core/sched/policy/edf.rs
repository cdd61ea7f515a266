//! Earliest deadline first, in every class; what has no deadline comes after all that has one, in the order in which
//! it was asked for.

use super::{Rank, View};

pub(super) fn rank(view: &View) -> Rank {
    match view.deadline {
        Some(deadline) => Rank { due: deadline.0, ..Rank::default() },
        None => Rank { tier: 1, key: view.call.0, ..Rank::default() },
    }
}
