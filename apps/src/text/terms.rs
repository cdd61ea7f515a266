//! What a text is about, as terms to search by: word stems without function words, and pairs of characters in
//! scripts without spaces.

use std::collections::HashSet;

use rust_stemmers::{Algorithm, Stemmer};
use unicode_segmentation::UnicodeSegmentation;

use super::language::Language;
use super::script::{is_hangul, joins_words};
use super::stopwords;

/// Letters of a part of a word. Three are too common and five find fewer compounds, by XQuAD's German questions.
const PART_CHARS: usize = 4;

/// Turns texts of one language into terms.
pub struct Analyser {
    stemmer: Option<Stemmer>,
    stopwords: HashSet<&'static str>,
}

impl Analyser {
    /// For texts like this one.
    pub fn for_text(sample: &str) -> Analyser {
        Analyser::new(Language::guess(sample))
    }

    /// For texts of a language; of any language if it is not known.
    pub fn new(language: Option<Language>) -> Analyser {
        Analyser {
            stemmer: language.and_then(|l| algorithm(l.code())).map(Stemmer::create),
            stopwords: stopwords::of(language).iter().copied().collect(),
        }
    }

    /// The terms of a text, in order, with repetitions.
    pub fn terms(&self, text: &str) -> Vec<String> {
        let mut terms = Vec::new();
        let mut run: Vec<char> = Vec::new();
        let mut run_end = 0;
        for (at, word) in text.unicode_word_indices() {
            let paired = word.chars().all(|c| joins_words(c) || is_hangul(c));
            if !paired || at != run_end {
                self.push_pairs(&mut run, &mut terms);
            }
            if paired {
                run.extend(word.chars());
                run_end = at + word.len();
            } else {
                terms.extend(self.term(word));
            }
        }
        self.push_pairs(&mut run, &mut terms);
        terms
    }

    /// Parts of the terms, by which words are alike that are not the same: four letters of a longer word, since
    /// German and its relatives write compounds, and single characters in scripts without spaces.
    pub fn parts(&self, terms: &[String]) -> Vec<String> {
        let mut parts = Vec::new();
        for term in terms {
            let chars: Vec<char> = term.chars().collect();
            let length =
                if chars.first().is_some_and(|&c| joins_words(c) || is_hangul(c)) { 1 } else { PART_CHARS };
            if chars.len() > length {
                parts.extend(chars.windows(length).map(|part| part.iter().collect::<String>()));
            }
        }
        parts
    }

    /// A word as a term; nothing for a function word.
    fn term(&self, word: &str) -> Option<String> {
        let lower = word.to_lowercase().replace('’', "'");
        let lower = lower.strip_suffix("'s").unwrap_or(&lower);
        if self.stopwords.contains(lower) {
            return None;
        }
        if lower.starts_with(|c: char| c.is_ascii_digit()) {
            return Some(lower.replace([',', '\''], ""));
        }
        Some(match &self.stemmer {
            Some(stemmer) => stemmer.stem(lower).into_owned(),
            None => lower.to_owned(),
        })
    }

    /// The pairs of neighbours in a run of characters; a lone one by itself.
    fn push_pairs(&self, run: &mut Vec<char>, terms: &mut Vec<String>) {
        match run.as_slice() {
            [] => {}
            [one] => terms.push(one.to_string()),
            several => {
                let pairs = several.windows(2).map(|pair| pair.iter().collect::<String>());
                terms.extend(pairs.filter(|pair| !self.stopwords.contains(pair.as_str())));
            }
        }
        run.clear();
    }
}

fn algorithm(code: &str) -> Option<Algorithm> {
    Some(match code {
        "ar" => Algorithm::Arabic,
        "da" => Algorithm::Danish,
        "nl" => Algorithm::Dutch,
        "en" => Algorithm::English,
        "fi" => Algorithm::Finnish,
        "fr" => Algorithm::French,
        "de" => Algorithm::German,
        "el" => Algorithm::Greek,
        "hu" => Algorithm::Hungarian,
        "it" => Algorithm::Italian,
        "no" => Algorithm::Norwegian,
        "pt" => Algorithm::Portuguese,
        "ro" => Algorithm::Romanian,
        "ru" => Algorithm::Russian,
        "es" => Algorithm::Spanish,
        "sv" => Algorithm::Swedish,
        "ta" => Algorithm::Tamil,
        "tr" => Algorithm::Turkish,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(language: &str, text: &str, expect: &[&str]) {
        let analyser = Analyser::new(Language::named(language).ok());
        assert_eq!(analyser.terms(text), expect);
    }

    #[test]
    fn words_become_stems_without_function_words() {
        check("en", "Who was running the Empire's 1,000 ships?", &["run", "empir", "1000", "ship"]);
        check("de", "Wann wurden die Häuser gebaut?", &["haus", "gebaut"]);
    }

    #[test]
    fn parts_are_letters_of_long_words_and_single_characters() {
        let analyser = Analyser::new(None);
        let parts = |terms: &[&str]| analyser.parts(&terms.iter().map(|t| (*t).into()).collect::<Vec<_>>());
        assert_eq!(parts(&["bahnhof", "bahn"]), ["bahn", "ahnh", "hnho", "nhof"]);
        assert_eq!(parts(&["北京"]), ["北", "京"]);
    }

    #[test]
    fn scripts_without_spaces_become_pairs() {
        check("zh", "北京大学。好", &["北京", "京大", "大学", "好"]);
        check("zh", "用GPT写作", &["用", "gpt", "写作"]);
    }
}
