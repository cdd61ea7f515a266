//! Overwriting what users have given up, when room of one goes to another.
//!
//! llama.cpp marks cells as free and leaves in them what they held. It offers no way to a single cell, but puts the state
//! of a sequence into cells that are free. So the state of a sequence of zeros, with as many entries as cells are free, is
//! put into the spare sequence, which is dropped again. Most of that state is memory of zeros that the system gives out
//! without having any, so it costs the pass over the free cells and no memory.

use drivers::wire::Asid;

use super::context::Context;
use super::step::{Generating, LlamaDriver};

impl LlamaDriver {
    /// Overwrites everything that no sequence holds.
    ///
    /// # Panics
    ///
    /// Where that cannot be done: the worker ends, and its memory with it.
    pub(super) fn clear(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.page);
        let used = self.pool.used();
        let first = (0..self.description.sequences).map(Asid).find(|asid| self.pool.length(*asid) > Some(0));
        let ranges = self.description.ranges;
        let Generating { context, alone, .. } = self.generating();
        if let Some(alone) = alone {
            return alone.clear(context);
        }
        let Some(first) = first else { return context.clear_with_data() };
        let free = context.cells() - used;
        if free == 0 {
            // Of a state without entries llama.cpp reads the number alone.
            return;
        }
        let blank = if ranges { Blank::of_entry(context, first) } else { None };
        let cleared = match blank {
            Some(blank) => context.fill_free(&blank.state(free)),
            None => context.rewrite(),
        };
        assert!(cleared, "{free} free cells of the KV pool cannot be cleared");
    }
}

/// The form of the state of a sequence of one entry, as `llama_kv_cache::state_write` writes it.
pub(super) struct Blank {
    /// Up to the number of entries.
    beginning: [u8; ENTRIES_AT],
    /// Behind the entries' positions: what stands before the numbers of each layer, and how many bytes of numbers one
    /// entry has there. First all keys, then all values.
    parts: Vec<(Vec<u8>, usize)>,
}

/// A magic number, the sequence, and the number of streams; then come the number of entries, and of each the position, the
/// number of sequences and the sequence.
const ENTRIES_AT: usize = 12;
const POSITIONS_AT: usize = ENTRIES_AT + 4;
const POSITION_BYTES: usize = 12;

/// Whether values are transposed, the number of layers, and two numbers about rotations.
const LAYERS_BYTES: usize = 16;

impl Blank {
    /// The form of the entries of this context, by the first one of a sequence that has some. None where it is another
    /// form than the one that is known here.
    fn of_entry(context: &mut Context, asid: Asid) -> Option<Blank> {
        let mut state = zeroize::Zeroizing::new(Vec::new());
        context.save(asid, 0..1, &mut state).then(|| Blank::of(&state)).flatten()
    }

    /// The form of a state of one entry.
    pub(super) fn of(state: &[u8]) -> Option<Blank> {
        let number = |at: usize| Some(u32::from_le_bytes(*state.get(at..at + 4)?.first_chunk()?));
        let beginning = *state.first_chunk()?;
        let layers_at = POSITIONS_AT + POSITION_BYTES;
        let (one, transposed, layers) =
            (number(ENTRIES_AT)?, number(layers_at)? != 0, number(layers_at + 4)?);
        if one != 1 || number(POSITIONS_AT + 4)? != 1 {
            return None;
        }
        let (mut from, mut at) = (layers_at, layers_at + LAYERS_BYTES);
        let mut parts = Vec::new();
        while at < state.len() {
            // The type, then the bytes of a row as 64 bits; of transposed values those of a number, and how many there are.
            let (low, high) = (number(at + 4)?, number(at + 8)?);
            let bytes = match transposed && parts.len() >= layers as usize {
                true => low.checked_mul(high)?,
                false if high == 0 => low,
                false => return None,
            };
            parts.push((state[from..at + 12].to_vec(), bytes as usize));
            at += 12 + bytes as usize;
            from = at;
        }
        (at == state.len()).then_some(Blank { beginning, parts })
    }

    /// The state of so many entries of zeros.
    pub(super) fn state(&self, entries: u32) -> Vec<u8> {
        let count = entries as usize;
        let length = |(before, bytes): &(Vec<u8>, usize)| before.len() + count * bytes;
        let total = POSITIONS_AT + count * POSITION_BYTES + self.parts.iter().map(length).sum::<usize>();
        let mut state = vec![0; total];
        state[..ENTRIES_AT].copy_from_slice(&self.beginning);
        state[ENTRIES_AT..POSITIONS_AT].copy_from_slice(&entries.to_le_bytes());
        let mut at = POSITIONS_AT;
        for position in 0..entries {
            state[at..at + 4].copy_from_slice(&position.to_le_bytes());
            state[at + 4..at + 8].copy_from_slice(&1u32.to_le_bytes());
            at += POSITION_BYTES;
        }
        for (before, bytes) in &self.parts {
            state[at..at + before.len()].copy_from_slice(before);
            at += before.len() + count * bytes;
        }
        state
    }

    /// Where the numbers of the first entry's keys in the last layer stand in a state of one entry, and how many bytes.
    #[cfg(test)]
    pub(super) fn last_keys(&self, layers: usize) -> std::ops::Range<usize> {
        let before = self.parts[..layers].iter().map(|(before, bytes)| before.len() + bytes).sum::<usize>();
        let end = POSITIONS_AT + POSITION_BYTES + before;
        end - self.parts[layers - 1].1..end
    }
}
