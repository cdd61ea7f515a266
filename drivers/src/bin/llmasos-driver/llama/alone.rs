//! Deterministic mounts: what comes out of a row depends on its sequence alone, to the last bit.
//!
//! Sums of floating-point numbers depend on their order. llama.cpp's kernels sum in another order when a pass has
//! another number of tokens, and attention sums over cells in the order in which they lie in the pool. So here
//!
//! - each pass is about one sequence and has [`BLOCK_TOKENS`] places; the token at position `p` always has place
//!   `p % BLOCK_TOKENS`, behind the tokens before it in its block, which are computed again where they are there
//!   already, and before others that fill the pass up. A row of a pass depends on the pass's shape and on what the
//!   row may look at, and on nothing else;
//! - entries are computed in a context that holds one sequence at a time, where the entry of position `p` is in cell
//!   `p`. In between they are kept as llama.cpp's state, page by page, so that sharing copies no entries, and a
//!   saved page is what is kept.
//!
//! The pool that the kernel counts is then the memory of the kept pages.

use std::ops::Range;
use std::sync::Arc;

use drivers::wire::{Asid, DriverFault, PAGE_TOKENS};
use syscalls::{Errno, Token};
use zeroize::Zeroizing;

use super::batch::Output;
use super::context::{Context, DecodeError};

/// Tokens of each pass; a page has a whole number of them. A pass of so many takes hardly longer than one of a single
/// token, since both read all weights once.
pub const BLOCK_TOKENS: u32 = drivers::gguf::estimate::BLOCK_TOKENS;

/// The sequence of the context in which everything is computed.
const HERE: Asid = Asid(0);

/// The sequence of the context that fills passes up; empty between them. Pages move through it too.
const FILLER: u16 = 1;

/// Sequences of the context.
pub const SEQUENCES: u16 = drivers::gguf::estimate::BLOCK_SEQUENCES;

/// Entries of a page, or of its beginning.
#[derive(Clone)]
struct Kept {
    state: Arc<Zeroizing<Vec<u8>>>,
    /// Positions that the state has.
    entries: u32,
    /// Positions of it that the sequence has.
    used: u32,
}

/// A sequence that may not be in the context.
#[derive(Clone, Default)]
struct Sequence {
    tokens: Vec<Token>,
    /// By page. Between two rows they have all entries.
    pages: Vec<Kept>,
}

impl Sequence {
    /// Positions that the pages have.
    fn kept(&self) -> u32 {
        let whole = self.pages.len().saturating_sub(1) as u32 * PAGE_TOKENS;
        self.pages.last().map_or(0, |last| whole + last.used)
    }

    fn truncate(&mut self, length: u32) {
        self.tokens.truncate(length as usize);
        self.pages.truncate(length.div_ceil(PAGE_TOKENS) as usize);
        let last = self.pages.len().saturating_sub(1) as u32 * PAGE_TOKENS;
        if let Some(page) = self.pages.last_mut() {
            page.used = page.used.min(length - last);
        }
    }
}

/// All sequences of a deterministic mount.
pub struct Alone {
    sequences: Vec<Sequence>,
    /// The one that is in the context too.
    inside: Option<Asid>,
}

impl Alone {
    /// So many empty sequences.
    pub fn new(sequences: u16) -> Alone {
        Alone { sequences: vec![Sequence::default(); sequences.into()], inside: None }
    }

    fn at(&mut self, asid: Asid) -> &mut Sequence {
        &mut self.sequences[usize::from(asid.0)]
    }

    /// Lets an empty sequence begin as another one does.
    pub fn share(&mut self, from: Asid, to: Asid, length: u32) {
        let mut copy = self.at(from).clone();
        copy.truncate(length);
        *self.at(to) = copy;
        // Where it was in the context it had no entries there.
        self.inside = self.inside.filter(|inside| *inside != to);
    }

    /// Drops the end of a sequence.
    pub fn drop_from(&mut self, context: &mut Context, asid: Asid, from: u32) -> bool {
        self.at(asid).truncate(from);
        self.inside != Some(asid) || context.drop_from(HERE, from)
    }

    /// Appends a page: its tokens, then its entries.
    ///
    /// # Errors
    ///
    /// llama.cpp cannot tell the entries.
    pub fn save(
        &mut self,
        context: &mut Context,
        asid: Asid,
        positions: Range<u32>,
        out: &mut Vec<u8>,
    ) -> Result<(), DriverFault> {
        let tokens = &self.at(asid).tokens[positions.start as usize..positions.end as usize];
        tokens.iter().for_each(|token| out.extend(token.0.to_le_bytes()));
        let wanted = positions.end - positions.start;
        let whole = (self.at(asid).pages.get((positions.start / PAGE_TOKENS) as usize))
            .filter(|page| page.entries == wanted && page.used == wanted);
        if let Some(page) = whole {
            out.extend_from_slice(&page.state);
            return Ok(());
        }
        self.enter(context, asid)?;
        if context.save(HERE, positions, out) { Ok(()) } else { Err(untold()) }
    }

    /// Adds a saved page to the end of a sequence.
    ///
    /// # Errors
    ///
    /// The page has no tokens.
    pub fn load(
        &mut self,
        context: &mut Context,
        asid: Asid,
        entries: u32,
        page: &[u8],
    ) -> Result<(), DriverFault> {
        let (tokens, state) =
            page.split_at_checked(entries as usize * size_of::<u32>()).ok_or_else(untold)?;
        if self.inside == Some(asid) {
            self.abandon(context);
        }
        let token = |bytes: &[u8; 4]| Token(u32::from_le_bytes(*bytes));
        let sequence = self.at(asid);
        sequence.tokens.extend(tokens.as_chunks::<4>().0.iter().map(token));
        sequence.pages.push(Kept { state: Arc::new(state.to_vec().into()), entries, used: entries });
        Ok(())
    }

    /// Overwrites what the context has of a sequence; what is kept outside of it was overwritten when it was given up.
    pub fn clear(&mut self, context: &mut Context) {
        self.inside = None;
        context.clear_with_data();
    }

    /// Empties the context. What has not been kept is gone.
    pub fn abandon(&mut self, context: &mut Context) {
        self.inside = None;
        context.clear();
    }

    /// Brings a sequence into the context, each entry into the cell of its position.
    fn enter(&mut self, context: &mut Context, asid: Asid) -> Result<(), DriverFault> {
        if self.inside == Some(asid) {
            return Ok(());
        }
        self.abandon(context);
        let mut from = 0;
        for page in &self.sequences[usize::from(asid.0)].pages {
            let refused =
                |why| DriverFault::new(Errno::EIO, format!("llama.cpp refuses a page that was kept: {why}"));
            context.load(HERE, from..from + page.entries, &page.state).map_err(refused)?;
            context.drop_from(HERE, from + page.used);
            from += page.used;
        }
        self.inside = Some(asid);
        Ok(())
    }

    /// Makes ready to compute tokens behind the end of a sequence. Answers where its last block begins, and all tokens
    /// from there on.
    ///
    /// # Errors
    ///
    /// The sequence cannot be brought into the context.
    pub fn begin(
        &mut self,
        context: &mut Context,
        asid: Asid,
        tokens: impl Iterator<Item = Token>,
    ) -> Result<(u32, Vec<Token>), DriverFault> {
        self.enter(context, asid)?;
        let sequence = self.at(asid);
        let length = sequence.tokens.len() as u32;
        let start = length - length % BLOCK_TOKENS;
        context.drop_from(HERE, start);
        sequence.tokens.extend(tokens);
        Ok((start, sequence.tokens[start as usize..].to_vec()))
    }

    /// Keeps what was computed, from the first page that has some of it.
    ///
    /// # Errors
    ///
    /// llama.cpp cannot tell the entries.
    pub fn keep(&mut self, context: &mut Context) -> Result<(), DriverFault> {
        let Some(asid) = self.inside else { return Ok(()) };
        let sequence = self.at(asid);
        let (kept, length) = (sequence.kept(), sequence.tokens.len() as u32);
        if kept == length {
            return Ok(());
        }
        sequence.pages.truncate((kept / PAGE_TOKENS) as usize);
        for from in (kept - kept % PAGE_TOKENS..length).step_by(PAGE_TOKENS as usize) {
            let to = length.min(from + PAGE_TOKENS);
            let mut state = Vec::new();
            if !context.save(HERE, from..to, &mut state) {
                return Err(untold());
            }
            sequence.pages.push(Kept { state: Arc::new(state.into()), entries: to - from, used: to - from });
        }
        Ok(())
    }
}

/// Computes the entries of a block, or of its beginning; with logits behind each of them where some are wanted, since
/// their number is part of a pass's shape.
///
/// # Errors
///
/// As [`Context::decode`].
pub fn pass(context: &mut Context, start: u32, block: &[Token], wanted: bool) -> Result<(), DecodeError> {
    let output = if wanted { Output::All } else { Output::None };
    context.batch().clear();
    context.batch().add(HERE.0, start, block, output);
    let filler = vec![Token(0); BLOCK_TOKENS as usize - block.len()];
    if !filler.is_empty() {
        context.batch().add(FILLER, 0, &filler, output);
    }
    let came = context.decode();
    context.drop_from(Asid(FILLER), 0);
    came
}

fn untold() -> DriverFault {
    DriverFault::new(Errno::EIO, "llama.cpp does not tell the entries of a page")
}
