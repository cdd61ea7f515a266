//! The main loop: takes an input, steps the kernel, performs the effects.
//!
//! A turn takes what is there, up to a bound, and then writes what it has to say: all that one turn has for one
//! peer leaves in one write, workers first, because they hold the device up. Only what a program that asked is told at once
//! does not wait for the others of the turn. The loop waits nowhere but for inputs, with one exception: a record is
//! durable before the effects behind it are performed.
//!
//! It ends in order: nobody is taken in any more; who has just connected is heard, if he makes use of it in time; the
//! kernel ends, and who has not been greeted is let go, with nothing said to him and nothing done for him; then programs
//! and workers end. So a connection that ends before it is greeted can be made again without a second thought.

mod perform;
mod speak;
mod take_in;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use syscalls::limits::REQUEST_BYTES_WAITING_MAX;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use super::digest::Digests;
use super::groups::Groups;
use super::halves::Halves;
use super::input::Input;
use super::inspect::Inspector;
use super::programs::{self, Programs};
use super::settings::Flags;
use super::starter::Starter;
use super::store::StoreThread;
use super::store::journal::Journal;
use super::store::values::ValuesThread;
use super::swap::Swaps;
use super::systemd::ServiceManager;
use super::turns::Turns;
use super::watch::Watch;
use super::workers::{self, Workers};
use crate::core::Kernel;
use crate::core::effect::{Effect, Record};
use crate::core::event::{ConnId, Event, Now};
use speak::FAREWELL_PATIENCE;

/// Inputs of one turn: enough to gather the writes of a burst, few enough that nobody waits long for his.
const TURN_INPUTS_MAX: usize = 64;

/// How long the kernel may take to end after the daemon was asked to, beside what it takes to write pages.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How long the rest may take when the kernel has ended: what is still to be said, programs, workers, and the disk.
const LEAVE_PATIENCE: Duration = FAREWELL_PATIENCE
    .saturating_add(programs::END_PATIENCE)
    .saturating_add(workers::END_PATIENCE)
    .saturating_add(DISK_PATIENCE);

/// How long the stores may take to write what they have when they are closed.
const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// What the loop is given to act with.
pub struct Means {
    pub store: StoreThread,
    pub values: ValuesThread,
    pub journal: Journal,
    pub swaps: Swaps,
    /// The worker's executable.
    pub driver: PathBuf,
    pub programs: Programs,
    /// Which files models are.
    pub digests: Arc<Digests>,
    /// What takes connections in.
    pub acceptor: AbortHandle,
    /// Where the acceptor is told of process groups that are gone.
    pub gone: mpsc::Sender<u32>,
    /// What starts workers.
    pub starter: Arc<Starter>,
    /// The line of newcomers, and of those who ask and are not brisk.
    pub turns: Turns,
    /// What the configuration is settled from.
    pub flags: Flags,
    /// How long the kernel may take to write pages when it is asked to end.
    pub save_at_end: Duration,
}

/// The kernel and all that it acts on.
pub struct Reactor {
    kernel: Kernel,
    started: Instant,
    effects: Vec<Effect>,
    /// What the host has to tell the kernel after the effects at hand.
    pending: VecDeque<Event>,
    connections: BTreeMap<ConnId, Connection>,
    connections_so_far: u64,
    watch: Watch,
    /// Connections that something was said to in this turn.
    spoken_to: BTreeSet<ConnId>,
    workers: Workers,
    programs: Programs,
    groups: Groups,
    /// What takes connections in, until the daemon is to end.
    acceptor: AbortHandle,
    /// Where the acceptor is told of groups that are gone.
    gone: mpsc::Sender<u32>,
    inspector: Inspector,
    swaps: Swaps,
    wake_at: Option<Instant>,
    store: StoreThread,
    journal: Journal,
    /// The last write of the journal failed.
    journal_fails: bool,
    values: ValuesThread,
    /// The room for requests that wait.
    memory: Arc<Semaphore>,
    /// What is kept of lines that have not ended.
    halves: Halves,
    /// The line of newcomers, and of those who ask and are not brisk.
    turns: Turns,
    inputs: mpsc::Sender<Input>,
    manager: ServiceManager,
    /// What the configuration is settled from.
    flags: Flags,
    /// How often it was to be read again.
    reloads: u64,
    /// How long it may take to end when it is asked to.
    end_patience: Duration,
    /// When the kernel is to end, at the latest, while newcomers are heard before it does.
    end_at: Option<Instant>,
    /// When to end although the kernel has not: set when the daemon is asked to end.
    give_up_at: Option<Instant>,
    ended: bool,
}

impl Reactor {
    /// Puts the loop together; `urgent` and `inputs` are where its tasks send to.
    pub fn new(
        kernel: Kernel,
        means: Means,
        urgent: mpsc::Sender<Input>,
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        let Means {
            store,
            values,
            journal,
            swaps,
            driver,
            programs,
            digests,
            acceptor,
            gone,
            starter,
            turns,
            flags,
            save_at_end,
        } = means;
        let journal_fails = journal.retry_at().is_some();
        Reactor {
            kernel,
            started: Instant::now(),
            effects: Vec::new(),
            pending: VecDeque::new(),
            connections: BTreeMap::new(),
            connections_so_far: 0,
            watch: Watch::new(inputs.clone()),
            spoken_to: BTreeSet::new(),
            inspector: Inspector::new(urgent.clone(), Arc::clone(&digests)),
            programs,
            groups: Groups::default(),
            acceptor,
            gone,
            workers: Workers::new(driver, starter, digests, urgent),
            swaps,
            wake_at: None,
            store,
            journal,
            journal_fails,
            values,
            memory: Arc::new(Semaphore::new(REQUEST_BYTES_WAITING_MAX)),
            halves: Halves::default(),
            turns,
            inputs,
            manager: ServiceManager::find(),
            flags,
            reloads: 0,
            end_patience: END_PATIENCE + save_at_end,
            end_at: None,
            give_up_at: None,
            ended: false,
        }
    }

    /// Runs until the kernel ends.
    pub async fn run(
        mut self,
        mut urgent: mpsc::Receiver<Input>,
        mut others: mpsc::Receiver<Input>,
        records: Vec<Record>,
    ) {
        self.step(Event::Booted { records }).await;
        while !self.ended {
            self.flush_all().await;
            tokio::select! {
                biased;
                Some(input) = urgent.recv() => self.react(input).await,
                Some(input) = others.recv() => self.react(input).await,
                () = sleep_or_never(self.wake_at) => {}
                () = sleep_or_never(self.manager.next()) => {}
                () = sleep_or_never(self.end_at) => {}
                // A kernel that ends has written everything for the last time.
                () = self.journal.lacking(), if !self.kernel.is_ending() => {
                    self.step(Event::JournalLong).await;
                }
                () = self.store.emptied() => self.step(Event::StoreEmptied).await,
                () = sleep_or_never(self.give_up_at) => {
                    tracing::warn!("the kernel did not end within {:?}; ending without it", self.end_patience);
                    self.ended = true;
                }
            }
            for _ in 1..TURN_INPUTS_MAX {
                match urgent.try_recv().or_else(|_| others.try_recv()) {
                    Ok(input) if !self.ended => self.react(input).await,
                    Ok(_) | Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            if self.wake_at.is_some_and(|at| at <= Instant::now()) {
                self.wake_at = None;
                self.step(Event::Tick).await;
            }
            if self.end_at.is_some_and(|at| at <= Instant::now() || !self.has_newcomers()) {
                self.end_at = None;
                self.step(Event::Terminate).await;
            }
            self.manager.turned(|| self.kernel.system_stats());
        }
        // With connections in it that nobody has taken over.
        drop(others);
        self.manager.stopping(LEAVE_PATIENCE);
        self.farewell().await;
        self.programs.end(&mut urgent).await;
        self.workers.end(&mut urgent).await;
    }

    async fn step(&mut self, event: Event) {
        self.pending.push_back(event);
        self.step_pending().await;
    }

    async fn step_pending(&mut self) {
        while let Some(event) = self.pending.pop_front() {
            let now = Now(
                u64::try_from(self.started.elapsed().as_micros()).expect("584,000 years have not passed")
            );
            self.kernel.step(now, event, &mut self.effects);
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.perform(effect).await;
            }
            // Its memory serves the next step.
            self.effects = effects;
            if self.kernel.is_ending() {
                self.let_strangers_go();
            }
        }
    }
}

async fn sleep_or_never(at: Option<Instant>) {
    match at {
        Some(at) => pin!(sleep_until(at)).await,
        None => std::future::pending().await,
    }
}
