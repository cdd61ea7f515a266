//! The rows of a batch: taken one after another, and filled up to one length.

use super::examples::Task;
use crate::batch::{Batch, IGNORE, Side};
use crate::token::Framed;

/// A row without anything around it.
pub fn plain(tokens: Vec<u32>) -> Framed {
    Framed { tokens, types: None }
}

/// Rows before they are equally long.
#[derive(Default)]
pub struct Rows {
    inputs: Vec<Framed>,
    pub sources: Vec<Framed>,
    targets: Vec<Vec<i32>>,
    pub values: Vec<f32>,
    samples: Vec<u64>,
    /// The document of each token, row after row, where documents are apart; such rows are equally long.
    pub documents: Vec<u32>,
}

impl Rows {
    pub fn push(&mut self, sample: u64, input: Framed, targets: Vec<i32>) {
        self.samples.push(sample);
        self.inputs.push(input);
        self.targets.push(targets);
    }

    /// Fills them up to one length.
    pub fn finish(self, task: &Task, pad: u32) -> Batch {
        let mut input = filled(self.inputs, pad);
        if !self.documents.is_empty() {
            input.positions = Some(self.documents.chunks(input.length).flat_map(positions).collect());
            input.segments = Some(self.documents);
        }
        let source = (!self.sources.is_empty()).then(|| filled(self.sources, pad));
        let width = match task {
            Task::Classify { .. } | Task::Similar { .. } => 1,
            Task::Answer { .. } => 2,
            Task::Label { .. } | Task::Rate { .. } | Task::Compare { .. } => 0,
            _ => input.length,
        };
        let mut targets = Vec::with_capacity(width * self.targets.len());
        for row in self.targets {
            let missing = width - row.len();
            targets.extend(row);
            targets.extend(std::iter::repeat_n(IGNORE, missing));
        }
        Batch {
            input,
            source,
            targets,
            values: self.values,
            paired: task.pairs(),
            among: None,
            samples: self.samples,
        }
    }
}

/// The positions of tokens within their documents.
fn positions(documents: &[u32]) -> Vec<u32> {
    let mut position = 0;
    let place = |at: usize| {
        position = if at > 0 && documents[at] == documents[at - 1] { position + 1 } else { 0 };
        position
    };
    (0..documents.len()).map(place).collect()
}

/// Rows of the length of the longest, with a mask where any is shorter.
fn filled(rows: Vec<Framed>, pad: u32) -> Side {
    let length = rows.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
    let short = rows.iter().any(|row| row.tokens.len() < length);
    let two = rows.iter().any(|row| row.types.is_some());
    let mut tokens = Vec::with_capacity(length * rows.len());
    let (mut mask, mut types) = (Vec::new(), Vec::new());
    for row in rows {
        let (found, missing) = (row.tokens.len(), length - row.tokens.len());
        if short {
            mask.extend(std::iter::repeat_n(1u8, found).chain(std::iter::repeat_n(0, missing)));
        }
        if two {
            types.extend(row.types.unwrap_or_else(|| vec![0; found]));
            types.extend(std::iter::repeat_n(0, missing));
        }
        tokens.extend(row.tokens);
        tokens.extend(std::iter::repeat_n(pad, missing));
    }
    Side { mask: short.then_some(mask), types: two.then_some(types), ..Side::new(tokens, length) }
}
