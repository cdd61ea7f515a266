//! Chooses the sentences that together say most of what a text says.
//!
//! A sentence counts by how near it is to the middle of the whole text, and by how early it stands: most writers
//! say what matters first. Each further choice avoids what is said already (maximal marginal relevance, Carbonell
//! and Goldstein 1998). The choice is printed in the order of the text, each sentence as it stands.

use std::collections::HashMap;

use crate::encoder::cosine;
use crate::text::passage::Sentence;
use crate::text::script::count_words;
use crate::text::terms::Analyser;

/// The weight of an early place, relative to nearness to the middle; half of it is gone after so many sentences.
/// Chosen on articles of CNN and the Daily Mail with their highlights and on Multi-News: more makes a copy of the
/// first sentences.
const EARLY: f32 = 0.15;
const EARLY_HALVES_AFTER: f32 = 4.0;

/// How much a likeness to what is chosen already counts against a sentence.
const REPEATED: f32 = 0.3;

/// Sentences of fewer words are headings, bylines and interjections.
const WORDS_MIN: usize = 5;

/// How alike sentences are.
pub trait Likeness {
    /// Of a sentence and the whole text, between 0 and 1.
    fn to_whole(&self, at: usize) -> f32;
    /// Of two sentences, between 0 and 1.
    fn between(&self, a: usize, b: usize) -> f32;
}

/// Chooses sentences of at most `words_max` words together, at least one, in the order of the text.
pub fn choose(sentences: &[Sentence], likeness: &impl Likeness, words_max: usize) -> Vec<usize> {
    let words: Vec<usize> = sentences.iter().map(|s| count_words(s.text)).collect();
    let merit = merits(sentences, &words, likeness);
    // For each sentence, the most that one chosen so far says of it.
    let mut said = vec![0.0f32; sentences.len()];
    let mut open: Vec<usize> = (0..sentences.len()).collect();
    let (mut chosen, mut room) = (Vec::new(), words_max);
    loop {
        open.retain(|&at| words[at] <= room || chosen.is_empty());
        let value = |at: usize| merit[at] - REPEATED * said[at];
        // The first one is the best that has room, or the shortest where none has.
        let fits = |at: &&usize| words[**at] <= room;
        let best = open.iter().filter(fits).max_by(|a, b| value(**a).total_cmp(&value(**b)).then(b.cmp(a)));
        let best = best.or_else(|| open.iter().min_by_key(|at| words[**at]));
        let Some(&best) = best else { break };
        chosen.push(best);
        room = room.saturating_sub(words[best]);
        open.retain(|&at| at != best);
        for &at in &open {
            said[at] = said[at].max(likeness.between(at, best));
        }
    }
    chosen.sort_unstable();
    chosen
}

fn merits(sentences: &[Sentence], words: &[usize], likeness: &impl Likeness) -> Vec<f32> {
    let mut place = 0.0;
    let mut document = 0;
    let mut merits = Vec::with_capacity(sentences.len());
    for (at, sentence) in sentences.iter().enumerate() {
        if sentence.document != document {
            (place, document) = (0.0, sentence.document);
        }
        let short = words[at] < WORDS_MIN;
        let early = EARLY * EARLY_HALVES_AFTER / (EARLY_HALVES_AFTER + place);
        merits.push(if short { 0.0 } else { likeness.to_whole(at) + early });
        if !short {
            place += 1.0;
        }
    }
    merits
}

/// Likeness by terms: TF-IDF vectors and their cosines.
pub struct ByTerms {
    /// Weights by term, sorted by term, of length 1.
    vectors: Vec<Vec<(usize, f32)>>,
    whole: Vec<f32>,
}

impl ByTerms {
    /// Measures sentences.
    pub fn new(sentences: &[Sentence]) -> ByTerms {
        let sample: String = sentences.iter().take(40).flat_map(|s| [s.text, " "]).collect();
        let analyser = Analyser::for_text(&sample);
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut counted: Vec<Vec<(usize, f32)>> = Vec::new();
        for sentence in sentences {
            let mut ids: Vec<usize> = Vec::new();
            for term in analyser.terms(sentence.text) {
                let next = numbers.len();
                ids.push(*numbers.entry(term).or_insert(next));
            }
            ids.sort_unstable();
            counted.push(ids.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as f32)).collect());
        }
        let mut with = vec![0.0f32; numbers.len()];
        counted.iter().flatten().for_each(|&(id, _)| with[id] += 1.0);
        let all = sentences.len() as f32;
        let weigh = |(id, count): (usize, f32)| (id, (1.0 + count.ln()) * (1.0 + all / with[id]).ln());
        let vectors: Vec<_> =
            counted.into_iter().map(|c| normalised(c.into_iter().map(weigh).collect())).collect();
        let whole = centre(&vectors, numbers.len());
        ByTerms { vectors, whole }
    }
}

fn normalised(mut vector: Vec<(usize, f32)>) -> Vec<(usize, f32)> {
    let length = vector.iter().map(|(_, w)| w * w).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|(_, w)| *w /= length);
    }
    vector
}

/// The direction of the sum of all sentences.
fn centre(vectors: &[Vec<(usize, f32)>], terms: usize) -> Vec<f32> {
    let mut sum = vec![0.0f32; terms];
    vectors.iter().flatten().for_each(|&(id, w)| sum[id] += w);
    let length = sum.iter().map(|w| w * w).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    sum.iter_mut().for_each(|w| *w /= length);
    sum
}

impl Likeness for ByTerms {
    fn to_whole(&self, at: usize) -> f32 {
        self.vectors[at].iter().map(|&(id, w)| w * self.whole[id]).sum()
    }

    fn between(&self, a: usize, b: usize) -> f32 {
        let (mut a, mut b) = (self.vectors[a].as_slice(), self.vectors[b].as_slice());
        let mut sum = 0.0;
        while let ([(x, wx), rest_a @ ..], [(y, wy), rest_b @ ..]) = (a, b) {
            if x == y {
                sum += wx * wy;
            }
            (a, b) = (if x <= y { rest_a } else { a }, if y <= x { rest_b } else { b });
        }
        sum
    }
}

/// Likeness by meaning: the vectors of an encoder.
pub struct ByMeaning {
    vectors: Vec<Vec<f32>>,
    whole: Vec<f32>,
}

impl ByMeaning {
    /// Takes the vectors of the sentences, of length 1 each.
    pub fn new(vectors: Vec<Vec<f32>>) -> ByMeaning {
        let mut whole = vec![0.0; vectors.first().map_or(0, Vec::len)];
        vectors.iter().for_each(|v| whole.iter_mut().zip(v).for_each(|(sum, x)| *sum += x));
        let length = cosine(&whole, &whole).sqrt().max(f32::MIN_POSITIVE);
        whole.iter_mut().for_each(|x| *x /= length);
        ByMeaning { vectors, whole }
    }
}

impl Likeness for ByMeaning {
    fn to_whole(&self, at: usize) -> f32 {
        cosine(&self.vectors[at], &self.whole).max(0.0)
    }

    fn between(&self, a: usize, b: usize) -> f32 {
        cosine(&self.vectors[a], &self.vectors[b]).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::document::Document;
    use crate::text::passage::collect;

    const TEXT: &str = "The city opened a new bridge over the river on Monday. The bridge cost ten million euros. \
        Ten million euros is what the bridge cost, the city said. Birds sang in the old trees nearby. \
        The mayor called the new bridge over the river a gift to the city.";

    fn chosen(text: &str, words: usize) -> Vec<String> {
        let documents = [Document { name: "a".into(), text: text.into() }];
        let sentences = collect(&documents);
        let chosen = choose(&sentences, &ByTerms::new(&sentences), words);
        chosen.into_iter().map(|at| sentences[at].text.to_owned()).collect()
    }

    #[test]
    fn sentences_are_central_and_in_order() {
        let found = chosen(TEXT, 30);
        assert_eq!(
            found.first().map(String::as_str),
            Some("The city opened a new bridge over the river on Monday.")
        );
        assert!(!found.iter().any(|s| s.contains("Birds")), "{found:?}");
        let words: usize = found.iter().map(|s| count_words(s)).sum();
        assert!(words <= 30, "{words}: {found:?}");
    }

    #[test]
    fn at_least_one_sentence_is_chosen() {
        assert_eq!(chosen(TEXT, 1), ["The bridge cost ten million euros."]);
        assert_eq!(chosen("One sentence alone stands here.", 100), ["One sentence alone stands here."]);
    }

    #[test]
    fn chinese_counts_characters() {
        let text = "北京是中国的首都。北京有很多大学。上海是一个港口城市。北京的大学很有名。";
        let found = chosen(text, 17);
        let characters: usize = found.iter().map(|s| count_words(s)).sum();
        assert!(!found.is_empty() && characters <= 17, "{found:?}");
    }

    #[test]
    fn likeness_of_a_sentence_to_itself_is_one() {
        let documents = [Document { name: "a".into(), text: TEXT.into() }];
        let by_terms = ByTerms::new(&collect(&documents));
        assert!((by_terms.between(0, 0) - 1.0).abs() < 1e-5);
        assert!(by_terms.between(1, 2) > by_terms.between(1, 3));
        let by_meaning = ByMeaning::new(vec![vec![1.0, 0.0], vec![0.0, 1.0]]);
        assert_eq!(by_meaning.between(0, 1), 0.0);
        assert!((by_meaning.to_whole(0) - by_meaning.to_whole(1)).abs() < 1e-6);
    }
}
