//! What models make of a side of a batch: ids, positions and masks.

use std::sync::Arc;

use crate::Side;
use crate::ops::attention::Mask;

/// The ids of the tokens.
pub(super) fn tokens(side: &Side) -> Arc<[u32]> {
    side.tokens.as_slice().into()
}

/// The position of each token.
pub(super) fn positions(side: &Side) -> Arc<[u32]> {
    match &side.positions {
        Some(positions) => positions.as_slice().into(),
        None => (0..side.tokens.len()).map(|i| (i % side.length) as u32).collect(),
    }
}

/// Who sees whom in a side.
pub(super) fn mask(side: &Side, causal: bool) -> Arc<Mask> {
    let segments = side.segments.as_ref().map(|segments| [segments.clone(), segments.clone()]);
    Arc::new(Mask { causal, offset: 0, keys: side.mask.clone(), segments })
}

/// Who of `input` sees whom of `source`.
pub(super) fn mask_between(input: &Side, source: &Side) -> Arc<Mask> {
    let segments = input.segments.as_ref().zip(source.segments.as_ref()).map(|(q, k)| [q.clone(), k.clone()]);
    Arc::new(Mask { causal: false, offset: 0, keys: source.mask.clone(), segments })
}
