//! Ranks texts for a query by BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009): a term
//! weighs more the fewer texts have it, and less each further time that a text repeats it.

use std::collections::HashMap;

/// How soon repetitions stop to count; the usual value.
const K1: f32 = 1.2;

/// How much longer texts are discounted; below the usual 0.75, since sentences differ little in length.
const B: f32 = 0.5;

/// Texts that can be searched.
#[derive(Debug, Default)]
pub struct Index {
    /// For each term, the texts that have it and how often, in their order.
    postings: HashMap<String, Vec<(usize, u32)>>,
    /// Terms of each text.
    lengths: Vec<usize>,
}

impl Index {
    /// Indexes texts by their terms.
    pub fn new(texts: impl IntoIterator<Item = Vec<String>>) -> Index {
        let mut index = Index::default();
        for (text, terms) in texts.into_iter().enumerate() {
            index.lengths.push(terms.len());
            for term in terms {
                let postings = index.postings.entry(term).or_default();
                match postings.last_mut() {
                    Some((last, count)) if *last == text => *count += 1,
                    _ => postings.push((text, 1)),
                }
            }
        }
        index
    }

    /// How well each text fits a query; 0 where it has no term of it.
    pub fn scores(&self, query: &[String]) -> Vec<f32> {
        let mut scores = vec![0.0; self.lengths.len()];
        let mean = self.lengths.iter().sum::<usize>() as f32 / self.lengths.len().max(1) as f32;
        for term in distinct(query) {
            let weight = self.weight(term);
            for &(text, count) in self.postings.get(term).into_iter().flatten() {
                let count = count as f32;
                let length = self.lengths[text] as f32 / mean.max(1.0);
                scores[text] += weight * count * (K1 + 1.0) / (count + K1 * (1.0 - B + B * length));
            }
        }
        scores
    }

    /// The share of a query that each text has, between 0 and 1, where `weigh` says how much a term is of it.
    pub fn coverage(&self, query: &[String], weigh: impl Fn(&str) -> f32) -> Vec<f32> {
        let mut coverage = vec![0.0; self.lengths.len()];
        let terms = distinct(query);
        let whole: f32 = terms.iter().map(|term| weigh(term)).sum();
        for term in terms {
            for &(text, _) in self.postings.get(term).into_iter().flatten() {
                coverage[text] += weigh(term) / whole;
            }
        }
        coverage
    }

    /// Inverse document frequency: how much a term tells. A term that no text has tells the most.
    pub fn weight(&self, term: &str) -> f32 {
        let with = self.postings.get(term).map_or(0, Vec::len) as f32;
        let without = self.lengths.len() as f32 - with;
        (1.0 + (without + 0.5) / (with + 0.5)).ln()
    }
}

/// The terms of a query without repetitions. Sums of floats depend on their order, so it is always the same.
fn distinct(query: &[String]) -> Vec<&str> {
    let mut terms: Vec<&str> = query.iter().map(String::as_str).collect();
    terms.sort_unstable();
    terms.dedup();
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(text: &str) -> Vec<String> {
        text.split(' ').map(Into::into).collect()
    }

    fn index(texts: &[&str]) -> Index {
        Index::new(texts.iter().map(|t| terms(t)))
    }

    #[test]
    fn rare_terms_outweigh_common_ones() {
        let index = index(&["cat sat", "cat ran", "dog ran", "cat hid"]);
        let query = terms("cat dog dog");
        let scores = index.scores(&query);
        assert!(scores[2] > scores[0], "{scores:?}");
        let coverage = index.coverage(&query, |term| index.weight(term));
        assert!(coverage[2] > 0.5 && coverage[0] < 0.5, "{coverage:?}");
        assert!((coverage[2] + coverage[0] - 1.0).abs() < 1e-6, "{coverage:?}");
    }

    #[test]
    fn shorter_text_wins_among_equals() {
        let scores = index(&["cat and so on and on", "cat"]).scores(&terms("cat"));
        assert!(scores[1] > scores[0], "{scores:?}");
    }

    #[test]
    fn text_without_a_term_of_the_query_scores_nothing() {
        let index = index(&["cat", "dog"]);
        assert_eq!(index.scores(&terms("bird")), [0.0; 2]);
        assert_eq!(index.coverage(&terms("bird"), |_| 1.0), [0.0; 2]);
        assert_eq!(Index::new([]).scores(&terms("bird")), [0.0; 0]);
    }

    #[test]
    fn repetitions_count_less_and_less() {
        let scores = index(&["cat x x x", "cat cat x x", "cat cat cat x"]).scores(&terms("cat"));
        let [once, twice, thrice] = scores[..] else { panic!("three texts") };
        assert!(twice > once && thrice > twice && twice - once > thrice - twice, "{scores:?}");
    }
}
