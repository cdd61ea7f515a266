//! Splits text into sentences, in the way of its language.
//!
//! The bounds come from the Unicode standard's sentence segmentation (UAX 29), which knows terminators of all
//! scripts, decimal numbers and closing quotes. It knows no abbreviations, no speech that goes on after its
//! quote, and no scripts that end sentences otherwise; those rules stand here. Line breaks are judged by
//! [`super::layout`] first.
//!
//! The ranges always tile the text: joining them gives it back, byte for byte.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use super::abbreviation::{is_list_marker, leaves_open};
use super::language::Language;
use super::layout::{paragraphs, stretches};
use super::script::{closes, is_han_or_kana, is_southeast_asian};

/// Characters before an ellipsis that ends a Chinese or Japanese sentence. After fewer, the speaker only pauses.
const BEFORE_ELLIPSIS_MIN: usize = 6;

/// Characters after which a space in Thai and its neighbours, which write no full stops, counts as an end.
const PHRASE_CHARS_MIN: usize = 40;

/// Splits a text into sentences, each with the space behind it. The ranges tile the text.
pub fn sentences(text: &str) -> Vec<Range<usize>> {
    let language = Language::guess(text).map(Language::code);
    let mut found = Vec::new();
    for paragraph in paragraphs(text) {
        for stretch in stretches(&text[paragraph.clone()]) {
            let start = paragraph.start + stretch.start;
            let stretch = &text[start..paragraph.start + stretch.end];
            let flat = flatten(stretch);
            found.extend(split(&flat, language).into_iter().map(|r| start + r.start..start + r.end));
        }
    }
    merge_empty(text, found)
}

/// Line breaks that say nothing become spaces, at the same offsets.
fn flatten(stretch: &str) -> String {
    stretch.replace(['\n', '\r'], " ")
}

/// A range of nothing but space joins the sentence before it, or the one after where there is none.
fn merge_empty(text: &str, ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if text[range.clone()].trim().is_empty() || text[last.clone()].trim().is_empty() => {
                last.end = range.end;
            }
            _ => merged.push(range),
        }
    }
    merged
}

fn split(text: &str, language: Option<&str>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    for bound in bounds(text) {
        let (before, after) = (&text[start..bound], &text[bound..]);
        if after.trim().is_empty() || !goes_on(before, after, language) {
            found.push(start..bound);
            start = bound;
        }
    }
    found
}

/// Every place where a sentence might end, in order, the end of the text included.
fn bounds(text: &str) -> Vec<usize> {
    let mut bounds: Vec<usize> =
        text.split_sentence_bound_indices().map(|(at, part)| before_opening(text, at + part.len())).collect();
    bounds.extend(bounds_beyond_unicode(text));
    bounds.sort_unstable();
    bounds.dedup();
    bounds
}

/// Moves a bound back before a quote or bracket that opens. UAX 29 takes what stands behind a full stop for
/// closing, which is wrong where no space comes between: 走了。（真的）
fn before_opening(text: &str, bound: usize) -> usize {
    let before = &text[..bound];
    let kept = before.trim_end_matches(['（', '「', '『', '【', '《', '〈', '“', '‘', '(', '[']);
    let cjk = kept.ends_with(|c| matches!(c, '。' | '！' | '？' | '；' | '…') || closes_cjk(c));
    if cjk && bound < text.len() { kept.len() } else { bound }
}

/// Closing marks of Chinese and Japanese. The quote “ closes in German alone.
fn closes_cjk(c: char) -> bool {
    closes(c) && !matches!(c, '“' | '«')
}

/// Ends of sentences that UAX 29 does not have: full-width semicolons, ellipses, and spaces in scripts without
/// full stops.
fn bounds_beyond_unicode(text: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut since = 0;
    let mut before = ' ';
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        since += 1;
        let next = chars.peek().map(|(_, c)| *c);
        let ends = match c {
            '；' | '。' | '！' | '？' => true,
            '…' | '⋯' => next != Some(c) && ellipsis_ends(since, &text[at + c.len_utf8()..]),
            ' ' => {
                since > PHRASE_CHARS_MIN && is_southeast_asian(before) && next.is_some_and(is_southeast_asian)
            }
            _ => false,
        };
        before = c;
        if ends {
            let after = &text[at + c.len_utf8()..];
            let closing: usize = after.chars().take_while(|c| closes_cjk(*c)).map(char::len_utf8).sum();
            let rest = &after[closing..];
            let space = rest.len() - rest.trim_start().len();
            let bound = at + c.len_utf8() + closing + space;
            // A further terminator belongs to the same end.
            if !rest.starts_with(['。', '！', '？', '；', '…', '⋯']) {
                found.push(bound);
            }
            since = 0;
        }
    }
    found
}

/// Whether an ellipsis behind `length` characters ends its sentence, given the text after it.
fn ellipsis_ends(length: usize, after: &str) -> bool {
    let rest = after.trim_start_matches(closes_cjk);
    let spaced = rest.starts_with(char::is_whitespace);
    match rest.trim_start().chars().next() {
        Some(c) if is_han_or_kana(c) => length > BEFORE_ELLIPSIS_MIN,
        Some(c) => spaced && c.is_uppercase(),
        None => true,
    }
}

/// Whether the sentence goes on behind a possible end.
fn goes_on(before: &str, after: &str, language: Option<&str>) -> bool {
    let before = before.trim_end();
    let after = after.trim_start();
    let first = after.chars().next().unwrap_or(' ');
    if first.is_lowercase() || is_list_marker(before) {
        return true;
    }
    if is_quoted_speech(before, after) {
        return true;
    }
    let last = before.split_whitespace().next_back().unwrap_or_default();
    let word = last.trim_start_matches(|c: char| !c.is_alphanumeric());
    let next: String = after
        .trim_start_matches(|c: char| !c.is_alphanumeric())
        .chars()
        .take_while(|c| c.is_alphanumeric())
        .collect();
    leaves_open(word, &next, language)
}

/// Japanese goes on after a quote with the particle that marks it: 「はい。」と言った。
fn is_quoted_speech(before: &str, after: &str) -> bool {
    before.ends_with(['」', '』', '）']) && ["と", "って", "という"].iter().any(|p| after.starts_with(p))
}

#[cfg(test)]
mod tests;
