//! The rows of a step: into the batch before the pass, and to their answers after it.
//!
//! A row with guesses computes them behind its tokens, with output behind each. Then tokens are chosen one after
//! another, as they would be without guesses: each by the sampler as the one before has left it, from the logits
//! behind the tokens before it. The first choice that is not the next guess is the last one, and the entries of the
//! guesses from there on are dropped.

use std::ops::RangeInclusive;

use drivers::wire::{Asid, DriverFault, Row, RowDone, Sampled, Step};
use syscalls::{Errno, Token};

use super::alone::{self, BLOCK_TOKENS};
use super::batch::Output;
use super::context::DecodeError;
use super::step::{Generating, LlamaDriver};

/// What became of a row before the pass.
enum Planned {
    /// It is in the batch: its last own token is at this place, and so many guesses stand behind it.
    InBatch { place: usize, guesses: usize },
    /// It is not.
    Failed(DriverFault),
}

impl LlamaDriver {
    /// Runs the rows of a step.
    pub(super) fn run_rows(&mut self, step: &Step) -> Vec<RowDone> {
        if step.rows.is_empty() {
            return Vec::new();
        }
        if self.generating().alone.is_some() {
            return step.rows.iter().map(|row| self.run_alone(row)).collect();
        }
        let planned = self.plan(&step.rows);
        let pass = self.pass();
        match pass {
            Ok(()) => {}
            Err(DecodeError::Withdrawn) => tracing::debug!("step {} was withdrawn", step.number),
            Err(error) => tracing::warn!("step {}: the forward pass failed: {error:?}", step.number),
        }
        let rows: Vec<RowDone> = std::iter::zip(&step.rows, planned)
            .map(|(row, planned)| self.finish_row(row, planned, &pass))
            .collect();
        if rows.iter().any(is_unsound) {
            self.clear();
        }
        rows
    }

    /// Fills the batch with the rows that can run.
    fn plan(&mut self, rows: &[Row]) -> Vec<Planned> {
        let generating = self.generating();
        generating.context.batch().clear();
        // Each row that samples has one output; guesses share the others.
        let outputs = generating.settings.outputs as usize;
        let mut outputs_left = outputs.saturating_sub(rows.iter().filter(|row| row.sample).count());
        rows.iter().map(|row| self.plan_row(row, &mut outputs_left)).collect()
    }

    fn plan_row(&mut self, row: &Row, outputs_left: &mut usize) -> Planned {
        let guesses = match self.admit(row, *outputs_left) {
            Ok(guesses) => guesses,
            Err(fault) => return Planned::Failed(fault),
        };
        *outputs_left -= guesses;
        let output = if row.sample { Output::From(row.tokens.len() - 1) } else { Output::None };
        let feed: Vec<Token> = row.tokens.iter().chain(&row.draft[..guesses]).copied().collect();
        let end = self.generating().context.batch().add(row.asid.0, row.position, &feed, output);
        Planned::InBatch { place: end - guesses, guesses }
    }

    /// Takes cells for a row and its guesses, as far as there is room for them: they save time, and no row fails for
    /// them. Answers how many there are.
    fn admit(&mut self, row: &Row, guesses_max: usize) -> Result<usize, DriverFault> {
        if let Some(Err(fault)) = self.samplers.get(&row.asid).filter(|_| row.sample) {
            return Err(fault.clone());
        }
        if self.pool.length(row.asid) != Some(row.position) {
            let message =
                "the entries before the row are missing: a page that they were shared from was not loaded";
            return Err(DriverFault::new(Errno::EIO, message));
        }
        let tokens = row.tokens.len() as u32;
        let room = self.pool.free().saturating_sub(tokens) as usize;
        let guesses = row.draft.len().min(room).min(guesses_max);
        if !self.pool.grow(row.asid, tokens + guesses as u32) {
            let message = format!(
                "the KV pool of {} tokens has {} free and the row needs {tokens}; close contexts or mount the model \
                 with a larger --context",
                self.description.pool_tokens,
                self.pool.free(),
            );
            return Err(DriverFault::new(Errno::ENOMEM, message));
        }
        Ok(guesses)
    }

    /// Runs the batch, if there is anything in it and the kernel still wants it.
    fn pass(&mut self) -> Result<(), DecodeError> {
        let withdrawn = self.withdrawal.is_withdrawn();
        let context = &mut self.generating().context;
        match context.batch().len() {
            0 => Ok(()),
            _ if withdrawn => Err(DecodeError::Withdrawn),
            _ => context.decode(),
        }
    }

    /// Says what came of a row after the pass.
    fn finish_row(&mut self, row: &Row, planned: Planned, pass: &Result<(), DecodeError>) -> RowDone {
        let came = match (planned, pass) {
            (Planned::Failed(fault), _) => return RowDone::Failed(fault),
            (Planned::InBatch { .. }, Err(error)) => Err(done_of(*error)),
            (Planned::InBatch { .. }, Ok(())) if !row.sample => Ok(Vec::new()),
            (Planned::InBatch { place, guesses }, Ok(())) => {
                let mut chosen = Vec::new();
                let choices = self.choose(row, guesses, place..=place + guesses, &mut chosen);
                choices.map(|()| chosen).map_err(RowDone::Failed)
            }
        };
        self.conclude(row, came)
    }

    /// Runs a row in passes of its own.
    fn run_alone(&mut self, row: &Row) -> RowDone {
        let guesses = match self.admit(row, row.draft.len()) {
            Ok(guesses) => guesses,
            Err(fault) => return RowDone::Failed(fault),
        };
        let came = self.compute_alone(row, guesses);
        match &came {
            Ok(_) => {}
            Err(done) if is_unsound(done) => self.clear(),
            Err(_) => self.abandon(),
        }
        let done = self.conclude(row, came);
        let Generating { context, alone: Some(alone), .. } = self.generating() else { return done };
        match alone.keep(context) {
            Ok(()) => done,
            Err(fault) => {
                self.abandon();
                self.conclude(row, Err(RowDone::Failed(fault)))
            }
        }
    }

    fn abandon(&mut self) {
        if let Generating { context, alone: Some(alone), .. } = self.generating() {
            alone.abandon(context);
        }
    }

    fn compute_alone(&mut self, row: &Row, guesses: usize) -> Result<Vec<Sampled>, RowDone> {
        let feed = row.tokens.iter().chain(&row.draft[..guesses]).copied();
        let Generating { context, alone: Some(alone), .. } = self.generating() else { return Ok(Vec::new()) };
        let (start, tokens) = alone.begin(context, row.asid, feed).map_err(RowDone::Failed)?;
        // The token behind which the first one is chosen, counted from the start as all tokens here.
        let first = (row.position - start) as usize + row.tokens.len() - 1;
        let mut chosen = Vec::new();
        for (at, block) in tokens.chunks(BLOCK_TOKENS as usize).enumerate() {
            let begin = at * BLOCK_TOKENS as usize;
            let end = begin + block.len();
            let wanted = row.sample && first < end;
            if wanted && begin > first && !goes_on(row, guesses, &chosen) {
                break;
            }
            match self.pass_alone(start + begin as u32, block, wanted) {
                Ok(()) => {}
                // The sampler has gone on, and would go on from there if the row were sent again.
                Err(DecodeError::Withdrawn | DecodeError::NoSlot) if !chosen.is_empty() => break,
                Err(error) => return Err(done_of(error)),
            }
            if wanted {
                let places = first.max(begin) - begin..=block.len() - 1;
                self.choose(row, guesses, places, &mut chosen).map_err(RowDone::Failed)?;
            }
        }
        Ok(chosen)
    }

    fn pass_alone(&mut self, start: u32, block: &[Token], wanted: bool) -> Result<(), DecodeError> {
        if self.withdrawal.is_withdrawn() {
            return Err(DecodeError::Withdrawn);
        }
        alone::pass(&mut self.generating().context, start, block, wanted)
    }

    /// Drops the entries that no chosen token stands for, and says what came of the row.
    fn conclude(&mut self, row: &Row, came: Result<Vec<Sampled>, RowDone>) -> RowDone {
        match came {
            Ok(chosen) if row.sample => {
                let entries = row.tokens.len() + chosen.len() - 1;
                self.drop_from(row.asid, row.position + entries as u32);
                RowDone::Sampled(chosen.into())
            }
            Ok(_) => RowDone::Computed,
            Err(done) => {
                // llama.cpp has taken the entries of a failed pass out itself, or some of them. What cannot be cut has no
                // way back to where it was before the row, unless the pass found no room and did not begin.
                let is_lost = |fault: &DriverFault| fault.errno != Errno::ENOMEM && !self.description.ranges;
                let lost = matches!(&done, RowDone::Failed(fault) if is_lost(fault));
                self.drop_from(row.asid, if lost { 0 } else { row.position });
                done
            }
        }
    }

    /// Chooses tokens behind these places of the last pass, as long as they are those that were guessed, and one more.
    /// A choice that fails behind others is left to the next row, which meets it again.
    fn choose(
        &mut self,
        row: &Row,
        guesses: usize,
        places: RangeInclusive<usize>,
        chosen: &mut Vec<Sampled>,
    ) -> Result<(), DriverFault> {
        for place in places {
            if !goes_on(row, guesses, chosen) {
                break;
            }
            match self.sample(row.asid, place) {
                Ok(next) => chosen.push(next),
                Err(fault) if chosen.is_empty() => return Err(fault),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn sample(&mut self, asid: Asid, place: usize) -> Result<Sampled, DriverFault> {
        let generating = self.generating.as_mut().expect("a pass has run");
        let logits = (generating.context)
            .logits(place)
            .ok_or_else(|| DriverFault::new(Errno::EIO, "llama.cpp has no logits for the row"))?;
        match self.samplers.get_mut(&asid) {
            Some(Ok(sampler)) => sampler.next(logits),
            _ => unreachable!("the contract and the plan let no row through that has no sampler"),
        }
    }
}

/// Whether another token can be chosen: the first one, or one behind a guess that was right.
fn goes_on(row: &Row, guesses: usize, chosen: &[Sampled]) -> bool {
    match chosen.last() {
        None => true,
        Some(last) => {
            let guess = row.draft[..guesses].get(chosen.len() - 1);
            !last.end && guess == Some(&last.token)
        }
    }
}

/// Whether a row may have left what is no number in cells that are free now. It would spread to all rows of a pass: cells that
/// are masked, and states that begin, count with a weight of 0, which makes 0 of numbers only.
fn is_unsound(done: &RowDone) -> bool {
    matches!(done, RowDone::Failed(fault) if fault.errno == Errno::EIO)
}

fn done_of(error: DecodeError) -> RowDone {
    let fault = match error {
        DecodeError::Withdrawn => return RowDone::Withdrawn,
        DecodeError::NoSlot => {
            DriverFault::new(Errno::ENOMEM, "llama.cpp found no room in its KV pool for the batch")
        }
        DecodeError::Failed(number) => {
            DriverFault::new(Errno::EIO, format!("llama.cpp could not run the batch (its error {number})"))
        }
    };
    RowDone::Failed(fault)
}
