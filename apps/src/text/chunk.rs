//! Packs text into chunks that a model can take at once.
//!
//! A chunk is as many whole sentences as the budget allows, counted with the model's own tokens. A sentence that
//! is too long alone is halved at the clause, word or character nearest its middle until the parts fit. The
//! chunks tile the text: nothing is lost, whatever its length.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use super::sentence::sentences;

/// Longer texts are halved without being counted first; a request line has room for no more than a few of these.
const COUNT_BYTES_MAX: usize = 1 << 20;

/// Counts the tokens of a text.
pub trait Count {
    /// Why counting fails.
    type Error;

    /// The number of tokens that a model reads the text as.
    ///
    /// # Errors
    ///
    /// The model cannot be asked.
    fn count(&mut self, text: &str) -> Result<usize, Self::Error>;
}

/// Splits a text into chunks of at most `budget` tokens each. The ranges tile the text. A single character that
/// takes more tokens than the budget is a chunk of its own.
///
/// # Errors
///
/// Those of the counter.
pub fn chunks<C: Count>(text: &str, budget: usize, counter: &mut C) -> Result<Vec<Range<usize>>, C::Error> {
    let mut pieces = Vec::new();
    for sentence in sentences(text) {
        fit(text, sentence, budget, counter, &mut pieces)?;
    }
    pack(text, &pieces, budget, counter)
}

/// A part of the text and its tokens.
struct Piece {
    range: Range<usize>,
    tokens: usize,
}

/// Adds a range to the pieces, in halves where it is too long.
fn fit<C: Count>(
    text: &str,
    range: Range<usize>,
    budget: usize,
    counter: &mut C,
    pieces: &mut Vec<Piece>,
) -> Result<(), C::Error> {
    // Halves that wait, the next one last.
    let mut waiting = vec![range];
    while let Some(range) = waiting.pop() {
        let part = &text[range.clone()];
        let tokens = if part.len() > COUNT_BYTES_MAX { usize::MAX } else { counter.count(part)? };
        match middle(part).filter(|_| tokens > budget) {
            Some(middle) => {
                waiting.push(range.start + middle..range.end);
                waiting.push(range.start..range.start + middle);
            }
            None => pieces.push(Piece { range, tokens }),
        }
    }
    Ok(())
}

/// Joins neighbours while they fit. Tokens may differ across a joint, so each chunk is counted as a whole before
/// it is taken.
fn pack<C: Count>(
    text: &str,
    pieces: &[Piece],
    budget: usize,
    counter: &mut C,
) -> Result<Vec<Range<usize>>, C::Error> {
    let mut found = Vec::new();
    let mut from = 0;
    while from < pieces.len() {
        let mut sum = pieces[from].tokens;
        let mut to = from + 1;
        while to < pieces.len() && sum.saturating_add(pieces[to].tokens) <= budget {
            sum += pieces[to].tokens;
            to += 1;
        }
        let start = pieces[from].range.start;
        while to > from + 1 && counter.count(&text[start..pieces[to - 1].range.end])? > budget {
            to -= 1;
        }
        found.push(start..pieces[to - 1].range.end);
        from = to;
    }
    Ok(found)
}

/// Where to cut a text in two: behind the clause nearest the middle, else the word, else the character. None for
/// a single character.
fn middle(text: &str) -> Option<usize> {
    let centre = text.len() / 2;
    let bounds = || text.grapheme_indices(true).map(|(at, g)| at + g.len()).filter(|&at| at < text.len());
    let nearest = |ends: fn(&str) -> bool| {
        bounds().filter(|&at| ends(&text[..at])).min_by_key(|at| at.abs_diff(centre))
    };
    // A clause or word far from the middle would leave one part as long as the whole.
    let central = |at: &usize| at.abs_diff(centre) <= text.len() / 4;
    nearest(ends_clause)
        .filter(central)
        .or_else(|| nearest(ends_word).filter(central))
        .or_else(|| nearest(|_| true))
}

fn ends_clause(before: &str) -> bool {
    let trimmed = before.trim_end();
    let spaced = trimmed.len() < before.len();
    trimmed.ends_with(['，', '、', '：', '；', '،']) || spaced && trimmed.ends_with([',', ';', ':', '–', '—'])
}

fn ends_word(before: &str) -> bool {
    before.ends_with(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// A model whose tokens are three characters, and that reads one more where it sees a space.
    struct Thirds(usize);

    impl Count for Thirds {
        type Error = Infallible;

        fn count(&mut self, text: &str) -> Result<usize, Infallible> {
            self.0 += 1;
            Ok(text.chars().count().div_ceil(3) + text.matches(' ').count())
        }
    }

    fn chunked(text: &str, budget: usize) -> Vec<&str> {
        let Ok(ranges) = chunks(text, budget, &mut Thirds(0));
        ranges.into_iter().map(|r| &text[r]).collect()
    }

    #[test]
    fn sentences_are_packed_whole() {
        assert_eq!(chunked("One. Two. Three. Four.", 9), ["One. Two. ", "Three. Four."]);
        assert_eq!(chunked("一二三。四五六。七八九。", 4), ["一二三。四五六。", "七八九。"]);
        assert_eq!(chunked("", 9), [""; 0]);
    }

    #[test]
    fn sentence_too_long_is_cut_at_a_clause_then_a_word() {
        assert_eq!(chunked("one two three, four five six.", 10), ["one two three, ", "four five six."]);
        assert_eq!(chunked("one two three four five six.", 10), ["one two three ", "four five six."]);
        assert_eq!(chunked("abcdefghijkl", 2), ["abcdef", "ghijkl"]);
    }

    #[test]
    fn character_of_several_code_points_stays_whole() {
        let family = "👩\u{200d}👩\u{200d}👧";
        assert_eq!(chunked(&family.repeat(2), 1), [family, family]);
    }

    #[test]
    fn text_without_bounds_needs_few_counts() {
        let mut counter = Thirds(0);
        let text = "x".repeat(100_000);
        let Ok(found) = chunks(&text, 100, &mut counter);
        assert!(found.len() >= 334 && found.len() < 1000, "{}", found.len());
        assert!(counter.0 < 5000, "{}", counter.0);
    }

    proptest! {
        #[test]
        fn chunks_joined_are_the_text(text in "[a-zß世界。！；,.;!? \n\u{301}👧-]{0,300}", budget in 1usize..40) {
            let parts = chunked(&text, budget);
            prop_assert_eq!(parts.concat(), text.clone());
            for part in parts {
                let Ok(tokens) = Thirds(0).count(part);
                prop_assert!(tokens <= budget || part.graphemes(true).count() == 1, "{:?}: {}", part, tokens);
            }
        }
    }
}
