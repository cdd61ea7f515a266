//! Round robin: whose process had a row longest ago goes first, whatever the rows cost. A newcomer goes last.

use super::{Rank, View};

pub(super) fn rank(view: &View) -> Rank {
    Rank { key: view.account.map_or(0, |a| a.served), ..Rank::default() }
}
