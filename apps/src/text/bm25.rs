//! Ranks texts for a query by BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009): a term
//! weighs more the fewer texts have it, and less each further time that a text repeats it.

use std::collections::{HashMap, HashSet};

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

/// What a query finds.
#[derive(Debug, PartialEq)]
pub struct Scores {
    /// For each text, how well it fits; 0 where it has no term of the query.
    pub scores: Vec<f32>,
    /// For each text, the share of the query's weight that it covers, between 0 and 1.
    pub coverage: Vec<f32>,
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

    /// Scores every text for a query.
    pub fn search(&self, query: &[String]) -> Scores {
        let texts = self.lengths.len();
        let mut found = Scores { scores: vec![0.0; texts], coverage: vec![0.0; texts] };
        let mean = self.lengths.iter().sum::<usize>() as f32 / texts.max(1) as f32;
        let distinct: HashSet<&String> = query.iter().collect();
        let mut terms: Vec<&String> = distinct.into_iter().collect();
        // Sums of floats depend on their order; a set has none.
        terms.sort_unstable();
        let whole: f32 = terms.iter().map(|term| self.weight(term)).sum();
        for term in terms {
            let weight = self.weight(term);
            for &(text, count) in self.postings.get(term).into_iter().flatten() {
                let count = count as f32;
                let length = self.lengths[text] as f32 / mean.max(1.0);
                found.scores[text] += weight * count * (K1 + 1.0) / (count + K1 * (1.0 - B + B * length));
                found.coverage[text] += weight / whole;
            }
        }
        found
    }

    /// Inverse document frequency: how much a term tells. A term that no text has tells the most.
    pub fn weight(&self, term: &str) -> f32 {
        let with = self.postings.get(term).map_or(0, Vec::len) as f32;
        let without = self.lengths.len() as f32 - with;
        (1.0 + (without + 0.5) / (with + 0.5)).ln()
    }
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
        let found = index(&["cat sat", "cat ran", "dog ran", "cat hid"]).search(&terms("cat dog"));
        assert!(found.scores[2] > found.scores[0], "{found:?}");
        assert!(found.coverage[2] > 0.5 && found.coverage[0] < 0.5, "{found:?}");
    }

    #[test]
    fn shorter_text_wins_among_equals() {
        let found = index(&["cat and so on and on", "cat"]).search(&terms("cat"));
        assert!(found.scores[1] > found.scores[0], "{found:?}");
    }

    #[test]
    fn text_without_a_term_of_the_query_scores_nothing() {
        let found = index(&["cat", "dog"]).search(&terms("bird"));
        assert_eq!(found, Scores { scores: vec![0.0; 2], coverage: vec![0.0; 2] });
        assert_eq!(index(&[]).search(&terms("bird")).scores, Vec::<f32>::new());
    }

    #[test]
    fn repetitions_count_less_and_less() {
        let found = index(&["cat x x x", "cat cat x x", "cat cat cat x"]).search(&terms("cat"));
        let [once, twice, thrice] = found.scores[..] else { panic!("three texts") };
        assert!(twice > once && thrice > twice && twice - once > thrice - twice, "{found:?}");
    }
}
