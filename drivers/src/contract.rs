//! What a step may ask of a driver, checked as a whole before anything of it is done.
//!
//! So a refused step changes nothing, llama.cpp never sees what it would answer with an abort, and the kernel is held
//! to the same rules by the driver without a model as by those with one. What a contract does not see is whether the
//! pool has room: that is found out row by row.

use std::collections::{BTreeMap, BTreeSet};

use syscalls::Errno;

use crate::wire::{Asid, DriverFault, ModelDescription, Op, PAGE_TOKENS, PageLabel, Row, Step};

/// The largest pool that can be asked for, in tokens: llama.cpp counts cells in 32 bits.
const POOL_TOKENS_MAX: u32 = 1 << 30;

/// How many entries a sequence has; none where there is no such sequence.
pub type Held<'a> = &'a dyn Fn(Asid) -> Option<u32>;

/// What steps are checked against.
pub struct Contract<'a> {
    description: &'a ModelDescription,
    held: Held<'a>,
    /// Lengths of the sequences that the operations so far would change.
    lengths: BTreeMap<Asid, u32>,
    /// Sequences that have a sampler after the operations so far.
    samplers: BTreeSet<Asid>,
    /// Sequences that a page is loaded to, which may fail, so that no row can follow in the same step.
    loaded: BTreeSet<Asid>,
}

impl<'a> Contract<'a> {
    /// The contract as it stands between two steps.
    pub fn new(description: &'a ModelDescription, held: Held<'a>, samplers: BTreeSet<Asid>) -> Self {
        Contract { description, held, lengths: BTreeMap::new(), samplers, loaded: BTreeSet::new() }
    }

    /// Checks a step.
    ///
    /// # Errors
    ///
    /// EINVAL with the first thing that breaks the contract.
    pub fn check(mut self, step: &Step) -> Result<(), DriverFault> {
        if !self.description.generates {
            return Err(DriverFault::new(
                Errno::ENOSYS,
                "this model is an encoder: it embeds, it cannot generate",
            ));
        }
        for op in &step.ops {
            self.check_op(op)?;
        }
        let tokens: usize = step.rows.iter().map(|row| row.tokens.len() + row.draft.len()).sum();
        if tokens > self.description.batch_tokens as usize {
            let most = self.description.batch_tokens;
            return Err(broken(format!("a step of {tokens} tokens; the most is {most}")));
        }
        let mut seen = BTreeSet::new();
        for row in &step.rows {
            if !seen.insert(row.asid) {
                return Err(broken(format!("two rows for sequence {} in one step", row.asid.0)));
            }
            self.check_row(row)?;
        }
        Ok(())
    }

    fn length(&self, asid: Asid) -> Result<u32, DriverFault> {
        let sequences = self.description.sequences;
        let held = (self.held)(asid)
            .filter(|_| asid.0 < sequences)
            .ok_or_else(|| broken(format!("sequence {} does not exist: there are {sequences}", asid.0)))?;
        Ok(self.lengths.get(&asid).copied().unwrap_or(held))
    }

    fn check_op(&mut self, op: &Op) -> Result<(), DriverFault> {
        match op {
            Op::Share { from, to, length } => self.check_share(*from, *to, *length),
            Op::Drop { asid, from } => self.check_drop(*asid, *from),
            Op::SamplerOpen { asid, .. } => {
                self.length(*asid)?;
                self.samplers.insert(*asid);
                Ok(())
            }
            Op::SamplerClose { asid } => {
                self.length(*asid)?;
                self.samplers.remove(asid);
                Ok(())
            }
            Op::Save { asid, page, .. } => self.check_save(*asid, *page),
            Op::Load { asid, page, .. } => self.check_load(*asid, *page),
            Op::Move { .. } => self.check_pages(),
            Op::Resize { tokens } => self.check_resize(*tokens),
            Op::Clear => Ok(()),
        }
    }

    fn check_pages(&self) -> Result<(), DriverFault> {
        if self.description.page_bytes == 0 {
            return Err(broken("pages of this model cannot be saved".into()));
        }
        Ok(())
    }

    fn check_label(&self, page: PageLabel) -> Result<(), DriverFault> {
        self.check_pages()?;
        let PageLabel { from, to, .. } = page;
        let whole = from.is_multiple_of(PAGE_TOKENS) && from < to && to - from <= PAGE_TOKENS;
        if whole { Ok(()) } else { Err(broken(format!("a page of positions {from} to {to}"))) }
    }

    fn check_save(&self, asid: Asid, page: PageLabel) -> Result<(), DriverFault> {
        self.check_label(page)?;
        let has = self.length(asid)?;
        if page.to > has {
            let to = page.to;
            return Err(broken(format!("save up to {to} of the {has} tokens of sequence {}", asid.0)));
        }
        Ok(())
    }

    fn check_load(&mut self, asid: Asid, page: PageLabel) -> Result<(), DriverFault> {
        self.check_label(page)?;
        let (has, most) = (self.length(asid)?, self.description.context_tokens);
        if page.from != has || page.to > most {
            let (from, to) = (page.from, page.to);
            return Err(broken(format!(
                "load positions {from} to {to} to the {has} tokens of sequence {}, which has room for {most}",
                asid.0
            )));
        }
        self.lengths.insert(asid, page.to);
        self.loaded.insert(asid);
        Ok(())
    }

    fn check_resize(&self, tokens: u32) -> Result<(), DriverFault> {
        if tokens == 0 || tokens > POOL_TOKENS_MAX || !tokens.is_multiple_of(PAGE_TOKENS) {
            return Err(broken(format!("a pool of {tokens} tokens")));
        }
        for asid in (0..self.description.sequences).map(Asid) {
            let has = self.length(asid)?;
            if has > 0 {
                return Err(broken(format!("resize the pool while sequence {} holds {has} tokens", asid.0)));
            }
        }
        Ok(())
    }

    fn check_share(&mut self, from: Asid, to: Asid, length: u32) -> Result<(), DriverFault> {
        let (has, taken) = (self.length(from)?, self.length(to)?);
        if from == to || taken > 0 {
            return Err(broken(format!("share into sequence {}, which holds {taken} tokens", to.0)));
        }
        if length > has {
            return Err(broken(format!("share {length} of the {has} tokens of sequence {}", from.0)));
        }
        if length < has && !self.description.ranges {
            return Err(broken(format!("share a part of sequence {} of a model without ranges", from.0)));
        }
        self.lengths.insert(to, length);
        Ok(())
    }

    fn check_drop(&mut self, asid: Asid, from: u32) -> Result<(), DriverFault> {
        let has = self.length(asid)?;
        if from > has {
            return Err(broken(format!("drop from {from} the {has} tokens of sequence {}", asid.0)));
        }
        if 0 < from && from < has && !self.description.ranges {
            return Err(broken(format!("drop a part of sequence {} of a model without ranges", asid.0)));
        }
        self.lengths.insert(asid, from);
        Ok(())
    }

    fn check_row(&self, row: &Row) -> Result<(), DriverFault> {
        let (name, has) = (row.asid.0, self.length(row.asid)?);
        if row.position != has {
            let at = row.position;
            return Err(broken(format!("a row at position {at} of sequence {name}, which ends at {has}")));
        }
        if row.tokens.is_empty() {
            return Err(broken(format!("a row without tokens for sequence {name}")));
        }
        if self.loaded.contains(&row.asid) {
            return Err(broken(format!("a row for sequence {name}, which is loaded in the same step")));
        }
        let may_guess = row.sample && self.description.drafts;
        if !row.draft.is_empty() && !may_guess {
            return Err(broken(format!("guesses for sequence {name}, which cannot be checked")));
        }
        let vocabulary = self.description.vocabulary;
        if let Some(token) = row.tokens.iter().chain(&row.draft).find(|token| token.0 >= vocabulary) {
            return Err(broken(format!("token {token} of a vocabulary of {vocabulary}")));
        }
        let most = self.description.context_tokens;
        if has as usize + row.tokens.len() + row.draft.len() > most as usize {
            return Err(broken(format!("sequence {name} outgrows the context of {most} tokens")));
        }
        if row.sample && !self.samplers.contains(&row.asid) {
            return Err(broken(format!("sequence {name} has no sampler")));
        }
        Ok(())
    }
}

fn broken(what: String) -> DriverFault {
    DriverFault::new(Errno::EINVAL, format!("the kernel broke the driver's contract: {what}"))
}
