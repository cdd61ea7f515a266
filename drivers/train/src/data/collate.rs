//! From examples to the rows of a batch: framing, hiding and shifting.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::error::DataError;
use super::examples::{Examples, Place, Position, Task};
use super::prepare::NO_CLASS;
use super::rows::{Rows, plain};
use crate::batch::{Batch, IGNORE};
use crate::random::{self, Philox};
use crate::token::{Frame, Framed, Special, Tokeniser};

/// Of the hidden tokens, how many become the mask, and how many any token; the rest stay as they are (Devlin et al.,
/// 2019).
const MASKED_AS_MASK: f64 = 0.8;
const MASKED_AS_ANY: f64 = 0.1;

/// What documents that share a row know of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packing {
    /// A row is one text, in which documents follow each other.
    #[default]
    Together,
    /// Each document sees itself alone, and its positions begin at 0. What follows its end is not learned.
    Apart,
}

/// Makes batches of a task.
#[derive(Clone, Debug)]
pub struct Collator {
    examples: Examples,
    ids: Ids,
    packing: Packing,
}

/// The special tokens that the task needs; 0 stands for those that it does not.
#[derive(Clone, Copy, Debug, Default)]
struct Ids {
    end: u32,
    pad: u32,
    frame: Frame,
    mask: u32,
    vocabulary: u32,
}

impl Collator {
    /// For these examples, which were tokenised by this tokeniser.
    ///
    /// # Errors
    ///
    /// The vocabulary lacks a special token that the task needs.
    pub fn new(examples: Examples, tokeniser: &Tokeniser) -> Result<Collator, DataError> {
        let need = |special| tokeniser.need(special);
        let mut ids = Ids { vocabulary: tokeniser.size(), ..Ids::default() };
        match examples.task() {
            Task::NextToken { .. } => {}
            Task::Continue { .. } | Task::Translate { .. } => {
                (ids.end, ids.pad) = (need(Special::End)?, need(Special::Pad)?);
            }
            Task::Masked { .. } => (ids.frame, ids.mask) = (Frame::of(tokeniser)?, need(Special::Mask)?),
            Task::Classify { .. }
            | Task::Label { .. }
            | Task::Rate { .. }
            | Task::Tag { .. }
            | Task::Answer { .. }
            | Task::Compare { .. }
            | Task::Similar { .. } => {
                (ids.frame, ids.pad) = (Frame::of(tokeniser)?, need(Special::Pad)?);
            }
        }
        Ok(Collator { examples, ids, packing: Packing::Together })
    }

    /// The same, with documents packed so.
    pub fn packed(self, packing: Packing) -> Collator {
        Collator { packing, ..self }
    }

    /// The examples.
    pub fn examples(&self) -> &Examples {
        &self.examples
    }

    /// A batch of so many examples from a position on, and the position behind it.
    pub fn batch(&self, mut position: Position, rows: usize) -> (Batch, Position) {
        let mut batch = Rows::default();
        for _ in 0..rows {
            self.add(&position, &mut batch);
            position = self.examples.after(position);
        }
        (batch.finish(self.examples.task(), self.ids.pad), position)
    }

    fn add(&self, position: &Position, rows: &mut Rows) {
        match self.examples.at(position) {
            Place::Block(range) => {
                let mut tokens = Vec::new();
                self.examples.file().read(range.clone(), &mut tokens);
                let documents = (self.packing == Packing::Apart).then(|| self.documents(range));
                self.add_block(position, tokens, documents, rows);
            }
            Place::Record(number) => self.add_record(position, number, rows),
        }
    }

    /// The number of each token's document in a block, from 0 on.
    fn documents(&self, range: Range<u64>) -> Vec<u32> {
        let file = self.examples.file();
        let first = file.record_of(range.start);
        let mut document = first;
        let mut end = |token: u64| {
            while document < file.records() && file.record(document).end <= token {
                document += 1;
            }
            (document - first) as u32
        };
        range.map(&mut end).collect()
    }

    fn record(&self, number: u64) -> Vec<u32> {
        let mut tokens = Vec::new();
        self.examples.file().read(self.examples.file().record(number), &mut tokens);
        tokens
    }

    fn add_block(
        &self,
        position: &Position,
        mut tokens: Vec<u32>,
        documents: Option<Vec<u32>>,
        rows: &mut Rows,
    ) {
        match self.examples.task() {
            Task::Masked { share, .. } => {
                let (framed, targets) = self.hide(position.seen, &tokens, *share);
                rows.push(position.seen, framed, targets);
                // What stands around the block belongs to the documents at its ends.
                rows.documents.extend(documents.into_iter().flat_map(|numbers| {
                    let ends = [numbers[0], numbers[numbers.len() - 1]];
                    [ends[0]].into_iter().chain(numbers).chain([ends[1]])
                }));
            }
            Task::Continue { .. } => {
                let target = tokens.split_off(tokens.len() / 2);
                self.add_pair(position, tokens, target, rows);
            }
            _ => {
                let mut targets: Vec<i32> = tokens[1..].iter().map(|token| *token as i32).collect();
                tokens.pop();
                if let Some(mut numbers) = documents {
                    for (target, pair) in targets.iter_mut().zip(numbers.windows(2)) {
                        if pair[0] != pair[1] {
                            *target = IGNORE;
                        }
                    }
                    numbers.pop();
                    rows.documents.extend(numbers);
                }
                rows.push(position.seen, plain(tokens), targets);
            }
        }
    }

    fn add_record(&self, position: &Position, number: u64, rows: &mut Rows) {
        let (length, seen, frame) = (self.examples.task().length(), position.seen, self.ids.frame);
        let class = |number| match self.examples.file().class(number) {
            NO_CLASS => IGNORE,
            class => class as i32,
        };
        let mut tokens = self.record(number);
        match self.examples.task() {
            Task::Translate { .. } => {
                let mut target = self.record(number + 1);
                tokens.truncate(length - 1);
                target.truncate(length - 1);
                self.add_pair(position, tokens, target, rows);
            }
            Task::Answer { .. } => {
                let framed = frame.around(&tokens, Some(&self.record(number + 1)));
                rows.push(seen, framed, vec![class(number), class(number + 1)]);
            }
            Task::Tag { .. } => {
                tokens.truncate(length - Frame::AROUND_ONE);
                let classes = self.record(number + 1).into_iter().take(tokens.len());
                let classes = classes.map(|class| if class == 0 { IGNORE } else { class as i32 - 1 });
                let targets = std::iter::once(IGNORE).chain(classes).chain([IGNORE]).collect();
                rows.push(seen, frame.around(&tokens, None), targets);
            }
            task if task.pairs() => {
                // A pair counts once, and each of its texts is a sample of its own.
                let near = f32::from_bits(self.examples.file().class(number));
                let scored = matches!(task, Task::Compare { .. });
                for (which, (value, target)) in [(near, 0), (f32::NAN, IGNORE)].into_iter().enumerate() {
                    let mut tokens = self.record(number + which as u64);
                    tokens.truncate(length - Frame::AROUND_ONE);
                    let targets = if scored { Vec::new() } else { vec![target] };
                    rows.values.extend(scored.then_some(value));
                    rows.push(2 * seen + which as u64, frame.around(&tokens, None), targets);
                }
            }
            task => {
                // Two texts are one record, with what stands between them.
                let between = tokens.iter().position(|token| *token == frame.separator());
                let framed = match between {
                    Some(at) => {
                        let (first, second) = (&tokens[..at], &tokens[at + 1..]);
                        let [a, b] = longest_first([first.len(), second.len()], length - Frame::AROUND_TWO);
                        frame.around(&first[..a], Some(&second[..b]))
                    }
                    None => {
                        tokens.truncate(length - Frame::AROUND_ONE);
                        frame.around(&tokens, None)
                    }
                };
                let targets = match task {
                    Task::Rate { .. } => {
                        rows.values.push(f32::from_bits(self.examples.file().class(number)));
                        Vec::new()
                    }
                    Task::Label { .. } => {
                        let own = self.record(number + 1);
                        let classes = 0..self.examples.file().about().labels.len() as u32;
                        rows.values.extend(classes.map(|class| f32::from(u8::from(own.contains(&class)))));
                        Vec::new()
                    }
                    _ => vec![class(number)],
                };
                rows.push(seen, framed, targets);
            }
        }
    }

    /// The decoder begins with padding, as T5's does, and ends its text.
    fn add_pair(&self, position: &Position, mut source: Vec<u32>, target: Vec<u32>, rows: &mut Rows) {
        source.push(self.ids.end);
        let input = std::iter::once(self.ids.pad).chain(target.iter().copied()).collect();
        let targets = target.into_iter().chain([self.ids.end]).map(|token| token as i32).collect();
        rows.sources.push(plain(source));
        rows.push(position.seen, plain(input), targets);
    }

    /// Frames a block and hides a share of its tokens. Which ones depends on the seed and the example's number alone.
    fn hide(&self, sample: u64, tokens: &[u32], share: f64) -> (Framed, Vec<i32>) {
        let source = Philox::new(self.examples.seed() ^ random::hash("mask") ^ sample.rotate_left(32));
        let mut framed = self.ids.frame.around(tokens, None);
        let row = &mut framed.tokens;
        let mut targets = vec![IGNORE; row.len()];
        let inner = row.len() - 1;
        for at in 1..inner {
            let draw = |number: u64| source.uniform(4 * at as u64 + number);
            if draw(0) >= share {
                continue;
            }
            targets[at] = row[at] as i32;
            let fate = draw(1);
            if fate < MASKED_AS_MASK {
                row[at] = self.ids.mask;
            } else if fate < MASKED_AS_MASK + MASKED_AS_ANY {
                row[at] = (draw(2) * f64::from(self.ids.vocabulary)) as u32;
            }
        }
        (framed, targets)
    }
}

/// What is left of two texts that have room for so many tokens together: the longer one is cut first, and where both are
/// longer than half, both to half, as `longest_first` of the tokenizers library does.
fn longest_first(lengths: [usize; 2], room: usize) -> [usize; 2] {
    let [first, second] = lengths;
    let (short, long) = (first.min(second), first.max(second));
    let short = if short + long <= room { short } else { short.min(room / 2) };
    let long = long.min(room - short);
    if first <= second { [short, long] } else { [long, short] }
}
