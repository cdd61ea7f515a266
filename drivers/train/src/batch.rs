//! What a model is given in one pass: rows of token ids of one length, with padding, and what should come out.

use crate::{Error, Result};

/// A target that counts for nothing, as in PyTorch and Hugging Face.
pub const IGNORE: i32 = -100;

/// Rows of token ids of one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    /// Tokens in each row.
    pub length: usize,
    /// Ids, row after row.
    pub tokens: Vec<u32>,
    /// 1 for a token and 0 for padding, row after row; `None` where nothing is padding.
    pub mask: Option<Vec<u8>>,
    /// The number of the document that each token belongs to, where several are packed into a row: tokens see only
    /// those of the same number. `None` where a row is one document.
    pub segments: Option<Vec<u32>>,
    /// The position of each token; `None` for 0, 1, 2, … in each row. Rows of packed documents begin again at 0.
    pub positions: Option<Vec<u32>>,
    /// BERT's sentence A (0) or B (1); `None` for 0 everywhere.
    pub types: Option<Vec<u32>>,
}

impl Side {
    /// Rows of `length` tokens without padding.
    pub fn new(tokens: Vec<u32>, length: usize) -> Self {
        Side { length, tokens, ..Side::default() }
    }

    /// Rows as long as the longest, with padding behind the others.
    pub fn of_rows(rows: &[Vec<u32>]) -> Self {
        let length = rows.iter().map(Vec::len).max().unwrap_or_default();
        let behind = |row: &Vec<u32>| std::iter::repeat_n(0, length - row.len());
        let tokens = rows.iter().flat_map(|row| row.iter().copied().chain(behind(row))).collect();
        let real = |row: &Vec<u32>| (0..length).map(|at| u8::from(at < row.len())).collect::<Vec<_>>();
        let short = rows.iter().any(|row| row.len() < length);
        Side { mask: short.then(|| rows.iter().flat_map(real).collect()), ..Side::new(tokens, length) }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.tokens.len().checked_div(self.length).unwrap_or_default()
    }

    fn part(&self, rows: &std::ops::Range<usize>) -> Side {
        fn cut<T: Clone>(numbers: &[T], places: &std::ops::Range<usize>) -> Vec<T> {
            numbers[places.clone()].to_vec()
        }
        let places = &(rows.start * self.length..rows.end * self.length);
        Side {
            length: self.length,
            tokens: cut(&self.tokens, places),
            mask: self.mask.as_ref().map(|mask| cut(mask, places)),
            segments: self.segments.as_ref().map(|segments| cut(segments, places)),
            positions: self.positions.as_ref().map(|positions| cut(positions, places)),
            types: self.types.as_ref().map(|types| cut(types, places)),
        }
    }

    fn check(&self, side: &str, vocabulary: usize) -> Result<()> {
        let tokens = self.tokens.len();
        if self.length == 0 || tokens == 0 || !tokens.is_multiple_of(self.length) {
            return Err(Error::Batch(format!("{side}: {tokens} tokens are no rows of {}", self.length)));
        }
        if let Some(&id) = self.tokens.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(Error::Batch(format!(
                "{side}: token id {id} is outside of the model's vocabulary of {vocabulary}; was the text tokenised \
                 with the model's own tokeniser?"
            )));
        }
        let lengths = [
            ("mask", self.mask.as_ref().map(Vec::len)),
            ("segments", self.segments.as_ref().map(Vec::len)),
            ("positions", self.positions.as_ref().map(Vec::len)),
            ("types", self.types.as_ref().map(Vec::len)),
        ];
        match lengths.into_iter().find(|(_, length)| length.is_some_and(|n| n != tokens)) {
            Some((name, length)) => Err(Error::Batch(format!(
                "{side}: {name} has {} entries for {tokens} tokens",
                length.unwrap_or_default()
            ))),
            None => Ok(()),
        }
    }
}

/// The rows of one pass and their targets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// What the model reads: for an encoder-decoder the decoder's side, which begins with its start token.
    pub input: Side,
    /// What the encoder of an encoder-decoder reads.
    pub source: Option<Side>,
    /// What should come out, or [`IGNORE`]. Language models, masked ones and classifiers of tokens: the class of
    /// each place of `input` (the *next* token is already shifted into its place). Classifiers of texts: one class a
    /// row. Extractive answers: first and last place of the answer, two a row. Sentence embeddings: one a row, where the
    /// first of each pair counts.
    pub targets: Vec<i32>,
    /// What should come out where it is no class, row after row, or NaN where it does not count. Numbers of texts: one a
    /// row. Sets of classes: 1 or 0 for each class. Nearness of two texts: one a row, where the first of each pair counts.
    pub values: Vec<f32>,
    /// Whether each two rows belong together.
    pub paired: bool,
    /// Where these rows stand among those of all data ranks, and how many there are, if they are compared with them.
    pub among: Option<(usize, usize)>,
    /// A number for each row that is its own in the whole data, whichever rank reads it: dropout depends on it.
    /// Empty for 0, 1, 2, …
    pub samples: Vec<u64>,
}

impl Batch {
    /// A batch for a language model: `tokens` and for each the one that comes next, rows of `length`.
    pub fn next_token(tokens: Vec<u32>, targets: Vec<i32>, length: usize) -> Self {
        Batch { input: Side::new(tokens, length), targets, ..Batch::default() }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.input.rows()
    }

    /// How many targets count.
    pub fn counted(&self) -> usize {
        let values = self.values.iter().filter(|value| !value.is_nan()).count();
        self.targets.iter().filter(|&&t| t != IGNORE).count() + values
    }

    /// What the targets that count weigh together, where each class has a weight.
    pub fn weight(&self, classes: Option<&[f64]>) -> f64 {
        match classes {
            None => self.counted() as f64,
            Some(weights) => {
                let known =
                    self.targets.iter().filter_map(|target| weights.get(usize::try_from(*target).ok()?));
                known.sum()
            }
        }
    }

    /// How many rows belong together.
    pub fn together(&self) -> usize {
        if self.paired { 2 } else { 1 }
    }

    /// Whether each row's loss depends on all others of the batch.
    pub fn compares(&self) -> bool {
        self.paired && self.values.is_empty()
    }

    /// The number of row `row` in the whole data.
    pub fn sample(&self, row: usize) -> u64 {
        self.samples.get(row).copied().unwrap_or(row as u64)
    }

    /// Some of the rows, as they stand here: padding stays, and samples keep their numbers.
    pub fn part(&self, rows: std::ops::Range<usize>) -> Batch {
        let [each, values] = [self.targets.len(), self.values.len()].map(|count| count / self.rows().max(1));
        Batch {
            input: self.input.part(&rows),
            source: self.source.as_ref().map(|source| source.part(&rows)),
            targets: self.targets[rows.start * each..rows.end * each].to_vec(),
            values: self.values[rows.start * values..rows.end * values].to_vec(),
            paired: self.paired,
            among: self.among,
            samples: rows.map(|row| self.sample(row)).collect(),
        }
    }

    /// Whether a model with this vocabulary and these limits can compute it.
    ///
    /// # Errors
    /// [`Error::Batch`] with the first thing that does not fit.
    pub fn check(&self, vocabulary: usize, positions: usize) -> Result<()> {
        self.input.check("input", vocabulary)?;
        if self.input.length > positions {
            let length = self.input.length;
            return Err(Error::Batch(format!(
                "rows of {length} tokens are longer than the model's {positions} positions; use shorter blocks"
            )));
        }
        if let Some(source) = &self.source {
            source.check("source", vocabulary)?;
            if source.rows() != self.rows() {
                let (source, input) = (source.rows(), self.rows());
                return Err(Error::Batch(format!(
                    "{source} rows for the encoder and {input} for the decoder"
                )));
            }
            if source.length > positions {
                let length = source.length;
                return Err(Error::Batch(format!(
                    "source rows of {length} tokens are longer than the model's {positions} positions"
                )));
            }
        }
        if !self.samples.is_empty() && self.samples.len() != self.rows() {
            let (samples, rows) = (self.samples.len(), self.rows());
            return Err(Error::Batch(format!("{samples} sample numbers for {rows} rows")));
        }
        Ok(())
    }
}
