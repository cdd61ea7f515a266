//! Runs steps on KV cells that hold tokens instead of keys and values.
//!
//! A cell belongs to one position of one or more sequences. It remembers its token and a hash of all that stood
//! before it when it was computed, as real KV entries do: a sequence put together from wrong pages has a wrong
//! hash, and so generates other text.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smallvec::smallvec;
use syscalls::{Errno, Token};

use super::clock::Clock;
use super::sample::{Content, SimSampler, mix};
use super::script::Script;
use super::swap::{SimSwap, damaged};
use super::text::{SimText, piece};
use crate::contract::Contract;
use crate::wire::{
    Asid, DriverFault, ModelDescription, Op, PageLabel, Row, RowDone, Sampled, Slot, Step, StepDone, Vector,
};
use crate::{Driver, TextCodec};

#[derive(Clone, PartialEq, Eq)]
struct Cell {
    token: Token,
    /// Of this token and all before it.
    hash: u64,
    /// Sequences that hold it; the cell is free at 0.
    holders: u16,
}

/// A cell that nobody has used, or that was cleared.
const CLEAR: Cell = Cell { token: Token(0), hash: 0, holders: 0 };

/// A driver that follows a script.
pub struct SimDriver {
    script: Script,
    description: ModelDescription,
    clock: Arc<dyn Clock>,
    text: Arc<SimText>,
    cells: Vec<Cell>,
    free: Vec<u32>,
    /// The cells of each sequence, by position.
    sequences: Vec<Vec<u32>>,
    samplers: BTreeMap<Asid, SimSampler>,
    steps_run: u64,
    swap: SimSwap,
    pages_loaded: u64,
}

impl SimDriver {
    pub(super) fn new(
        script: Script,
        description: ModelDescription,
        clock: Arc<dyn Clock>,
        swap: SimSwap,
    ) -> Self {
        let said = description.pool_tokens;
        let pool = if script.cells == 0 { said } else { script.cells.min(said) };
        SimDriver {
            text: Arc::new(SimText::new(&script, clock.clone())),
            cells: vec![CLEAR; pool as usize],
            free: (0..pool).rev().collect(),
            sequences: vec![Vec::new(); description.sequences.into()],
            samplers: BTreeMap::new(),
            steps_run: 0,
            swap,
            pages_loaded: 0,
            script,
            description,
            clock,
        }
    }

    /// The tokens that a sequence holds.
    pub fn held(&self, asid: Asid) -> Vec<Token> {
        let cells = self.sequences.get(usize::from(asid.0)).map_or(&[][..], |cells| cells);
        cells.iter().map(|cell| self.cells[*cell as usize].token).collect()
    }

    /// Cells that no sequence holds and that still have what one held.
    pub fn cells_left(&self) -> usize {
        self.free.iter().filter(|cell| self.cells[**cell as usize] != CLEAR).count()
    }

    /// Cells that no sequence holds.
    pub fn cells_free(&self) -> u32 {
        self.free.len() as u32
    }

    fn faults(&mut self, step: &Step) -> Result<(), DriverFault> {
        self.steps_run += 1;
        let script = &self.script;
        if script.hang_at_step == step.number && step.number > 0 {
            self.clock.hang();
        }
        let worn_out = script.die_every > 0 && self.steps_run.is_multiple_of(script.die_every);
        if worn_out || (script.die_at_step == step.number && step.number > 0) {
            self.clock.abort(&format!("step {}", step.number));
        }
        if script.fail_step == step.number && step.number > 0 {
            return Err(DriverFault::new(Errno::EIO, format!("the script fails step {}", step.number)));
        }
        Ok(())
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Share { from, to, length } => {
                // As far as it is there: a page of it may have failed to load in this step.
                let held = &self.sequences[usize::from(from.0)];
                let shared = held[..held.len().min(*length as usize)].to_vec();
                for cell in &shared {
                    self.cells[*cell as usize].holders += 1;
                }
                self.sequences[usize::from(to.0)] = shared;
            }
            Op::Drop { asid, from } => self.cut(*asid, *from as usize),
            Op::SamplerOpen { asid, sampler } => {
                self.samplers.insert(*asid, SimSampler::new((**sampler).clone()));
            }
            Op::SamplerClose { asid } => {
                self.samplers.remove(asid);
            }
            Op::Clear => {
                let cells = &mut self.cells;
                self.free.iter().for_each(|cell| cells[*cell as usize] = CLEAR);
            }
            Op::Save { .. } | Op::Load { .. } | Op::Move { .. } | Op::Resize { .. } => {}
        }
    }

    /// Does one of the operations whose outcome is reported; tells the time that it takes.
    fn page(&mut self, op: &Op) -> Result<u64, DriverFault> {
        match op {
            Op::Save { asid, page, slot } => {
                let held = self.sequences[usize::from(asid.0)].get(page.from as usize..page.to as usize);
                let held = held.ok_or_else(|| missing(*asid))?;
                let cells = held.iter().map(|cell| &self.cells[*cell as usize]).map(|c| (c.token, c.hash));
                self.swap.save(&self.script, *slot, *page, cells.collect())?;
                Ok(self.script.save_us)
            }
            Op::Load { asid, page, slot } => self.load_page(*asid, *page, *slot),
            Op::Move { from, to } => {
                self.swap.copy(&self.script, *from, *to)?;
                Ok(self.script.save_us)
            }
            Op::Resize { tokens } => {
                self.cells = vec![CLEAR; *tokens as usize];
                self.free = (0..*tokens).rev().collect();
                Ok(0)
            }
            Op::Share { .. }
            | Op::Drop { .. }
            | Op::SamplerOpen { .. }
            | Op::SamplerClose { .. }
            | Op::Clear => Ok(0),
        }
    }

    fn load_page(&mut self, asid: Asid, page: PageLabel, slot: Slot) -> Result<u64, DriverFault> {
        self.pages_loaded += 1;
        let damage = self.script.corrupt_every;
        if damage > 0 && self.pages_loaded.is_multiple_of(damage) {
            return Err(damaged(slot, "a damaged one, by the script"));
        }
        let held = self.sequences[usize::from(asid.0)].len() as u32;
        if held != page.from {
            let message = format!("sequence {} ends at {held}: the page before was not loaded", asid.0);
            return Err(DriverFault::new(Errno::EIO, message));
        }
        let cells = self.swap.load(slot, page)?;
        if cells.len() > self.free.len() {
            let message = format!("a page needs {} cells and {} are free", cells.len(), self.free.len());
            return Err(DriverFault::new(Errno::ENOMEM, message));
        }
        for (token, hash) in cells {
            let cell = self.free.pop().expect("there are as many free cells as the page has");
            self.cells[cell as usize] = Cell { token, hash, holders: 1 };
            self.sequences[usize::from(asid.0)].push(cell);
        }
        Ok(self.script.load_us)
    }

    fn cut(&mut self, asid: Asid, length: usize) {
        let length = length.min(self.sequences[usize::from(asid.0)].len());
        for cell in self.sequences[usize::from(asid.0)].drain(length..) {
            let held = &mut self.cells[cell as usize];
            held.holders -= 1;
            if held.holders == 0 {
                self.free.push(cell);
            }
        }
    }

    fn run_row(&mut self, row: &Row) -> RowDone {
        if self.sequences[usize::from(row.asid.0)].len() != row.position as usize {
            return RowDone::Failed(missing(row.asid));
        }
        let cells = row.tokens.len() + row.draft.len();
        if cells > self.free.len() {
            let message = format!(
                "the row needs {cells} cells and {} of {} are free; drop sequences first",
                self.free.len(),
                self.cells.len(),
            );
            return RowDone::Failed(DriverFault::new(Errno::ENOMEM, message));
        }
        let sampler = self.samplers.get(&row.asid).filter(|_| row.sample);
        if let Some(trouble) = sampler.and_then(SimSampler::trouble) {
            return RowDone::Failed(trouble);
        }
        self.fill(row.asid, &row.tokens);
        if !row.sample {
            return RowDone::Computed;
        }
        let mut chosen = smallvec![self.choose(row.asid)];
        for guess in &row.draft {
            let last: &Sampled = &chosen[chosen.len() - 1];
            if last.end || last.token != *guess {
                break;
            }
            self.fill(row.asid, &[*guess]);
            chosen.push(self.choose(row.asid));
        }
        RowDone::Sampled(chosen)
    }

    fn choose(&mut self, asid: Asid) -> Sampled {
        let content = Content { hash: self.hash_of(asid), tokens: self.seen_by_sampler(asid) };
        let sampler = self.samplers.get_mut(&asid).expect("the step was checked to have a sampler here");
        sampler.next(&self.script, &content)
    }

    /// All tokens where the script makes text out of the prompt; otherwise the last one is enough.
    fn seen_by_sampler(&self, asid: Asid) -> Vec<Token> {
        if self.script.reads_prompts() {
            return self.held(asid);
        }
        let last = self.sequences[usize::from(asid.0)].last();
        last.map(|cell| self.cells[*cell as usize].token).into_iter().collect()
    }

    fn hash_of(&self, asid: Asid) -> u64 {
        let last = self.sequences[usize::from(asid.0)].last();
        last.map_or(self.script.seed, |cell| self.cells[*cell as usize].hash)
    }

    fn fill(&mut self, asid: Asid, tokens: &[Token]) {
        let mut hash = self.hash_of(asid);
        for token in tokens {
            hash = mix(hash, token.0.into());
            let cell = self.free.pop().expect("there are as many free cells as tokens");
            self.cells[cell as usize] = Cell { token: *token, hash, holders: 1 };
            self.sequences[usize::from(asid.0)].push(cell);
        }
        if let Some(needle) = &self.script.die_on_text {
            let held = self.held(asid);
            let seen = held.len().saturating_sub(tokens.len() + needle.len());
            let bytes: Vec<u8> = held[seen..].iter().flat_map(|token| piece(*token)).collect();
            self.text.survive(&bytes);
        }
    }

    /// The time that rows take, in microseconds, whatever operations come before them.
    pub fn cost_us(&self, rows: &[Row]) -> u64 {
        let script = &self.script;
        let row_us = |row: &Row| {
            let (tokens, depth) = ((row.tokens.len() + row.draft.len()) as u64, u64::from(row.position));
            let pairs = tokens * depth + tokens * (tokens - 1) / 2;
            let depth_ns = script.depth_ns * pairs + script.row_depth_ns * depth;
            script.row_us + script.token_us * tokens + depth_ns / 1000
        };
        let tokens: u64 = rows.iter().map(|row| (row.tokens.len() + row.draft.len()) as u64).sum();
        let rest = tokens.next_multiple_of(script.tile.max(1).into()) - tokens;
        script.step_us + rows.iter().map(row_us).sum::<u64>() + rest * script.token_us
    }

    /// Runs a step that is withdrawn when so many of its rows are through, as a driver does that can stop a pass.
    ///
    /// # Errors
    ///
    /// As [`Driver::step`].
    pub fn step_withdrawn(&mut self, step: &Step, through: usize) -> Result<StepDone, DriverFault> {
        self.faults(step)?;
        let samplers = self.samplers.keys().copied().collect();
        let held = |asid: Asid| self.sequences.get(usize::from(asid.0)).map(|cells| cells.len() as u32);
        Contract::new(&self.description, &held, samplers).check(step)?;
        let mut pages = Vec::new();
        for op in &step.ops {
            self.apply(op);
            if op.is_paging() {
                pages.push(self.page(op));
            }
        }
        let mut rows = Vec::with_capacity(step.rows.len());
        for (at, row) in step.rows.iter().enumerate() {
            if at >= through {
                rows.push(RowDone::Withdrawn);
            } else if at == 0 && self.script.fail_row_at_step == step.number && step.number > 0 {
                let message = format!("the script fails the first row of step {}", step.number);
                rows.push(RowDone::Failed(DriverFault::new(Errno::EIO, message)));
            } else {
                rows.push(self.run_row(row));
            }
            let lost = matches!(rows.last(), Some(RowDone::Failed(fault)) if fault.errno != Errno::ENOMEM);
            if lost && !self.description.ranges {
                self.cut(row.asid, 0);
            }
        }
        let paging_us: u64 = pages.iter().flatten().sum();
        let elapsed_us = self.cost_us(&step.rows[..through.min(step.rows.len())]) + paging_us;
        self.clock.sleep(Duration::from_micros(elapsed_us));
        if self.script.garbage_at_step == step.number && step.number > 0 {
            return Ok(StepDone {
                number: step.number.wrapping_add(1),
                rows: Vec::new(),
                elapsed_us: u64::MAX,
                pages: Vec::new(),
            });
        }
        Ok(StepDone { number: step.number, rows, elapsed_us, pages })
    }
}

/// The fault of what needs entries that a page of the same step was to bring.
fn missing(asid: Asid) -> DriverFault {
    let message = format!("entries of sequence {} are missing: a page before was not loaded", asid.0);
    DriverFault::new(Errno::EIO, message)
}

impl Driver for SimDriver {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn step(&mut self, step: &Step) -> Result<StepDone, DriverFault> {
        self.step_withdrawn(step, usize::MAX)
    }

    fn text(&self) -> Arc<dyn TextCodec> {
        self.text.clone()
    }

    fn embed(&mut self, texts: &[Vec<Token>]) -> Result<Vec<Vector>, DriverFault> {
        if !self.script.embeds {
            return Err(DriverFault::new(Errno::ENOSYS, "this model is no encoder"));
        }
        if let Some(long) = texts.iter().find(|text| text.len() > self.description.context_tokens as usize) {
            let message = format!(
                "the text has {} tokens and the window {}; split it",
                long.len(),
                self.description.context_tokens
            );
            return Err(DriverFault::new(Errno::ENOSPC, message));
        }
        let length = self.description.embedding as usize;
        Ok(texts.iter().map(|text| bag_of_words(text, length)).collect())
    }
}

/// Counts words by their hashes, so that texts with words in common have vectors near each other.
fn bag_of_words(text: &[Token], length: usize) -> Vector {
    let bytes: Vec<u8> = text.iter().filter_map(|token| u8::try_from(token.0).ok()).collect();
    let text = String::from_utf8_lossy(&bytes).to_lowercase();
    let mut vector = vec![0.0; length];
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let hash = word.bytes().fold(1, |hash, byte| mix(hash, byte.into()));
        vector[(hash % length as u64) as usize] += if hash >> 63 == 0 { 1.0 } else { -1.0 };
    }
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if norm == 0.0 {
        vector[0] = 1.0;
    } else {
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    vector
}
