//! First in, first out: generations get memory and prompts in the order in which they were asked for. A long
//! prompt holds up all that come later.

use super::{Rank, View};

pub(super) fn rank(view: &View) -> Rank {
    Rank { key: view.call.0, ..Rank::default() }
}
