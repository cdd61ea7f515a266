//! How a plain text is laid out: paragraphs, and which of its line breaks mean something.
//!
//! A paragraph ends at an empty line. Inside it a line break may be where an editor wrapped the line, which says
//! nothing, or where one item ends: a heading, a list entry, a turn of a dialogue, a verse.

use std::ops::Range;

use unicode_width::UnicodeWidthStr;

/// Below this width, in columns, nobody wraps prose: shorter lines end where they are meant to.
const WRAPPED_WIDTH_MIN: usize = 40;

/// Splits into paragraphs. The ranges tile the text; each has the empty lines behind it.
pub fn paragraphs(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut start, mut at, mut ended) = (0, 0, false);
    for line in text.split_inclusive('\n') {
        let empty = line.trim().is_empty();
        if !empty && ended {
            found.push(start..at);
            start = at;
        }
        ended = empty && (ended || !text[start..at].trim().is_empty());
        at += line.len();
    }
    if start < text.len() {
        found.push(start..text.len());
    }
    found
}

/// Splits a paragraph at the line breaks that mean something. The ranges tile it.
pub fn stretches(paragraph: &str) -> Vec<Range<usize>> {
    let lines: Vec<&str> = paragraph.split_inclusive('\n').collect();
    let widest = lines.iter().map(|l| l.trim_end().width()).max().unwrap_or(0);
    let mut found = Vec::new();
    let (mut start, mut at) = (0, 0);
    for pair in lines.windows(2) {
        at += pair[0].len();
        if !is_wrapped(pair[0], pair[1], widest) {
            found.push(start..at);
            start = at;
        }
    }
    if start < paragraph.len() {
        found.push(start..paragraph.len());
    }
    found
}

/// A stretch of text on one line: a line break becomes a space, or nothing in scripts without spaces.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for part in text.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty()) {
        let joined = line.ends_with(joins_lines) && part.starts_with(joins_lines);
        if !line.is_empty() && !joined {
            line.push(' ');
        }
        line.push_str(part);
    }
    line
}

fn joins_lines(c: char) -> bool {
    super::script::joins_words(c)
        || matches!(c, '、' | '，' | '。' | '：' | '；' | '！' | '？' | '」' | '「' | '）' | '（')
}

/// Whether the break between two lines is where an editor wrapped one: the next word found no room.
fn is_wrapped(line: &str, next: &str, widest: usize) -> bool {
    let (line, next) = (line.trim_end(), next.trim());
    if next.is_empty() {
        return true;
    }
    if line.trim_start().starts_with('#') || begins_item(next) {
        return false;
    }
    if next.starts_with(char::is_lowercase) {
        return true;
    }
    let first_word = next.split_whitespace().next().unwrap_or_default();
    // Scripts without spaces wrap at any character.
    let word_width = match first_word.chars().next() {
        Some(c) if super::script::joins_words(c) => 2,
        _ => first_word.width() + 1,
    };
    widest >= WRAPPED_WIDTH_MIN && line.width() + word_width > widest
}

/// Whether a line begins an item of its own.
fn begins_item(line: &str) -> bool {
    if line.starts_with(['#', '|', '>', '•', '·', '–', '—', '※', '「', '『']) {
        return true;
    }
    if ["- ", "* ", "+ "].iter().any(|bullet| line.starts_with(bullet)) {
        return true;
    }
    let marker = line.split_whitespace().next().unwrap_or_default();
    marker != line && super::abbreviation::is_list_marker(marker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, split: fn(&str) -> Vec<Range<usize>>, expect: &[&str]) {
        let parts: Vec<&str> = split(text).into_iter().map(|r| &text[r]).collect();
        assert_eq!(parts, expect);
    }

    #[test]
    fn paragraphs_end_at_empty_lines() {
        check("a\nb\n\n \nc\n", paragraphs, &["a\nb\n\n \n", "c\n"]);
        check("\n\na\r\n\r\nb", paragraphs, &["\n\na\r\n\r\n", "b"]);
        check("", paragraphs, &[]);
        check("\n \n", paragraphs, &["\n \n"]);
    }

    #[test]
    fn wrapped_lines_stay_together() {
        let text = "The quick brown fox jumps over the lazy dog and goes\nHome again to its den, where Its young ones\nwait.";
        check(text, stretches, &[text]);
    }

    #[test]
    fn one_line_joins_lines_as_the_script_does() {
        assert_eq!(one_line("a  b\r\n  c\n"), "a  b c");
        assert_eq!(one_line("今天，\n天气很好"), "今天，天气很好");
    }

    #[test]
    fn headings_lists_and_turns_stand_alone() {
        check("Introduction\nThe text begins.", stretches, &["Introduction\n", "The text begins."]);
        check("# On\nand on", stretches, &["# On\n", "and on"]);
        check("- one\n- two\n", stretches, &["- one\n", "- two\n"]);
        check("1. one\n2. two", stretches, &["1. one\n", "2. two"]);
        check("Ann: Hello.\nBob: Hi!", stretches, &["Ann: Hello.\n", "Bob: Hi!"]);
    }
}
