//! A long text in windows that overlap, for questions about it.

use std::ops::Range;

/// Tokens of a question that are read; what is beyond is cut, as BERT's own program does.
pub const QUESTION_TOKENS_MAX: usize = 64;

/// Tokens that neighbouring windows have in common where it is not said: half of one.
pub fn stride_default(room: usize) -> usize {
    room / 2
}

/// Windows of at most `room` tokens over a text of `length`, of which neighbours have `stride` in common.
pub fn windows(length: usize, room: usize, stride: usize) -> impl Iterator<Item = Range<usize>> {
    let step = room.saturating_sub(stride).max(1);
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let from = next?;
        let to = (from + room).min(length);
        next = (to < length).then_some(from + step);
        Some(from..to)
    })
}

/// The tokens that a part of a text is in, of tokens that stand at these bytes.
pub fn covering(places: &[(usize, usize)], part: &Range<usize>) -> Option<Range<usize>> {
    let first = places.iter().position(|(_, end)| *end > part.start)?;
    let last = places.iter().rposition(|(start, _)| *start < part.end)?;
    (first <= last).then_some(first..last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_meet_every_token_and_have_as_many_in_common_as_is_said() {
        let found: Vec<_> = windows(10, 4, 1).collect();
        assert_eq!(found, [0..4, 3..7, 6..10]);
        assert_eq!(windows(4, 4, 3).collect::<Vec<_>>(), vec![0..4; 1]);
        assert_eq!(windows(3, 8, 4).collect::<Vec<_>>(), vec![0..3; 1]);
        // A stride of all the room still goes on.
        assert_eq!(windows(4, 2, 9).collect::<Vec<_>>(), [0..2, 1..3, 2..4]);
    }

    #[test]
    fn answer_is_in_the_tokens_that_have_a_byte_of_it() {
        let places = [(0, 3), (4, 7), (7, 9), (10, 12)];
        assert_eq!(covering(&places, &(5..8)), Some(1..3));
        assert_eq!(covering(&places, &(10..12)), Some(3..4));
        assert_eq!(covering(&places, &(3..4)), None, "a space has no token");
        assert_eq!(covering(&places, &(12..13)), None);
    }
}
