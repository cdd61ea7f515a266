//! The rows of a step: into the batch before the pass, and to their answers after it.
//!
//! A row with guesses computes them behind its tokens, with output behind each. Then tokens are chosen one after
//! another, as they would be without guesses: each by the sampler as the one before has left it, from the logits
//! behind the tokens before it. The first choice that is not the next guess is the last one, and the entries of the
//! guesses from there on are dropped.

use drivers::wire::{Asid, DriverFault, Row, RowDone, Sampled};
use syscalls::{Errno, Token};

use super::context::{DecodeError, Output};
use super::step::LlamaDriver;

/// What became of a row before the pass.
pub enum Planned {
    /// It is in the batch: its last own token is at this place, and so many guesses stand behind it.
    InBatch { place: usize, guesses: usize },
    /// It is not.
    Failed(DriverFault),
}

impl LlamaDriver {
    /// Fills the batch with the rows that can run.
    pub(super) fn plan(&mut self, rows: &[Row]) -> Vec<Planned> {
        if self.generating.is_none() {
            return Vec::new();
        }
        self.context().batch().clear();
        let outputs = self.generating.as_ref().map_or(0, |generating| generating.settings.outputs as usize);
        // Each row that samples has one; guesses share the others.
        let mut outputs_left = outputs.saturating_sub(rows.iter().filter(|row| row.sample).count());
        rows.iter().map(|row| self.plan_row(row, &mut outputs_left)).collect()
    }

    fn plan_row(&mut self, row: &Row, outputs_left: &mut usize) -> Planned {
        if let Some(Err(fault)) = self.samplers.get(&row.asid).filter(|_| row.sample) {
            return Planned::Failed(fault.clone());
        }
        if self.pool.length(row.asid) != Some(row.position) {
            let message =
                "the entries before the row are missing: a page that they were shared from was not loaded";
            return Planned::Failed(DriverFault::new(Errno::EIO, message));
        }
        let tokens = row.tokens.len() as u32;
        // Guesses save time where there is room; a row does not fail for them.
        let room = self.pool.free().saturating_sub(tokens) as usize;
        let draft = &row.draft[..row.draft.len().min(room).min(*outputs_left)];
        if !self.pool.grow(row.asid, tokens + draft.len() as u32) {
            let message = format!(
                "the KV pool of {} tokens has {} free and the row needs {tokens}; close contexts or mount the model \
                 with a larger --context",
                self.description.pool_tokens,
                self.pool.free(),
            );
            return Planned::Failed(DriverFault::new(Errno::ENOMEM, message));
        }
        *outputs_left -= draft.len();
        let last = row.tokens.len() - 1;
        let output = if row.sample { Output::From(last) } else { Output::None };
        let feed: Vec<Token> = row.tokens.iter().chain(draft).copied().collect();
        let end = self.context().batch().add(row.asid.0, row.position, &feed, output);
        Planned::InBatch { place: end - draft.len(), guesses: draft.len() }
    }

    /// Runs the batch, if there is anything in it and the kernel still wants it.
    pub(super) fn pass(&mut self) -> Result<(), DecodeError> {
        if self.generating.is_none() || self.context().batch().len() == 0 {
            return Ok(());
        }
        if self.withdrawal.is_withdrawn() {
            return Err(DecodeError::Withdrawn);
        }
        self.context().decode()
    }

    /// Says what came of a row after the pass.
    pub(super) fn finish_row(
        &mut self,
        row: &Row,
        planned: Planned,
        pass: &Result<(), DecodeError>,
    ) -> RowDone {
        let done = match (planned, pass) {
            (Planned::Failed(fault), _) => return RowDone::Failed(fault),
            (Planned::InBatch { .. }, Err(DecodeError::Withdrawn)) => RowDone::Withdrawn,
            (Planned::InBatch { .. }, Err(error)) => RowDone::Failed(fault_of(*error)),
            (Planned::InBatch { .. }, Ok(())) if !row.sample => return RowDone::Computed,
            (Planned::InBatch { place, guesses }, Ok(())) => {
                match self.sample(row.asid, place, &row.draft[..guesses]) {
                    Ok(sampled) => {
                        let entries = row.tokens.len() + sampled.len() - 1;
                        self.drop_from(row.asid, row.position + entries as u32);
                        return RowDone::Sampled(sampled);
                    }
                    Err(fault) => RowDone::Failed(fault),
                }
            }
        };
        // llama.cpp has taken the entries of a failed pass out itself, or some of them.
        self.drop_from(row.asid, row.position);
        done
    }

    /// Chooses tokens as long as they are those that were guessed, and one more. A choice that fails behind others
    /// is left to the next row, which meets it again.
    fn sample(&mut self, asid: Asid, place: usize, guesses: &[Token]) -> Result<Vec<Sampled>, DriverFault> {
        let mut chosen = vec![self.sample_one(asid, place)?];
        for (at, guess) in guesses.iter().enumerate() {
            let last = &chosen[at];
            if last.end || last.token != *guess {
                break;
            }
            match self.sample_one(asid, place + at + 1) {
                Ok(next) => chosen.push(next),
                Err(_) => break,
            }
        }
        Ok(chosen)
    }

    fn sample_one(&mut self, asid: Asid, place: usize) -> Result<Sampled, DriverFault> {
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

fn fault_of(error: DecodeError) -> DriverFault {
    match error {
        DecodeError::NoSlot => {
            DriverFault::new(Errno::ENOMEM, "llama.cpp found no room in its KV pool for the batch")
        }
        DecodeError::Withdrawn => DriverFault::new(Errno::ECANCELED, "the step was withdrawn"),
        DecodeError::Failed(number) => {
            DriverFault::new(Errno::EIO, format!("llama.cpp could not run the batch (its error {number})"))
        }
    }
}
