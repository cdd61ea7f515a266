//! What a character tells about the writing that it belongs to.

/// Han characters, kana, and the marks that stand among them like letters.
pub fn is_han_or_kana(c: char) -> bool {
    matches!(c,
        '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}'
        | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9d}')
}

/// Scripts whose words follow each other without a space.
pub fn joins_words(c: char) -> bool {
    is_han_or_kana(c) || is_southeast_asian(c)
}

/// Hangul syllables and letters.
pub fn is_hangul(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{ac00}'..='\u{d7af}')
}

/// Thai, Lao, Khmer and Burmese letters with their vowel signs. They write spaces between phrases only.
pub fn is_southeast_asian(c: char) -> bool {
    matches!(c,
        '\u{0e01}'..='\u{0e4e}' | '\u{0e81}'..='\u{0ecd}' | '\u{1000}'..='\u{1049}' | '\u{1780}'..='\u{17d3}')
}

/// Closing quotes and brackets, which stay with the sentence that they close.
pub fn closes(c: char) -> bool {
    matches!(
        c,
        '"' | '\''
            | ')'
            | ']'
            | '}'
            | '»'
            | '«'
            | '’'
            | '”'
            | '“'
            | '›'
            | '」'
            | '』'
            | '）'
            | '】'
            | '》'
            | '〉'
            | '］'
            | '〕'
            | '｝'
            | '＂'
    )
}

/// Counts words as people count them: Han characters and kana one by one, everything else by word.
pub fn count_words(text: &str) -> usize {
    use unicode_segmentation::UnicodeSegmentation;
    text.unicode_words()
        .map(|word| match word.chars().next() {
            Some(c) if is_han_or_kana(c) => word.chars().filter(|&c| is_han_or_kana(c)).count(),
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_by_the_script() {
        assert_eq!(count_words("It's 3.5 km, isn't it?"), 5);
        assert_eq!(count_words("今天天气很好。"), 6);
        assert_eq!(count_words("コーヒーを飲む"), 7);
        assert_eq!(count_words("GPT-4 是模型"), 5);
        assert_eq!(count_words(" … "), 0);
    }
}
