//! Examples: what a model learns from at one time, cut out of a file of tokens.
//!
//! Which tokens example number *n* of an epoch has depends on the seed, the epoch and *n* alone. So a run that begins
//! again at a position meets the same examples as one that never stopped.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::DataError;
use super::labels::Targets;
use super::order::{Order, Permutation, draw};
use super::tokens::TokenFile;
use crate::token::hex;

/// What is to be learned from the tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Each next token of a block.
    NextToken { length: usize },
    /// Tokens of a block that are hidden, BERT's way.
    Masked { length: usize, share: f64 },
    /// The second half of a block from its first, for an encoder-decoder on plain text.
    Continue { length: usize },
    /// A text from its translation; longer ones are cut.
    Translate { length: usize },
    /// The class of a text; longer ones are cut.
    Classify { length: usize },
    /// All classes of a text, of which it may have any number; longer ones are cut.
    Label { length: usize },
    /// A number that a text has; longer ones are cut.
    Rate { length: usize },
    /// The class of each word; longer texts are cut.
    Tag { length: usize },
    /// Where a text answers a question; a long text comes in parts.
    Answer { length: usize },
    /// Vectors of texts, of which two are as near to each other as a number says.
    Compare { length: usize },
    /// Vectors of texts, of which two that belong together are nearer to each other than to others of their batch.
    Similar { length: usize },
}

impl Task {
    /// Tokens that an example of a stream takes, and by how many its targets stand behind.
    fn block(&self) -> Option<(u64, u64)> {
        match self {
            Task::NextToken { length } => Some((*length as u64, 1)),
            // A beginning and an end are put around the block.
            Task::Masked { length, .. } => Some((*length as u64 - 2, 0)),
            // Both halves together, without the ends that are put behind them.
            Task::Continue { length } => Some((2 * (*length as u64 - 1), 0)),
            Task::Translate { .. }
            | Task::Classify { .. }
            | Task::Label { .. }
            | Task::Rate { .. }
            | Task::Tag { .. }
            | Task::Answer { .. }
            | Task::Compare { .. }
            | Task::Similar { .. } => None,
        }
    }

    /// What the labels of its records are.
    pub fn targets(&self) -> Targets {
        match self {
            Task::Label { .. } => Targets::Classes,
            Task::Rate { .. } => Targets::Number,
            Task::Compare { .. } => Targets::Nearness,
            _ => Targets::Class,
        }
    }

    /// Whether each two rows belong together.
    pub fn pairs(&self) -> bool {
        matches!(self, Task::Similar { .. } | Task::Compare { .. })
    }

    /// The longest row that comes of it.
    pub fn length(&self) -> usize {
        match self {
            Task::NextToken { length }
            | Task::Masked { length, .. }
            | Task::Continue { length }
            | Task::Translate { length }
            | Task::Classify { length }
            | Task::Label { length }
            | Task::Rate { length }
            | Task::Tag { length }
            | Task::Answer { length }
            | Task::Compare { length }
            | Task::Similar { length } => *length,
        }
    }
}

/// Where training stands in its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Times that all examples have been met.
    pub epoch: u64,
    /// Examples of the epoch that have been met.
    pub place: u64,
    /// Examples that have been met in all.
    pub seen: u64,
}

/// A part of a file of tokens, as examples of a task.
#[derive(Clone, Debug)]
pub struct Examples {
    file: Arc<TokenFile>,
    task: Task,
    order: Order,
    seed: u64,
    /// The tokens, for tasks on streams.
    tokens: Range<u64>,
    /// The records, for others.
    records: Range<u64>,
}

/// Where an example stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A block of tokens.
    Block(Range<u64>),
    /// A record, or the first of two that belong together.
    Record(u64),
}

impl Examples {
    /// All of a file.
    ///
    /// # Errors
    ///
    /// There is not enough for one example.
    pub fn new(file: Arc<TokenFile>, task: Task, order: Order, seed: u64) -> Result<Examples, DataError> {
        let (tokens, records) = (0..file.tokens(), 0..file.records());
        Examples { file, task, order, seed, tokens, records }.checked("the text")
    }

    /// Cuts the last share off, for validation: tokens of a stream, records otherwise.
    ///
    /// # Errors
    ///
    /// A part has not enough for one example.
    pub fn split(self, share: f64) -> Result<(Examples, Examples), DataError> {
        let cut = |range: &Range<u64>, step: u64| {
            let units = (range.end - range.start) / step;
            range.start + ((units as f64 * (1.0 - share)) as u64).min(units) * step
        };
        let token = cut(&self.tokens, 1);
        let record = cut(&self.records, self.records_each());
        let mut train = self.clone();
        let mut rest = self;
        (train.tokens.end, rest.tokens.start) = (token, token);
        (train.records.end, rest.records.start) = (record, record);
        rest.order = Order::Sequential;
        Ok((train.checked("the part for training")?, rest.checked("the part for validation")?))
    }

    fn checked(self, what: &str) -> Result<Examples, DataError> {
        if let Some((block, behind)) = self.task.block() {
            let found = self.tokens.end - self.tokens.start;
            if found < block + behind {
                return Err(DataError::TooShort { what: what.into(), found, needed: block + behind });
            }
        } else if self.records.end - self.records.start < self.records_each() {
            return Err(DataError::Unfit(format!("{what} has no record; give more")));
        }
        Ok(self)
    }

    fn records_each(&self) -> u64 {
        match self.task {
            Task::Translate { .. }
            | Task::Label { .. }
            | Task::Tag { .. }
            | Task::Answer { .. }
            | Task::Compare { .. }
            | Task::Similar { .. } => 2,
            _ => 1,
        }
    }

    /// The file.
    pub fn file(&self) -> &TokenFile {
        &self.file
    }

    /// A digest of what the examples are cut out of, and how: where two have the same, a position means the same.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(&self.file.about().content);
        let order = match self.order {
            Order::Shuffled => 0,
            Order::Sequential => 1,
            Order::Random => 2,
        };
        let (block, behind) = self.task.block().unwrap_or((0, 0));
        let (tokens, records) = (&self.tokens, &self.records);
        for number in [tokens.start, tokens.end, records.start, records.end, order, block, behind] {
            hash.update(number.to_le_bytes());
        }
        hex(&hash.finalize()[..16])
    }

    /// The task.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The seed of everything that is drawn.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Tokens in all, of a stream or of the records.
    pub fn tokens(&self) -> u64 {
        match self.task.block() {
            Some(_) => self.tokens.end - self.tokens.start,
            None => self.file.record(self.records.end - 1).end - self.file.record(self.records.start).start,
        }
    }

    /// Examples of an epoch.
    pub fn count(&self, epoch: u64) -> u64 {
        match self.task.block() {
            Some((block, behind)) => {
                (self.tokens.end - self.tokens.start - behind - self.shift(epoch)) / block
            }
            None => (self.records.end - self.records.start) / self.records_each(),
        }
    }

    /// Blocks begin elsewhere in each epoch, so that no token always stands at the end of one.
    fn shift(&self, epoch: u64) -> u64 {
        match (self.task.block(), self.order) {
            (Some((block, behind)), Order::Shuffled) => {
                let spare = self.tokens.end - self.tokens.start - behind - block;
                draw(self.seed, "shift", epoch, block.min(spare + 1))
            }
            _ => 0,
        }
    }

    /// Where the example at a position stands.
    pub fn at(&self, position: &Position) -> Place {
        let count = self.count(position.epoch);
        let number = match self.order {
            Order::Sequential => position.place,
            Order::Shuffled => Permutation::new(count, self.seed, position.epoch).at(position.place),
            Order::Random => draw(self.seed, "example", position.seen, count),
        };
        let Some((block, behind)) = self.task.block() else {
            return Place::Record(self.records.start + number * self.records_each());
        };
        let begin = match self.order {
            Order::Random => {
                let starts = self.tokens.end - self.tokens.start - block - behind + 1;
                draw(self.seed, "example", position.seen, starts)
            }
            _ => self.shift(position.epoch) + number * block,
        };
        let begin = self.tokens.start + begin;
        Place::Block(begin..begin + block + behind)
    }

    /// The position behind an example.
    pub fn after(&self, position: Position) -> Position {
        let Position { epoch, place, seen } = position;
        match place + 1 < self.count(epoch) {
            true => Position { epoch, place: place + 1, seen: seen + 1 },
            false => Position { epoch: epoch + 1, place: 0, seen: seen + 1 },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::data::tokens::{About, TokenWriter};

    fn examples(tokens: u32, task: Task, order: Order) -> Result<Examples, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = TokenWriter::create(&folder.path().join("a"), 1 << 16, [0; 24]).unwrap();
        for token in 0..tokens {
            writer.push(&[token]).unwrap();
            writer.end(0);
        }
        Examples::new(Arc::new(writer.finish(&About::default()).unwrap()), task, order, 11)
    }

    fn epoch_of(examples: &Examples, epoch: u64) -> Vec<Place> {
        let mut position = Position { epoch, place: 0, seen: 0 };
        let mut places = Vec::new();
        while position.epoch == epoch {
            places.push(examples.at(&position));
            position = examples.after(position);
        }
        places
    }

    #[test]
    fn epoch_meets_each_block_once_and_begins_elsewhere_next_time() {
        let examples = examples(1000, Task::NextToken { length: 10 }, Order::Shuffled).unwrap();
        let begins = |epoch| {
            let begin = |place: Place| match place {
                Place::Block(range) if range.end - range.start == 11 && range.end <= 1000 => range.start,
                other => panic!("{other:?}"),
            };
            let mut begins: Vec<u64> = epoch_of(&examples, epoch).into_iter().map(begin).collect();
            begins.sort_unstable();
            begins
        };
        let first = begins(0);
        assert!(first.windows(2).all(|pair| pair[1] == pair[0] + 10), "{first:?}");
        assert!(first.len() >= 98, "{}", first.len());
        let shifts: std::collections::BTreeSet<u64> = (0..20).map(|epoch| begins(epoch)[0]).collect();
        assert!(shifts.len() > 5, "{shifts:?}");
    }

    #[test]
    fn validation_is_the_end_and_shares_no_token() {
        let all = examples(1000, Task::NextToken { length: 10 }, Order::Random).unwrap();
        let (train, rest) = all.split(0.1).unwrap();
        assert_eq!((train.tokens(), rest.tokens()), (900, 100));
        for seen in 0..1000 {
            let position = Position { seen, ..Position::default() };
            assert!(matches!(train.at(&position), Place::Block(range) if range.end <= 900));
        }
        assert!(
            epoch_of(&rest, 0).iter().all(|place| matches!(place, Place::Block(range) if range.start >= 900))
        );
    }

    #[test]
    fn pairs_are_split_between_pairs() {
        let all = examples(10, Task::Translate { length: 8 }, Order::Sequential).unwrap();
        let (train, rest) = all.split(0.5).unwrap();
        assert_eq!(epoch_of(&train, 0), [Place::Record(0), Place::Record(2)]);
        assert_eq!(epoch_of(&rest, 0), [Place::Record(4), Place::Record(6), Place::Record(8)]);
    }

    #[test]
    fn text_shorter_than_an_example_is_refused_with_both_sizes() {
        let error = examples(10, Task::NextToken { length: 10 }, Order::Shuffled).unwrap_err().to_string();
        assert!(error.contains("10 tokens") && error.contains("11"), "{error}");
        assert!(examples(11, Task::NextToken { length: 10 }, Order::Shuffled).is_ok());
    }
}
