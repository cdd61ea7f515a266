//! The scheduler: which contexts have a row in the next step of a model, and how long the row is.
//!
//! The policy is `fair`, and each model is a processor of its own:
//!
//! - **Memory first.** A generation runs when its context is in memory. Those that are not wait in a [`Line`]:
//!   by class, then those whose process has least contexts running here for its weight, then by virtual time.
//! - **Decode.** Every running context that lacks one token only has a row in every step, so a step serves all at
//!   once. Processes of lower weight (nice above another's in the same class) sit out steps in proportion. The
//!   class `batch` has rows only while they are not expected to make the step a quarter longer.
//! - **Prefill.** What a step can take beside that goes to prompts in chunks, by class and then by virtual time.
//!   While somebody decodes, chunks are cut so that the step is expected to take twice as long as without them, at
//!   least [`KernelConfig::prefill_tokens_min`] tokens; otherwise they fill the batch, up to the tokens that are
//!   expected to take [`KernelConfig::step_us_max`].
//! - **Virtual time** is a process's share of the measured time of the steps that it had rows in, divided by the
//!   weight of its nice value; one that comes (back) begins at the time of its class.
//!
//! The limits of this policy: service is fair between processes where they compete for prefill and for memory,
//! but a decode step gives a token to each *context*, because leaving rows out of a batch saves less than it
//! costs. A generation that runs keeps its memory until it ends unless a higher class wants it, so processes of
//! one class wait for each other's generations where memory is short. `batch` may starve; that is what it is for.
//!
//! [`KernelConfig::prefill_tokens_min`]: super::KernelConfig::prefill_tokens_min
//! [`KernelConfig::step_us_max`]: super::KernelConfig::step_us_max

mod complete;
mod cost;
mod dispatch;
mod fair;
mod line;
mod place;
mod plan;

use std::collections::{BTreeMap, BTreeSet};

use syscalls::call::Class;
use syscalls::{ContextId, Pid};

use super::call::CallNo;
use super::event::Now;
use super::memory::PageSent;

pub(super) use complete::died_twice;
pub(super) use cost::Cost;
pub(super) use fair::{Fair, weight};
pub(super) use line::Line;

/// Where a context is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: not in memory, nothing to run.
    Parked,
    /// In memory with nothing to run; the number orders these by when they ran last.
    Idle(u64),
    /// A generation that waits for memory.
    Waiting,
    /// A generation in memory.
    Running,
}

impl Place {
    /// Whether a context there has a generation to go on with.
    pub(super) fn runs(self) -> bool {
        matches!(self, Place::Waiting | Place::Running)
    }
}

/// The scheduler of one model.
#[derive(Debug, Default)]
pub(super) struct Sched {
    running: BTreeSet<(Pid, ContextId)>,
    idle: BTreeSet<(u64, ContextId)>,
    pub line: Line,
    fair: BTreeMap<Pid, Fair>,
    /// Virtual times at which newcomers of each class begin.
    clocks: [Fair; 4],
    pub cost: Cost,
    /// Counts contexts that became idle.
    ticks: u64,
    /// A running context had to give way to a growing one: nobody comes in until a generation ends, or they would
    /// take each other's pages in turns.
    pub full: bool,
    /// Running contexts that have no row in the step that is planned: nobody waits for what these compute.
    pub held_back: BTreeSet<ContextId>,
}

impl Sched {
    /// The contexts in memory with a generation, by process.
    pub(super) fn running(&self) -> impl Iterator<Item = ContextId> {
        self.running.iter().map(|(_, c)| *c)
    }

    /// Contexts of a process that run.
    pub(super) fn running_of(&self, pid: Pid) -> usize {
        self.running.range((pid, ContextId(0))..=(pid, ContextId(u64::MAX))).count()
    }

    /// The contexts in memory without a generation, each with the number that orders it, the one that ran longest
    /// ago first.
    pub(super) fn idle_since(&self) -> impl Iterator<Item = (u64, ContextId)> {
        self.idle.iter().copied()
    }

    /// A number that is later than all before it.
    pub(super) fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    /// The last of these numbers.
    pub(super) fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Forgets what a process has attained.
    pub(super) fn forget(&mut self, pid: Pid) {
        self.fair.remove(&pid);
    }

    /// Brings what a process has attained to its new class and nice value: times of two classes say nothing about
    /// each other, and a process that was slow is not to sit out the steps that it would have missed.
    pub(super) fn reclass(&mut self, pid: Pid, (class, nice): (Class, i8), moved: bool) {
        let clock = *self.clock(class);
        if let Some(fair) = self.fair.get_mut(&pid) {
            let pace = fair.pace.min(clock.pace.saturating_add(fair::stride(nice)));
            *fair = if moved { clock } else { Fair { pace, ..*fair } };
        }
    }

    /// What a process has attained; nothing yet for one that has never run here.
    pub(super) fn attained(&self, pid: Pid) -> Fair {
        self.fair.get(&pid).copied().unwrap_or_default()
    }

    fn clock(&mut self, class: Class) -> &mut Fair {
        &mut self.clocks[class as usize]
    }
}

/// A row of a step that runs.
#[derive(Debug)]
pub(super) struct RowSent {
    pub context: ContextId,
    pub owner: Pid,
    pub class: Class,
    pub call: CallNo,
    /// Tokens of the context that are its prompt: what came before its generation.
    pub prompt: u32,
    pub position: u32,
    pub tokens: u32,
    pub sample: bool,
}

impl RowSent {
    /// Whether it continues a generation rather than working on a prompt.
    pub(super) fn decodes(&self) -> bool {
        self.tokens == 1 && self.sample
    }
}

/// The step that runs.
#[derive(Debug)]
pub(super) struct InFlight {
    pub number: u64,
    pub since: Now,
    pub rows: Vec<RowSent>,
    /// What its operations on pages are for.
    pub pages: Vec<PageSent>,
}
