//! Checks a step as a whole before anything of it is done, so that a refused step changes nothing, and so that
//! llama.cpp never sees what it would answer with an abort.

use std::collections::{BTreeMap, BTreeSet};

use drivers::wire::{Asid, DriverFault, ModelDescription, Op, Row, Step};
use syscalls::Errno;

use super::pool::Pool;

/// What steps are checked against.
pub struct Contract<'a> {
    description: &'a ModelDescription,
    pool: &'a Pool,
    /// Lengths of the sequences that the operations so far would change.
    lengths: BTreeMap<Asid, u32>,
    /// Sequences that have a sampler after the operations so far.
    samplers: BTreeSet<Asid>,
}

impl<'a> Contract<'a> {
    /// The contract as it stands between two steps.
    pub fn new(description: &'a ModelDescription, pool: &'a Pool, samplers: BTreeSet<Asid>) -> Self {
        Contract { description, pool, lengths: BTreeMap::new(), samplers }
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
        let tokens: usize = step.rows.iter().map(|row| row.tokens.len()).sum();
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
        let held =
            self.pool.length(asid).filter(|_| asid.0 < sequences).ok_or_else(|| {
                broken(format!("sequence {} does not exist: there are {sequences}", asid.0))
            })?;
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
            Op::Save { .. } | Op::Load { .. } | Op::Move { .. } | Op::Resize { .. } => {
                Err(broken("pages of this model cannot be saved".into()))
            }
        }
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
        let vocabulary = self.description.vocabulary;
        if let Some(token) = row.tokens.iter().find(|token| token.0 >= vocabulary) {
            return Err(broken(format!("token {token} of a vocabulary of {vocabulary}")));
        }
        let most = self.description.context_tokens;
        if has as usize + row.tokens.len() > most as usize {
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
