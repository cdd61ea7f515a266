//! Mounted models, and the worker process that each has.
//!
//! | state      | means                                       | leaves it by |
//! |------------|---------------------------------------------|--------------|
//! | loading    | it is inspected, waits for memory, or its first worker loads it | `Ready`; `Refused` or death, which undoes a mount that somebody waits for, and makes one from an earlier boot offline; a refusal for lack of memory, which undoes a mount or leaves it unloaded; where the system has no files, threads or memory to start a worker, a mount that somebody waits for is undone, and any other tried again, until another model wants its place |
//! | ready      | the worker takes steps and questions         | its death    |
//! | restarting | the worker died, or was killed and is about to, and another one is starting | `Ready`; `Refused` because of its file or too many deaths, which make it offline; where the system has no files, threads or memory to start a worker, another model that wants its place |
//! | offline    | nothing runs; contexts keep their logs       | `unmount`    |
//! | unloaded   | nothing runs: its memory is another model's; its contexts, if it has some, keep their logs and the pages that are saved | a call that uses it, or a generation on one of its contexts, which load it again when there is room, or it is its turn; `unmount` |
//!
//! A worker keeps nothing that the kernel could not do without. Its death costs each context one computation of
//! its log, and no call fails for it, but those that kill it twice.

mod choose;
mod culprit;
mod death;
mod hang;
mod mount;
mod questions;
mod report;

use std::collections::BTreeSet;
use std::sync::Arc;

use drivers::estimate::Estimate;
use drivers::wire::{Asid, LoadRequest, ModelDescription, Op};
use syscalls::call::{Attention, Mount};
use syscalls::{ContextId, Errno, Fault};

use super::Kernel;
use super::call::{CallNo, Opening};
use super::config::KernelConfig;
use super::counters::Counters;
use super::device::{Devices, Evacuation, Placement};
use super::event::{ModelId, Now, WorkerId};
use super::memory::{Memory, PageSent, PagingCost, Slots, Tree, WriteBehind};
use super::registration::Digest;
use super::sched::{InFlight, Sched};

pub(super) use choose::shown;
pub(super) use culprit::Culprits;
pub(super) use questions::Questions;

/// What a model is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Loading,
    Ready,
    Restarting,
    Offline(String),
    Unloaded,
}

/// A change of a pool, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resize {
    pub from: u32,
    pub to: u32,
}

/// One mounted model.
#[derive(Debug)]
pub(super) struct Model {
    pub id: ModelId,
    pub name: String,
    /// What was asked for, the name settled.
    pub mount: Mount,
    pub state: State,
    /// Which file it is, when the host has read it.
    pub digest: Option<Digest>,
    /// What it takes of memory, when the host has looked at its file.
    pub estimate: Option<Arc<Estimate>>,
    /// Where it is. It has a worker, or is about to get another, exactly while it has a place.
    pub placement: Option<Placement>,
    /// When it was last of use: loaded, asked, opened, or in a step.
    pub last_use: Now,
    /// When its worker last said something, or was first given something to do.
    pub heard: Now,
    /// The change of its pool that is to come after the step that runs.
    pub resize: Option<Resize>,
    /// It is to be unloaded when its pool is empty.
    pub evacuate: Option<Evacuation>,
    /// It runs since then, whatever becomes of its workers meanwhile.
    pub turn_since: Now,
    /// It is not loaded, and somebody waits for it since then.
    pub waits_since: Option<Now>,
    /// It was unloaded although it ran, and has not been loaded since.
    pub forced_out: bool,
    /// When its worker was last started, and how long that one, or one before, took to be ready, in microseconds.
    pub started: Now,
    pub load_us: u64,
    /// Its worker cannot change its pool.
    pub keeps_pool: bool,
    /// From the worker, when it has loaded for the first time.
    pub description: Option<Box<ModelDescription>>,
    pub incarnation: u32,
    pub worker_os_pid: u32,
    /// Its worker is not to be heard any more and has not ended; the next one is started so many milliseconds after that.
    pub successor_delay_ms: Option<u64>,
    /// Tries in a row to look at its file, or to start a worker, that the system was short of something for.
    pub shortages: u32,
    /// Of the worker that is ready; absent while there is none.
    pub memory: Option<Memory>,
    /// Which pages there are, in the pool and in slots.
    pub tree: Tree,
    /// Its part of the swap area, which outlives its workers.
    pub slots: Slots,
    pub paging: PagingCost,
    /// Pages that should be on disk.
    pub behind: WriteBehind,
    pub sched: Sched,
    /// What the worker must do to sequences before the rows of its next step.
    pub ops: Vec<Op>,
    /// What those of them that are about pages are for.
    pub page_ops: Vec<PageSent>,
    pub in_flight: Option<InFlight>,
    pub steps_begun: u64,
    pub questions: Questions,
    pub counters: Counters,
    /// All contexts on it, resident or not.
    pub contexts: BTreeSet<ContextId>,
    /// Contexts that were in a step in which a worker died; each runs alone until it has a token.
    pub suspects: BTreeSet<ContextId>,
    /// When workers died within the last ten minutes of what is no user's, ...
    pub deaths: Vec<Now>,
    /// ... and such deaths since one last did anything.
    pub deaths_in_a_row: u32,
    /// Who killed workers.
    pub culprits: Culprits,
    /// Calls of `mount` and `open` that wait until it is loaded.
    pub waiters: Vec<(CallNo, Option<Box<Opening>>)>,
}

impl Model {
    /// A model of which nothing is known but how it is to be loaded.
    pub(super) fn new(id: ModelId, name: String, mount: Mount) -> Self {
        Model {
            id,
            name,
            mount,
            state: State::Loading,
            digest: None,
            estimate: None,
            placement: None,
            last_use: Now(0),
            heard: Now(0),
            resize: None,
            evacuate: None,
            turn_since: Now(0),
            waits_since: None,
            forced_out: false,
            started: Now(0),
            load_us: 0,
            keeps_pool: false,
            description: None,
            incarnation: 0,
            worker_os_pid: 0,
            successor_delay_ms: None,
            shortages: 0,
            memory: None,
            tree: Tree::default(),
            slots: Slots::new(),
            paging: PagingCost::default(),
            behind: WriteBehind::default(),
            sched: Sched::default(),
            ops: Vec::new(),
            page_ops: Vec::new(),
            in_flight: None,
            steps_begun: 0,
            questions: Questions::default(),
            counters: Counters::default(),
            contexts: BTreeSet::new(),
            suspects: BTreeSet::new(),
            deaths: Vec::new(),
            deaths_in_a_row: 0,
            culprits: Culprits::default(),
            waiters: Vec::new(),
        }
    }

    /// Its worker of now.
    pub(super) fn worker(&self) -> WorkerId {
        WorkerId { model: self.id, incarnation: self.incarnation }
    }

    /// Of its file; 0 before it has been loaded for the first time.
    pub(super) fn fingerprint(&self) -> u64 {
        self.description.as_ref().map_or(0, |d| d.fingerprint)
    }

    /// Whether somebody waits for it to be mounted, and hears if it cannot be.
    pub(super) fn is_being_mounted(&self) -> bool {
        self.state == State::Loading && self.waiters.iter().any(|(_, open)| open.is_none())
    }

    /// Whether its worker takes steps.
    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Whether it has a place and no worker there, because the machine is short of what one takes.
    pub(super) fn is_starved(&self) -> bool {
        self.shortages > 0 && self.placement.is_some() && !self.is_ready()
    }

    /// Whether it has its worker, or nobody knows when it will.
    pub(super) fn is_settled(&self) -> bool {
        self.is_ready() || self.is_starved()
    }

    /// Whether contexts can be on it now: it is loaded, or was and is about to be again.
    pub(super) fn takes_contexts(&self) -> bool {
        matches!(self.state, State::Ready | State::Restarting)
    }

    /// Whether somebody waits for it to be loaded.
    pub(super) fn is_wanted(&self) -> bool {
        !self.waiters.is_empty() || self.questions.any() || !self.sched.line.is_empty()
    }

    /// Whether it may generate, as far as is known.
    pub(super) fn generates(&self) -> bool {
        self.description.as_ref().is_none_or(|d| d.generates)
    }

    /// Entries of its vocabulary.
    pub(super) fn vocabulary(&self) -> u32 {
        self.description.as_ref().map_or(0, |d| d.vocabulary)
    }

    /// The most tokens in one step.
    pub(super) fn batch_tokens(&self) -> u32 {
        self.description.as_ref().map_or(1, |d| d.batch_tokens)
    }

    /// Rows that the device computes at a time.
    pub(super) fn row_tile(&self) -> u32 {
        self.description.as_ref().map_or(1, |d| d.row_tile)
    }

    /// The most tokens that one context can have here: the window, and the pool.
    pub(super) fn context_tokens_max(&self) -> u32 {
        let pool = |d: &ModelDescription| d.pool_tokens - d.pool_tokens % drivers::wire::PAGE_TOKENS;
        self.description.as_ref().map_or(0, |d| d.context_tokens.min(pool(d)))
    }

    /// Checks that calls on it have a chance.
    ///
    /// # Errors
    ///
    /// ENODEV where its worker could not be kept running.
    pub(super) fn check_usable(&self) -> Result<(), Fault> {
        match &self.state {
            State::Offline(trouble) => Err(Fault::new(
                Errno::ENODEV,
                format!("model {} is offline: {trouble}; unmount it and mount it again", self.name),
            )),
            _ => Ok(()),
        }
    }

    /// How its worker is told to load it.
    pub(super) fn load_request(&self, config: &KernelConfig, devices: &Devices) -> LoadRequest {
        let fused = self.placement.is_some_and(|p| p.fused);
        let attention = if fused && self.mount.attention == Attention::Auto {
            Attention::Flash
        } else {
            self.mount.attention
        };
        let device = self.placement.map(|p| devices.name(p.device).to_owned());
        LoadRequest {
            path: self.mount.path.clone(),
            context_tokens: self.mount.context.map(|n| n.0),
            pool_tokens: self.placement.map(|p| p.pool_tokens),
            sequences_max: config.sequences_max,
            attention,
            device: device.or_else(|| self.mount.device.clone()),
            gpu_layers: self.placement.map(|p| p.gpu_layers).or(self.mount.gpu_layers),
            threads: self.mount.threads,
            cache_dir: config.cache_dir.clone(),
            name: self.name.clone(),
            deterministic: self.mount.deterministic,
            ..LoadRequest::default()
        }
    }

    /// Takes back the operations that would fill a sequence, if the worker has not been told of them and nobody
    /// shares what they would make. Copies that are made and closed without running so cost the worker nothing.
    pub(super) fn forget_shared(&mut self, asid: Asid) -> bool {
        let filled = |op: &Op| matches!(op, Op::Share { to, .. } if *to == asid);
        let Some(at) = self.ops.iter().rposition(filled) else { return false };
        let passed_on = |op: &Op| matches!(op, Op::Share { from, .. } if *from == asid);
        let paging = |op: &Op| op.is_paging() && concerns(op, asid);
        if self.ops[at..].iter().any(|op| passed_on(op) || paging(op)) {
            return false;
        }
        let later = self.ops.split_off(at);
        self.ops.extend(later.into_iter().filter(|op| !concerns(op, asid)));
        true
    }

    /// Frames of its pool, and those that are free.
    pub(super) fn frames(&self) -> (u32, u32) {
        self.memory.as_ref().map_or((0, 0), |m| (m.pool.total(), m.pool.free()))
    }

    /// Frames of its pool that hold remnants alone.
    pub(super) fn frames_cached(&self) -> u32 {
        self.memory.as_ref().map_or(0, |m| m.frames_cached())
    }
}

impl Kernel {
    /// The model of a worker, if the worker is the one that runs it now and has neither died nor been given up.
    pub(super) fn live_model(&mut self, worker: WorkerId) -> Option<&mut Model> {
        let model = self.models.get_mut(&worker.model)?;
        (model.worker() == worker && model.successor_delay_ms.is_none()).then_some(model)
    }
}

/// Whether an operation changes a sequence.
fn concerns(op: &Op, asid: Asid) -> bool {
    match op {
        Op::Share { to, .. } => *to == asid,
        Op::Drop { asid: of, .. }
        | Op::SamplerOpen { asid: of, .. }
        | Op::SamplerClose { asid: of }
        | Op::Save { asid: of, .. }
        | Op::Load { asid: of, .. } => *of == asid,
        Op::Move { .. } | Op::Resize { .. } | Op::Clear => false,
    }
}
