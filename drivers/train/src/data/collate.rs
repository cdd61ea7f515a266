//! From examples to a batch: framing, hiding, shifting and filling up.

use super::error::DataError;
use super::examples::{Examples, Place, Position, Task};
use crate::batch::{Batch, IGNORE, Side};
use crate::random::{self, Philox};
use crate::token::{Special, Tokeniser};

/// Of the hidden tokens, how many become the mask, and how many any token; the rest stay as they are (Devlin et al.,
/// 2019).
const MASKED_AS_MASK: f64 = 0.8;
const MASKED_AS_ANY: f64 = 0.1;

/// Makes batches of a task.
#[derive(Clone, Debug)]
pub struct Collator {
    examples: Examples,
    ids: Ids,
}

/// The special tokens that the task needs; 0 stands for those that it does not.
#[derive(Clone, Copy, Debug, Default)]
struct Ids {
    end: u32,
    pad: u32,
    class: u32,
    separator: u32,
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
            Task::Masked { .. } => {
                (ids.class, ids.separator) = (need(Special::Class)?, need(Special::Separator)?);
                ids.mask = need(Special::Mask)?;
            }
            Task::Classify { .. } => {
                (ids.class, ids.separator) = (need(Special::Class)?, need(Special::Separator)?);
                ids.pad = need(Special::Pad)?;
            }
        }
        Ok(Collator { examples, ids })
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
        let mut tokens = Vec::new();
        match self.examples.at(position) {
            Place::Block(range) => {
                self.examples.file().read(range, &mut tokens);
                self.add_block(position, tokens, rows);
            }
            Place::Record(number) => {
                self.examples.file().read(self.examples.file().record(number), &mut tokens);
                self.add_record(number, tokens, rows);
            }
        }
        rows.samples.push(position.seen);
    }

    fn add_block(&self, position: &Position, mut tokens: Vec<u32>, rows: &mut Rows) {
        match self.examples.task() {
            Task::Masked { share, .. } => {
                let (tokens, targets) = self.hide(position.seen, tokens, *share);
                rows.push(tokens, targets);
            }
            Task::Continue { .. } => {
                let target = tokens.split_off(tokens.len() / 2);
                self.add_pair(tokens, target, rows);
            }
            _ => {
                let targets = tokens[1..].iter().map(|token| *token as i32).collect();
                tokens.pop();
                rows.push(tokens, targets);
            }
        }
    }

    fn add_record(&self, number: u64, mut tokens: Vec<u32>, rows: &mut Rows) {
        let length = self.examples.task().length();
        if matches!(self.examples.task(), Task::Translate { .. }) {
            let mut target = Vec::new();
            self.examples.file().read(self.examples.file().record(number + 1), &mut target);
            tokens.truncate(length - 1);
            target.truncate(length - 1);
            return self.add_pair(tokens, target, rows);
        }
        tokens.truncate(length - 2);
        tokens.insert(0, self.ids.class);
        tokens.push(self.ids.separator);
        rows.push(tokens, vec![self.examples.file().class(number) as i32]);
    }

    /// The decoder begins with padding, as T5's does, and ends its text.
    fn add_pair(&self, mut source: Vec<u32>, target: Vec<u32>, rows: &mut Rows) {
        source.push(self.ids.end);
        let input = std::iter::once(self.ids.pad).chain(target.iter().copied()).collect();
        let targets = target.into_iter().chain([self.ids.end]).map(|token| token as i32).collect();
        rows.sources.push(source);
        rows.push(input, targets);
    }

    /// Frames a block and hides a share of its tokens. Which ones depends on the seed and the example's number alone.
    fn hide(&self, sample: u64, tokens: Vec<u32>, share: f64) -> (Vec<u32>, Vec<i32>) {
        let source = Philox::new(self.examples.seed() ^ random::hash("mask") ^ sample.rotate_left(32));
        let mut targets = vec![IGNORE; tokens.len() + 2];
        let mut framed = vec![self.ids.class];
        framed.extend(tokens);
        framed.push(self.ids.separator);
        let inner = framed.len() - 1;
        for at in 1..inner {
            let draw = |number: u64| source.uniform(4 * at as u64 + number);
            if draw(0) >= share {
                continue;
            }
            targets[at] = framed[at] as i32;
            let fate = draw(1);
            if fate < MASKED_AS_MASK {
                framed[at] = self.ids.mask;
            } else if fate < MASKED_AS_MASK + MASKED_AS_ANY {
                framed[at] = (draw(2) * f64::from(self.ids.vocabulary)) as u32;
            }
        }
        (framed, targets)
    }
}

/// Rows before they are equally long.
#[derive(Default)]
struct Rows {
    inputs: Vec<Vec<u32>>,
    sources: Vec<Vec<u32>>,
    targets: Vec<Vec<i32>>,
    samples: Vec<u64>,
}

impl Rows {
    fn push(&mut self, input: Vec<u32>, targets: Vec<i32>) {
        self.inputs.push(input);
        self.targets.push(targets);
    }

    fn finish(self, task: &Task, pad: u32) -> Batch {
        let input = filled(self.inputs, pad);
        let source = (!self.sources.is_empty()).then(|| filled(self.sources, pad));
        let width = if matches!(task, Task::Classify { .. }) { 1 } else { input.length };
        let mut targets = Vec::with_capacity(width * self.targets.len());
        for row in self.targets {
            let missing = width - row.len();
            targets.extend(row);
            targets.extend(std::iter::repeat_n(IGNORE, missing));
        }
        Batch { input, source, targets, samples: self.samples }
    }
}

/// Rows of the length of the longest, with a mask where any is shorter.
fn filled(rows: Vec<Vec<u32>>, pad: u32) -> Side {
    let length = rows.iter().map(Vec::len).max().unwrap_or(0);
    let short = rows.iter().any(|row| row.len() < length);
    let mut tokens = Vec::with_capacity(length * rows.len());
    let mut mask = Vec::new();
    for row in rows {
        let missing = length - row.len();
        if short {
            mask.extend(std::iter::repeat_n(1u8, row.len()).chain(std::iter::repeat_n(0, missing)));
        }
        tokens.extend(row);
        tokens.extend(std::iter::repeat_n(pad, missing));
    }
    Side { mask: short.then_some(mask), ..Side::new(tokens, length) }
}
