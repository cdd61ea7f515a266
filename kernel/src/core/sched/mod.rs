//! The scheduler: which contexts have a row in the next step of a model, and how long the row is.
//!
//! Each model is a processor of its own, and a step, one batched forward pass, is its quantum:
//!
//! - **Memory first.** A generation runs when its context is in memory. Those that are not wait in a [`Line`]: by
//!   class, then in the order of the policy; under `fair` those first whose process has least contexts running here
//!   for its weight.
//!   Who is at a hard limit of his own, be it frames or a rate, is passed over with those of his process, or group,
//!   behind him, and holds nobody else up, however many such there are.
//! - **Decode.** Every running context that lacks one token only has a row in every step, so a step serves all at
//!   once, except that a process sits out steps where the policy says so ([`policy`]).
//! - **Prefill.** What a step can take beside that goes to prompts in chunks, by class and in the order of the
//!   policy. Beside rows that decode in the prompt's class or a higher one, chunks are cut so that the step is not
//!   expected to take longer than [`KernelConfig::latency_target_percent`] of its time without them; otherwise they
//!   fill the batch, up to what is expected to take [`KernelConfig::step_us_max`]. By default a prompt that arrives
//!   makes a step twice as long, and has half of the device; the step stays below three times the normal one also where
//!   it takes half as long again by chance. Costs are measured and know depth ([`cost`]), so
//!   chunks shrink as a prompt becomes deep; one step that took far too long says little ([`fit`]).
//! - **Bursts.** The target is for those in the middle of a text when a prompt comes. Prompts that were there before a
//!   generation's first token are its peers: they are computed in full chunks beside it, so that a burst of requests
//!   soon decodes together, which costs each a fraction of what it costs alone. A generation lets its peers go first
//!   for one batch of tokens in its life and no more.
//! - **Classes** are strict: memory and prompts go to the higher class first, and lower classes have rows beside it
//!   only while the step is not expected to become a quarter longer for it, or where they are cheap: within the latency
//!   target, at half the price of a row alone. But nobody starves: a class that has
//!   something to compute below others is owed a twentieth of the device's time. What it has not had of it is kept,
//!   and what it had beyond it is held against it, up to [`OWED_US_MAX`]; while it is owed anything, it has as many
//!   rows as make up for that, or a chunk, in every step. So in any span of time T in which it is backlogged (in
//!   memory) it is charged with at least T / 20 − 2 [`OWED_US_MAX`], or all its contexts have rows in every step.
//!   A class that higher ones keep out of memory is owed the same, and has a turn there when it is owed
//!   [`OWED_US_MAX`] ([`guest`]). Waiting raises nobody above his class, and nobody but `realtime` keeps others from
//!   ever getting on.
//! - **Service** is a process's share of the measured time of the steps that it had rows in, kept for its whole
//!   life. [`policy::fair`] derives what `fair`, the default, guarantees between two processes.
//!
//! A generation that runs keeps its memory until it ends unless a higher class wants it, a class that is kept out has a
//! turn, or its process has used a rate up; so processes of one class wait for each other's generations where memory is
//! short.
//!
//! [`KernelConfig::latency_target_percent`]: super::KernelConfig::latency_target_percent
//! [`KernelConfig::step_us_max`]: super::KernelConfig::step_us_max

mod account;
mod admit;
mod charge;
mod choose;
mod complete;
mod cost;
mod dispatch;
mod draft;
mod fit;
mod guest;
mod limits;
mod line;
mod place;
mod plan;
pub mod policy;
mod preempt;
mod pressure;
mod rate;
mod running;
mod suspect;
mod take;
mod weight;

use std::collections::BTreeSet;

use syscalls::call::Class;
use syscalls::{ContextId, Pid, Token};

use super::KernelConfig;
use super::call::CallNo;
use super::event::Now;
use super::group::GroupId;
use super::memory::PageSent;
use account::{AccountNo, Accounts};
use admit::Look;
use guest::Turns;
use plan::Candidate;

pub(super) use account::{Clock, Spread, virtual_time};
pub(super) use complete::died_twice;
pub(super) use cost::Cost;
pub(super) use draft::Drafter;
pub(super) use line::Line;
pub(super) use pressure::Pressure;
pub(super) use rate::Bucket;
pub(super) use running::{Owner, Runner, Running};
pub(super) use weight::weight;

/// All classes, highest first.
const CLASSES: [Class; 4] = [Class::Realtime, Class::Interactive, Class::Normal, Class::Batch];

/// A class below others is owed one part in so many of the time in which it is backlogged.
pub(super) const OWED_SHARE: i64 = 20;

/// The most that a class is owed, in microseconds, so that it does not get much at once after a long wait.
pub(super) const OWED_US_MAX: i64 = 1_000_000;

/// Where a context is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: not in memory, nothing to run.
    Parked,
    /// In memory with nothing to run, with the time at which its process usually is back, in microseconds.
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
    /// The generations in memory.
    pub running: Running,
    idle: BTreeSet<(u64, ContextId)>,
    pub line: Line,
    pub(super) accounts: Accounts,
    pub cost: Cost,
    /// When somebody who has used his rate up may go on.
    pub throttled_until: Option<Now>,
    /// Counts plans.
    plans: u64,
    /// What each class is owed, in microseconds; below 0 what it had too much.
    owed_us: [i64; 4],
    /// The highest class that something has become ready in since the step that runs began.
    arrived: Option<Class>,
    /// The highest class in the last step that was withdrawn, and how many were since one of that or lower ran through.
    withdrawn: (Class, u32),
    /// When a context last became idle or left a remnant: orders these.
    ticks: u64,
    /// A running context had to give way to a growing one: nobody comes in until a generation ends, or they would
    /// take each other's pages in turns.
    pub full: bool,
    /// Running contexts that have no row in the step that is planned: nobody waits for what these compute.
    pub held_back: BTreeSet<ContextId>,
    /// Rows of a step that is done, and candidates of a plan that is made: only the room for them is used again.
    rows: Vec<RowSent>,
    candidates: Vec<Candidate>,
    /// Processes that were too far ahead of others for rows at the last plan: nobody waits for what these compute.
    pub sits_out: BTreeSet<Pid>,
    /// The last plan was for a suspect alone.
    suspect_had_turn: bool,
    /// What classes are owed that are kept out of memory.
    turns: Turns,
    /// Who waits for a prefix that another process computes, at the last plan.
    pub for_prefixes: PrefixWaits,
    /// The period of the policy by which those in line stand there.
    period: u64,
    /// A look along the line that was too long for one step.
    look: Option<Look>,
}

/// Processes that compute what others wait for, each with the process and the context that waits.
pub(super) type PrefixWaits = BTreeSet<(Pid, Pid, ContextId)>;

impl Sched {
    /// The contexts in memory without a generation, each with when its next one is due, in the order of that.
    pub(super) fn idle_by_due(&self) -> impl DoubleEndedIterator<Item = (u64, ContextId)> {
        self.idle.iter().copied()
    }

    /// A number that is later than all before it: the time of now in microseconds, or the least behind the last one.
    pub(super) fn tick(&mut self, now: Now) -> u64 {
        self.ticks = now.0.max(self.ticks + 1);
        self.ticks
    }

    /// The last of these numbers.
    pub(super) fn ticks(&self) -> u64 {
        self.ticks
    }

    /// How far ahead a process may be under `fair`, by what tokens are known to take.
    fn fair_lag_us(&self, config: &KernelConfig) -> u64 {
        self.cost.prefill_us(config.fair_lag_tokens).unwrap_or(0).max(config.fair_lag_us)
    }

    /// Forgets what was true of a pool that is gone.
    pub(super) fn forget_pool(&mut self) {
        (self.full, self.throttled_until, self.look) = (false, None, None);
    }

    /// Whether a class is owed time.
    fn owes(&self, class: Class) -> bool {
        self.owed_us[class as usize] > 0
    }

    /// Forgets what a process has attained.
    pub(super) fn forget(&mut self, pid: Pid) {
        self.accounts.forget(pid);
    }

    /// Credits classes that were backlogged below others with their share of a step, and debits what they had.
    fn settle_debts(&mut self, backlog: [bool; 4], charged: [u64; 4], elapsed_us: u64) {
        let highest = backlog.iter().position(|b| *b);
        let share = i64::try_from(elapsed_us).unwrap_or(i64::MAX) / OWED_SHARE;
        for class in 0..CLASSES.len() {
            let below = backlog[class] && highest.is_some_and(|highest| highest < class);
            let had = i64::try_from(charged[class]).unwrap_or(i64::MAX);
            self.owed_us[class] = match below {
                true => (self.owed_us[class] + share).saturating_sub(had).clamp(-OWED_US_MAX, OWED_US_MAX),
                false => 0,
            };
        }
    }
}

/// A step that is planned.
#[derive(Debug, Default)]
pub(super) struct Plan {
    rows: Vec<RowSent>,
    /// The classes that had something to compute.
    backlog: [bool; 4],
    /// How long it is expected to take; 0 if that is not known.
    expected_us: u64,
}

/// A row of a step that runs.
#[derive(Debug)]
pub(super) struct RowSent {
    pub context: ContextId,
    pub owner: Pid,
    pub account: AccountNo,
    pub group: GroupId,
    pub class: Class,
    pub call: CallNo,
    /// Tokens of the context that are its prompt: what came before its generation.
    pub prompt: u32,
    pub position: u32,
    pub tokens: u32,
    pub sample: bool,
    /// Guesses of the tokens that come next.
    pub draft: Vec<Token>,
}

impl RowSent {
    /// Whether it continues a generation rather than working on a prompt.
    pub(super) fn decodes(&self) -> bool {
        self.tokens == 1 && self.sample
    }
}

impl InFlight {
    /// The rows of each process, one process after another. Those of a process stand together unless its contexts rank
    /// apart, and what concerns the process is done once for all that do.
    pub(super) fn of_each_process(&self) -> impl Iterator<Item = &[RowSent]> {
        self.rows.chunk_by(|a, b| a.owner == b.owner)
    }
}

/// The step that runs.
#[derive(Debug)]
pub(super) struct InFlight {
    pub number: u64,
    pub since: Now,
    pub rows: Vec<RowSent>,
    /// The classes that had something to compute.
    pub backlog: [bool; 4],
    /// How long it is expected to take; 0 if that is not known.
    pub expected_us: u64,
    /// How many rows are of processes of each group.
    pub groups: Vec<(GroupId, i32)>,
    /// The worker has been told to stop it.
    pub withdrawn: bool,
    /// What its operations on pages are for.
    pub pages: Vec<PageSent>,
    /// Frames that were free when it began.
    pub frames_free: u32,
}
