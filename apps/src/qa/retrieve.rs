//! Finds the sentences that are most likely to hold the answer to a question.
//!
//! A sentence scores by its own terms and, with less weight, by those of its paragraph: the sentence with the
//! answer often calls the thing `it`. Where an encoder is mounted, the best by terms are ranked again by meaning.

use syscalls::Fault;

use crate::encoder::{Encoder, cosine};
use crate::text::bm25::Index;
use crate::text::passage::Sentence;
use crate::text::terms::Analyser;

/// The weights of parts of words, of the better neighbour, and of the paragraph, relative to the sentence's own
/// terms. Chosen on XQuAD (English, German) and CMRC (Chinese), where the best of each is flat.
const PARTS: f32 = 0.2;
const NEIGHBOUR: f32 = 0.25;
const PARAGRAPH: f32 = 0.5;

/// The share of the meaning in a score, where there is an encoder. With all-MiniLM-L6-v2 it gains 2.5 points on
/// XQuAD's English questions; in languages that the encoder has not learned, it must not cost more than it gains.
const MEANING: f32 = 0.25;

/// The most sentences that are ranked by meaning.
const RERANKED_MAX: usize = 128;

/// One sentence that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Which sentence.
    pub sentence: usize,
    /// How well it fits; larger is better.
    pub score: f32,
    /// The share of the question's weight that its paragraph covers, between 0 and 1.
    pub coverage: f32,
    /// How near the sentence is to the question in meaning, between 0 and 1; 0 where no encoder was asked.
    pub meaning: f32,
}

/// Sentences that can be searched.
pub struct Retriever<'a> {
    sentences: &'a [Sentence<'a>],
    analyser: Analyser,
    by_sentence: Index,
    by_parts: Index,
    by_paragraph: Index,
}

impl<'a> Retriever<'a> {
    /// Indexes the sentences.
    pub fn new(sentences: &'a [Sentence<'a>]) -> Retriever<'a> {
        let sample: String = sentences.iter().take(40).flat_map(|s| [s.text, " "]).collect();
        let analyser = Analyser::for_text(&sample);
        let terms: Vec<Vec<String>> = sentences.iter().map(|s| analyser.terms(s.text)).collect();
        let mut paragraphs: Vec<Vec<String>> = Vec::new();
        for (sentence, terms) in sentences.iter().zip(&terms) {
            paragraphs.resize(sentence.paragraph + 1, Vec::new());
            paragraphs[sentence.paragraph].extend_from_slice(terms);
        }
        let by_parts = Index::new(terms.iter().map(|terms| analyser.parts(terms)));
        let (by_sentence, by_paragraph) = (Index::new(terms), Index::new(paragraphs));
        Retriever { sentences, analyser, by_sentence, by_parts, by_paragraph }
    }

    /// The sentences that share something with the question, best first.
    pub fn search(&self, question: &str) -> Vec<Found> {
        let query = self.analyser.terms(question);
        let mut own = self.by_sentence.scores(&query);
        let parts = self.by_parts.scores(&self.analyser.parts(&query));
        own.iter_mut().zip(parts).for_each(|(own, part)| *own += PARTS * part);
        let paragraphs = self.by_paragraph.scores(&query);
        let coverage = self.by_paragraph.coverage(&query, |term| self.by_sentence.weight(term));
        let score = |at: usize| {
            let paragraph = self.sentences[at].paragraph;
            let neighbours = [at.checked_sub(1), Some(at + 1)].into_iter().flatten();
            let near = neighbours
                .filter(|&n| self.sentences.get(n).is_some_and(|s| s.paragraph == paragraph))
                .map(|n| own[n])
                .fold(0.0, f32::max);
            own[at] + NEIGHBOUR * near + PARAGRAPH * paragraphs[paragraph]
        };
        let mut found: Vec<Found> = (0..self.sentences.len())
            .filter(|&at| paragraphs[self.sentences[at].paragraph] > 0.0)
            .map(|at| Found {
                sentence: at,
                score: score(at),
                coverage: coverage[self.sentences[at].paragraph],
                meaning: 0.0,
            })
            .collect();
        sort(&mut found);
        found
    }

    /// Ranks by meaning as well: all sentences of a short text, which may answer in other words than the question
    /// has, or the best of a long one. Those that are not ranked stay behind.
    ///
    /// # Errors
    ///
    /// Those of the encoder.
    pub fn rerank(&self, question: &str, found: &mut Vec<Found>, encoder: &mut Encoder) -> Result<(), Fault> {
        if self.sentences.len() <= RERANKED_MAX {
            self.add_missing(found);
        }
        let best = found.len().min(RERANKED_MAX);
        let top = found.first().map_or(0.0, |f| f.score).max(f32::MIN_POSITIVE);
        let mut texts = vec![question];
        texts.extend(found[..best].iter().map(|f| self.sentences[f.sentence].text));
        let vectors = encoder.vectors(&texts)?;
        for (found, vector) in found[..best].iter_mut().zip(&vectors[1..]) {
            found.meaning = cosine(&vectors[0], vector).max(0.0);
            found.score = top * ((1.0 - MEANING) * found.score / top + MEANING * found.meaning);
        }
        sort(&mut found[..best]);
        Ok(())
    }

    fn add_missing(&self, found: &mut Vec<Found>) {
        let mut missing = vec![true; self.sentences.len()];
        found.iter().for_each(|f| missing[f.sentence] = false);
        let missing = missing.into_iter().enumerate().filter(|(_, m)| *m);
        found.extend(missing.map(|(sentence, _)| Found {
            sentence,
            score: 0.0,
            coverage: 0.0,
            meaning: 0.0,
        }));
    }
}

/// Best first; among equals, the one that stands first.
fn sort(found: &mut [Found]) {
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.sentence.cmp(&b.sentence)));
}
