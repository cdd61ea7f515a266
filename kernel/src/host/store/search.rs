//! Finding values by words, ranked by BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009).
//!
//! Nothing is indexed: a search reads the store once, which is bounded by what a user may keep. It knows no language:
//! words are runs of letters and digits in lower case, and in scripts without spaces each character is one. Stems and
//! meaning are left to programs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// How soon repetitions stop to count, and how much longer values are discounted; the usual values.
const K1: f32 = 1.2;
const B: f32 = 0.75;

/// From here on scripts write without spaces: the first of the CJK radicals, up to the last of the unified ideographs.
const UNSPACED: std::ops::RangeInclusive<char> = '\u{2e80}'..='\u{9fff}';

/// A search under way.
pub(super) struct Search {
    /// The words that are looked for, numbered.
    words: BTreeMap<String, u32>,
    /// How many values have each of them.
    with: Vec<u32>,
    /// Values that have some.
    hits: Vec<Hit>,
    values: u32,
    length: u64,
}

/// A value that has words which are looked for.
struct Hit {
    key: String,
    /// Its words in all.
    length: u32,
    /// How often it has each of those. Nothing of the others, since a text may have a thousand words and a store a
    /// hundred thousand values.
    row: Vec<(u32, u32)>,
}

impl Search {
    /// Looks for the words of a text.
    pub fn new(text: &str) -> Search {
        let mut words = BTreeSet::new();
        each_word(text, &mut |word| {
            words.insert(word.to_owned());
        });
        let with = vec![0; words.len()];
        Search { words: words.into_iter().zip(0..).collect(), with, hits: Vec::new(), values: 0, length: 0 }
    }

    /// Looks at a value.
    pub fn see(&mut self, key: &str, value: &Value) {
        let (mut length, mut counts) = (0, BTreeMap::<u32, u32>::new());
        each_string(value, &mut |text| {
            each_word(text, &mut |word| {
                length += 1;
                if let Some(number) = self.words.get(word) {
                    *counts.entry(*number).or_default() += 1;
                }
            });
        });
        self.values += 1;
        self.length += u64::from(length);
        if counts.is_empty() {
            return;
        }
        counts.keys().for_each(|number| self.with[*number as usize] += 1);
        self.hits.push(Hit { key: key.into(), length, row: counts.into_iter().collect() });
    }

    /// The best values with their scores, those of the same score in the order of their keys.
    pub fn best(self, count: usize) -> Vec<(String, f32)> {
        let mean = self.length as f32 / self.values.max(1) as f32;
        let weights: Vec<f32> = self.with.iter().map(|with| weight(*with, self.values)).collect();
        let score = |length: u32, row: &[(u32, u32)]| -> f32 {
            let norm = K1 * (1.0 - B + B * length as f32 / mean.max(1.0));
            let parts = row
                .iter()
                .map(|(number, n)| weights[*number as usize] * *n as f32 * (K1 + 1.0) / (*n as f32 + norm));
            parts.sum()
        };
        let mut found: Vec<(String, f32)> =
            self.hits.into_iter().map(|hit| (hit.key, score(hit.length, &hit.row))).collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        found.truncate(count);
        found
    }
}

/// How much a word tells: the more the fewer values have it.
fn weight(with: u32, values: u32) -> f32 {
    let (with, without) = (with as f32, (values - with) as f32);
    (1.0 + (without + 0.5) / (with + 0.5)).ln()
}

/// The strings in a value, keys of objects left out.
fn each_string(value: &Value, each: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.iter().for_each(|item| each_string(item, each)),
        Value::Object(fields) => fields.values().for_each(|field| each_string(field, each)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn each_word(text: &str, each: &mut impl FnMut(&str)) {
    let mut word = String::new();
    for c in text.chars() {
        let alone = UNSPACED.contains(&c);
        if (alone || !c.is_alphanumeric()) && !word.is_empty() {
            each(&word);
            word.clear();
        }
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
        if alone && !word.is_empty() {
            each(&word);
            word.clear();
        }
    }
    if !word.is_empty() {
        each(&word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn search(text: &str, values: &[Value]) -> Vec<String> {
        let mut search = Search::new(text);
        values.iter().enumerate().for_each(|(n, value)| search.see(&n.to_string(), value));
        search.best(10).into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn rare_words_outweigh_common_ones_and_short_values_long_ones() {
        let values = [json!("the cat sat"), json!("the cat, and so on and on"), json!("the dog"), json!(7)];
        assert_eq!(search("CAT", &values), ["0", "1"]);
        assert_eq!(search("the dog", &values)[0], "2");
        assert_eq!(search("bird", &values), [""; 0]);
    }

    #[test]
    fn value_keeps_nothing_of_the_words_that_it_has_not() {
        let words: Vec<String> = (0..1000).map(|n| format!("w{n}")).collect();
        let mut search = Search::new(&words.join(" "));
        search.see("none", &json!("others"));
        search.see("one", &json!("w7, others, and w7"));
        let kept: Vec<usize> = search.hits.iter().map(|hit| hit.row.len()).collect();
        assert_eq!(kept, [1]);
        assert_eq!(search.best(10).len(), 1);
    }

    #[test]
    fn strings_inside_values_are_found_in_any_script() {
        let values = [json!({"title": "Ärger", "tags": ["北京大学", {"x": "y"}]}), json!({"title": "x"})];
        assert_eq!(search("ärger", &values), ["0"]);
        assert_eq!(search("北京", &values), ["0"]);
        assert_eq!(search("title", &values), [""; 0], "names of fields are no text");
    }
}
