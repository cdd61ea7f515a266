//! What a worker does in one step, and what came of it.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use syscalls::{Token, TokenRun};

use super::{DriverFault, SamplerSpec};

/// Positions in one page of KV entries. llama.cpp's attention on the CPU skips whole masked tiles of this size.
pub const PAGE_TOKENS: u32 = 64;

/// A sequence id of the worker, handed out to resident contexts, as hardware hands out address-space ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Asid(pub u16);

/// A place in the swap area for one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// In the file in memory.
    Host(u32),
    /// In the file on disk.
    Disk(u32),
}

/// What a saved page must be when it is loaded: the entries of positions `from..to` of a sequence whose tokens up
/// to `to` have this digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PageLabel {
    /// The first position; a multiple of [`PAGE_TOKENS`].
    pub from: u32,
    /// Behind the last position; at most [`PAGE_TOKENS`] further.
    pub to: u32,
    /// Of the user and of all tokens at positions `0..to`.
    pub digest: u128,
    /// Who may have it.
    pub owner: PageOwner,
}

/// Whose a page is: nobody else ever gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PageOwner {
    /// A user's own.
    User(u32),
    /// That of all who may read the segment of this number.
    Segment(u32),
}

/// One step: operations, then one forward pass over the rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Comes back in [`StepDone`].
    pub number: u64,
    /// Done first, in this order.
    pub ops: Vec<Op>,
    /// One entry for each sequence that takes part; a sequence takes part at most once.
    pub rows: Vec<Row>,
}

/// Something to do to sequences before the forward pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Lets `to` share the entries of `from` at positions `0..length`. `to` is empty before.
    Share { from: Asid, to: Asid, length: u32 },
    /// Drops the entries of `asid` at positions `from..`.
    Drop { asid: Asid, from: u32 },
    /// Sets up how tokens are chosen for `asid`, replacing what was there.
    SamplerOpen { asid: Asid, sampler: Box<SamplerSpec> },
    /// Forgets the sampler of `asid`.
    SamplerClose { asid: Asid },
    /// Writes the entries of a page to a slot. They stay in the pool.
    Save { asid: Asid, page: PageLabel, slot: Slot },
    /// Reads a saved page to the end of `asid`, which holds the entries before it. The rows of this step leave
    /// `asid` out: whether the page was sound is known when the step is done. Several pages of one sequence may
    /// be loaded in one step; those behind one that fails fail too.
    Load { asid: Asid, page: PageLabel, slot: Slot },
    /// Copies a saved page to another slot.
    Move { from: Slot, to: Slot },
    /// Makes the pool this large, in tokens. It is empty before, and all sequences with it.
    Resize { tokens: u32 },
    /// Overwrites the entries that sequences have held and none holds any more: room that one user had goes to another.
    /// A driver that cannot ends its worker, whose memory goes with it.
    Clear,
}

impl Op {
    /// Whether [`StepDone::pages`] says what came of it.
    pub fn is_paging(&self) -> bool {
        matches!(self, Op::Save { .. } | Op::Load { .. } | Op::Move { .. } | Op::Resize { .. })
    }
}

/// The share of one sequence in a forward pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The sequence.
    pub asid: Asid,
    /// The position of the first token: as many entries as the sequence has.
    pub position: u32,
    /// At least one token.
    pub tokens: TokenRun,
    /// Choose the next token after the last one; the sequence has a sampler.
    pub sample: bool,
    /// Guesses of the tokens that are chosen next; none without `sample`. Tokens are chosen one after another
    /// as long as each is the next guess, and one more.
    pub draft: Vec<Token>,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepDone {
    /// The step's number.
    pub number: u64,
    /// One entry for each row, in their order.
    pub rows: Vec<RowDone>,
    /// Time in operations, forward pass and samplers, in microseconds.
    pub elapsed_us: u64,
    /// One entry for each paging operation of the step, in their order: the time that it took in microseconds, or
    /// why it failed. One that failed changed nothing, and the operations and rows behind it were done.
    pub pages: Vec<Result<u64, DriverFault>>,
}

/// What came of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RowDone {
    /// Its entries are in the pool; no token was wanted.
    Computed,
    /// Its entries are in the pool, and these tokens come next, at least one. Entries of all but the last of them
    /// are in the pool too: those were guessed.
    Sampled(Chosen),
    /// The step was withdrawn before the row was through. Nothing of it is in the pool.
    Withdrawn,
    /// Nothing of it is in the pool. The sequence is as it was before; one that cannot be cut, and whose row failed for
    /// another reason than ENOMEM, is empty.
    Failed(DriverFault),
}

/// The tokens that came of a row: one, but for guesses.
pub type Chosen = SmallVec<[Sampled; 1]>;

/// A chosen token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// The token.
    pub token: Token,
    /// Its bytes, not always UTF-8; empty for an end-of-generation token.
    pub piece: Vec<u8>,
    /// It ends the generation.
    pub end: bool,
    /// Its logarithmic probability before filters and the best alternatives, if asked for.
    pub logprob: Option<SampledLogprob>,
}

/// How likely the chosen token was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampledLogprob {
    /// Natural logarithm.
    pub logprob: f32,
    /// The best alternatives with their bytes, best first.
    pub top: Vec<(Token, Vec<u8>, f32)>,
}
