//! The kernel as a pure state machine: [`Kernel::step`] takes what happened and tells what is to be done about it.
//!
//! Nothing in here does input or output, reads a clock, starts a thread, draws a random number or depends on the
//! order of a hash map. Time comes with the events and chance from one seed, so the same events give the same
//! effects, on every machine, always. The crate's README has the map and the invariants.

mod call;
pub mod capability;
mod compute;
pub mod config;
mod connection;
mod context;
mod counters;
mod device;
pub mod effect;
mod ending;
pub mod event;
mod generate;
mod group;
pub mod image;
mod invariants;
mod memory;
mod model;
pub mod printed;
mod process;
pub mod registration;
mod sched;
mod seed;
mod segment;
pub mod service;
pub mod snapshot;
mod subscription;
mod syscall;
mod table;
mod trace;
pub mod user;

use std::collections::{BTreeMap, BTreeSet};

use syscalls::{ContextId, Pid};

use call::{CallNo, Calls};
use compute::Turns;
use connection::Connection;
use context::Context;
use counters::Counters;
use device::Devices;
use ending::Ending;
use event::{ConnId, ModelId};
use group::Groups;
use image::{ContextImage, Journal};
use memory::Budget;
use model::Model;
use printed::Outputs;
use process::{ProcessTable, Programs};
use registration::Registration;
use seed::Seeds;
use segment::Segments;
use service::Services;
use snapshot::Snapshots;
use subscription::Subscriptions;
use table::Table;
use trace::Traces;
use user::Tally;

pub use config::{DeviceConfig, HostInfo, KernelConfig};
pub use device::MAIN_MEMORY;
pub use effect::Effect;
pub use event::{Event, Now};
pub use sched::policy::Policy;
pub use user::UserLimits;

/// The whole state of the kernel.
pub struct Kernel {
    config: KernelConfig,
    seeds: Seeds,
    now: Now,
    /// Effects of the event that is being taken in.
    out: Vec<Effect>,
    connections: Table<ConnId, Connection>,
    /// Connections and contexts of each user.
    connections_of: Tally,
    contexts_of: Tally,
    processes: ProcessTable,
    programs: Programs,
    outputs: Outputs,
    services: Services,
    calls: Calls,
    subscriptions: Subscriptions,
    traces: Traces,
    contexts: Table<ContextId, Context>,
    next_context: u64,
    groups: Groups,
    models: BTreeMap<ModelId, Model>,
    next_model: u32,
    /// What is mounted, by name, from the first time that it was ready.
    registered: BTreeMap<String, Registration>,
    devices: Devices,
    turns: Turns,
    counters: Counters,
    segments: Segments,
    snapshots: Snapshots,
    /// Contexts that outlived the daemon, until their models are loaded.
    asleep: BTreeMap<ContextId, ContextImage>,
    journal: Journal,
    /// Processes that have used up a limit since the event came.
    used_up: BTreeSet<Pid>,
    /// Processes whose calls have killed workers too often, since the event came.
    deadly: BTreeSet<Pid>,
    /// Processes that are killed at a time, because they were asked to end.
    to_kill: BTreeSet<(Now, Pid)>,
    /// Orders about values that the host has not carried out, by number, with their users.
    store_orders: BTreeMap<u64, u32>,
    /// Calls of the kernel's own that write summaries, and the contexts that these are for.
    compactions: BTreeMap<CallNo, ContextId>,
    /// What is left of the swap area.
    swap: Budget,
    /// What the host was last told to wake the kernel at.
    wake: Option<Now>,
    /// The daemon is going away, and pages are written.
    ending: Option<Ending>,
    /// It has gone; nothing is taken in any more.
    ended: bool,
}

impl Kernel {
    /// A kernel without processes and models. `seed` is where the seeds of generations without one come from.
    pub fn new(config: KernelConfig, seed: u64) -> Self {
        let swap = Budget::new(config.swap_host_bytes, config.swap_disk_bytes);
        Kernel {
            devices: Devices::new(&config.devices, config.devices_to_come),
            services: Services::new(config.services.clone()),
            config,
            swap,
            segments: Segments::default(),
            snapshots: Snapshots::default(),
            asleep: BTreeMap::new(),
            journal: Journal::default(),
            used_up: BTreeSet::new(),
            deadly: BTreeSet::new(),
            to_kill: BTreeSet::new(),
            store_orders: BTreeMap::new(),
            compactions: BTreeMap::new(),
            seeds: Seeds::new(seed),
            now: Now(0),
            out: Vec::new(),
            connections: Table::default(),
            connections_of: Tally::default(),
            contexts_of: Tally::default(),
            processes: ProcessTable::new(),
            programs: Programs::default(),
            outputs: Outputs::default(),
            calls: Calls::default(),
            subscriptions: Subscriptions::default(),
            traces: Traces::default(),
            contexts: Table::default(),
            next_context: 0,
            groups: Groups::new(),
            models: BTreeMap::new(),
            next_model: 0,
            registered: BTreeMap::new(),
            turns: Turns::default(),
            counters: Counters::default(),
            wake: None,
            ending: None,
            ended: false,
        }
    }

    /// Takes one event in, and appends what is to be done about it.
    pub fn step(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        if self.ended {
            return;
        }
        self.now = now.max(self.now);
        match self.ending {
            Some(_) => self.take_in_at_the_end(event),
            None => self.take_in_and_go_on(event),
        }
        let wake = self.next_wake();
        if wake != self.wake {
            self.wake = wake;
            self.out.push(Effect::WakeAt(wake));
        }
        if effects.is_empty() {
            // The host gives its vector back when it is done, so none is filled twice and none is made anew.
            std::mem::swap(effects, &mut self.out);
        } else {
            effects.append(&mut self.out);
        }
    }

    fn take_in_and_go_on(&mut self, event: Event) {
        self.take_in(event);
        if self.is_ending() {
            return;
        }
        self.expire_calls();
        self.charge_at_limits();
        self.enforce_quotas();
        self.end_deadly();
        self.kill_overdue();
        self.advance_services();
        self.stop_hung_workers();
        self.place_waiting();
        self.dispatch_all();
        self.grant_quanta();
        self.write_journal();
    }

    /// When something is due without an event.
    fn next_wake(&self) -> Option<Now> {
        if let Some(ending) = &self.ending {
            return Some(ending.until);
        }
        // A time that is over is looked at when the step that runs is over, and would hide all later ones.
        let throttled =
            self.models.values().filter_map(|m| m.sched.throttled_until.filter(|at| *at > self.now));
        let kill = self.to_kill.first().map(|(at, _)| *at);
        let others = [
            self.calls.next_deadline(),
            kill,
            self.next_look_for_hung(),
            self.next_look_at_late_steps(),
            self.services.next_pause(),
            self.turns.next_look(),
            self.turns.next_limit(),
            self.devices.next_look(),
        ];
        throttled.chain(others.into_iter().flatten()).min()
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Connected { conn, credentials } => self.connected(conn, credentials),
            Event::Disconnected { conn } => self.disconnected(conn),
            Event::Request { conn, request } => self.request(conn, request),
            Event::OutputHigh { conn } => self.set_congested(conn, true),
            Event::OutputLow { conn } => self.set_congested(conn, false),
            Event::DevicesFound { devices } => self.devices_found(&devices),
            Event::Checking { model, fraction } => self.checking(model, fraction),
            Event::Inspected { model, estimate, digest } => self.inspected(model, estimate, digest),
            Event::WorkerLoading { worker, os_pid, fraction } => {
                self.worker_loading(worker, os_pid, fraction)
            }
            Event::WorkerReady { worker, os_pid, description } => {
                self.worker_ready(worker, os_pid, description)
            }
            Event::WorkerRefused { worker, fault } => self.worker_refused(worker, fault),
            Event::WorkerDied { worker, how } => self.worker_died(worker, &how),
            Event::StepDone { worker, done } => self.step_done(worker, done),
            Event::StepFailed { worker, number, fault } => self.step_failed(worker, number, &fault.message),
            Event::Answered { worker, number, answer } => self.answered(worker, number, answer),
            Event::Stored { number, result } => self.stored(number, result),
            Event::Booted { records } => {
                self.booted(records);
                self.start_enabled_services();
            }
            Event::JournalLong => self.checkpoint(),
            Event::StoreEmptied => self.put_records_back(),
            Event::ProgramStarted { pid, conn, os_pid } => self.program_started(pid, conn, os_pid),
            Event::ProgramPrinted { pid, lines } => self.printed(pid, lines),
            Event::ProgramRefused { pid, fault } => self.program_refused(pid, &fault),
            Event::ProgramEnded { pid, status } => self.program_ended(pid, status),
            Event::Tick => {}
            Event::Configured { config } => self.configured(*config),
            Event::Terminate => self.terminate(),
        }
    }

    /// Counts something of a model, its process and the system.
    fn count(&mut self, model: ModelId, owner: Pid, add: impl Fn(&mut Counters)) {
        add(&mut self.counters);
        if let Some(model) = self.models.get_mut(&model) {
            add(&mut model.counters);
        }
        if let Some(process) = self.processes.living_mut(owner) {
            add(&mut process.id.counters);
        }
    }
}
