//! Keys and values of the tokens so far, while text is generated.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use candle_core::Tensor;

use crate::ops::attention::Mask;
use crate::{Error, Result};

/// Room for so many tokens is made at first; it doubles when it is full.
const ROOM: usize = 64;

/// Keys and values for each attention of a decoder.
#[derive(Debug, Default)]
pub struct Cache {
    entries: RefCell<Vec<Option<Entry>>>,
    length: Cell<usize>,
    /// How many tokens stand before each row's own.
    padding: Vec<usize>,
    /// What the encoder made of the source, for an encoder-decoder, and what of it is seen.
    pub memory: Option<(Tensor, Arc<Mask>)>,
}

#[derive(Clone, Debug)]
struct Entry {
    pair: [Tensor; 2],
    length: usize,
}

impl Cache {
    /// An empty one for rows before which so many tokens stand that are not theirs.
    pub fn of_rows(padding: &[usize]) -> Self {
        Cache { padding: padding.to_vec(), ..Cache::default() }
    }

    /// The same beside what the encoder made of the source.
    pub fn with_memory(padding: &[usize], memory: Tensor, seen: Arc<Mask>) -> Self {
        Cache { memory: Some((memory, seen)), ..Cache::of_rows(padding) }
    }

    /// The positions of `tokens` more in each row, row after row.
    ///
    /// # Errors
    /// If the model has no positions for them in any row. Rows that are longer than others may go beyond: nobody reads
    /// what comes of them.
    pub fn positions(&self, tokens: usize, most: usize) -> Result<Vec<u32>> {
        let length = self.length() + tokens;
        let shortest = length - self.padding.iter().max().copied().unwrap_or_default().min(length);
        if shortest > most {
            return Err(Error::Batch(format!(
                "{shortest} tokens are more than the model's {most} positions"
            )));
        }
        let place = |at: usize, padding: usize| at.saturating_sub(padding).min(most - 1) as u32;
        let row = |padding: &usize| (self.length()..length).map(|at| place(at, *padding)).collect::<Vec<_>>();
        Ok(self.padding.iter().flat_map(row).collect())
    }

    /// Who of `tokens` more sees whom.
    pub fn mask(&self, tokens: usize) -> Arc<Mask> {
        let keys = self.length() + tokens;
        let row = |padding: &usize| (0..keys).map(|key| u8::from(key >= *padding)).collect::<Vec<_>>();
        let padded = self.padding.iter().any(|padding| *padding > 0);
        let seen = padded.then(|| self.padding.iter().flat_map(row).collect());
        Arc::new(Mask { causal: true, offset: self.length(), keys: seen, ..Mask::default() })
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.padding.len()
    }

    /// How many tokens there are.
    pub fn length(&self) -> usize {
        self.length.get()
    }

    /// Says that all layers have taken `tokens` more.
    pub fn advance(&self, tokens: usize) {
        self.length.set(self.length.get() + tokens);
    }

    /// Adds keys and values (rows × tokens × width) to those of attention number `place`, and returns all.
    pub(super) fn extend(&self, place: usize, pair: [&Tensor; 2]) -> Result<[Tensor; 2]> {
        let mut entries = self.entries.borrow_mut();
        if entries.len() <= place {
            entries.resize(place + 1, None);
        }
        let tokens = pair[0].dim(1)?;
        let former = entries[place].take();
        let length = former.as_ref().map_or(0, |entry| entry.length);
        let entry = match former {
            Some(entry) if entry.pair[0].dim(1)? >= length + tokens => {
                Entry { length: length + tokens, ..entry }
            }
            former => {
                let room = (length + tokens).next_power_of_two().max(ROOM);
                let grow = |i: usize| -> Result<Tensor> {
                    let (rows, _, width) = pair[i].dims3()?;
                    let larger = Tensor::zeros((rows, room, width), pair[i].dtype(), pair[i].device())?;
                    if let Some(former) = former.as_ref().filter(|_| length > 0) {
                        larger.slice_set(&former.pair[i].narrow(1, 0, length)?.contiguous()?, 1, 0)?;
                    }
                    Ok(larger)
                };
                Entry { pair: [grow(0)?, grow(1)?], length: length + tokens }
            }
        };
        for (all, more) in entry.pair.iter().zip(pair) {
            all.slice_set(&more.contiguous()?, 1, length)?;
        }
        let all = [entry.pair[0].narrow(1, 0, entry.length)?, entry.pair[1].narrow(1, 0, entry.length)?];
        entries[place] = Some(entry);
        Ok(all)
    }

    /// The keys and values of attention number `place` with the source, which `compute` makes the first time.
    pub(super) fn once(
        &self,
        place: usize,
        compute: impl FnOnce() -> Result<[Tensor; 2]>,
    ) -> Result<[Tensor; 2]> {
        if let Some(Some(entry)) = self.entries.borrow().get(place) {
            return Ok(entry.pair.clone());
        }
        let pair = compute()?;
        let mut entries = self.entries.borrow_mut();
        if entries.len() <= place {
            entries.resize(place + 1, None);
        }
        entries[place] = Some(Entry { pair: pair.clone(), length: pair[0].dim(1)? });
        Ok(pair)
    }
}
