//! Device memory: a ledger for each device of what the models on it take, kept from the mount's admission to the
//! worker's end. The devices are main memory, which is first and always there, and graphics devices.
//!
//! A mount is *inspected* (the host reads the header and answers with an estimate), stands in *line*, and is then
//! *placed*: it gets a device, a pool and a number of layers, what these take is entered in the ledger, and a worker
//! is started. So nothing is loaded that has no room, and no device is promised more than it has.
//!
//! Where there is no room, it is made in this order, and only if it suffices:
//!
//! 1. where the mount leaves the attention kernel open, it is the fused one, which needs less memory; then
//!    the mount's own pool is made smaller, if it does not fix the context (`KernelConfig::pool_tokens_min`);
//! 2. models are *unloaded* that have no contexts and no calls, least recently used first. They stay mounted, and
//!    are loaded again when somebody uses them;
//! 3. pools of models that rest are made smaller, down to the largest context that is open on them;
//! 4. models that rest are *evacuated*, least recently used first: their pages are saved, and they are unloaded with
//!    their contexts (`evacuate.rs`);
//! 5. pools of models that run are made smaller in the same way;
//! 6. models that run and have had their turns are *forced out*, for contexts that have waited long enough for theirs
//!    (`turns.rs`);
//! 7. the mount is refused with the sum (ENOMEM). Contexts that are there already wait.
//!
//! A worker that is told to stop keeps its entry until it is dead, and a restarted one has that of its model. Models
//! are placed one after another, in the order of asking. What was mounted before the daemon started pushes nobody
//! out: where it has no room, it waits unloaded until it is used. A context that outlived the last daemon uses its model
//! while it has calls in line, or its process has a connection: then others make room, now or when they can.
//!
//! What a model takes is an estimate, and is not corrected by what its worker says: a sum that changed by itself
//! could go above the device.

mod admit;
mod evacuate;
mod fit;
mod grow;
mod report;
mod room;
mod shrink;
mod sleepers;
mod turns;

use std::collections::{BTreeMap, VecDeque};

use drivers::estimate::{Estimate, Needs, Split};

use super::config::DeviceConfig;
use super::event::{ModelId, Now, WorkerId};
pub(super) use evacuate::{Evacuation, Leaving};

/// The name of main memory.
pub const MAIN_MEMORY: &str = "cpu";

/// Who takes memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// A model that has a worker, or is about to get another.
    Model(ModelId),
    /// A worker that was told to stop and whose end is not known yet.
    Leaving(WorkerId),
}

/// Where a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// The device, by its place in the list; 0 is main memory.
    pub device: usize,
    /// Layers there, the last ones, the output included. The others are in main memory.
    pub gpu_layers: u32,
    /// Tokens of the pool.
    pub pool_tokens: u32,
    /// The fused attention kernel runs in main memory, because the buffers of the other one do not fit.
    pub fused: bool,
}

impl Placement {
    /// What a model takes of each device when it is here.
    pub(super) fn shares(&self, estimate: &Estimate) -> [(usize, Needs); 2] {
        let Split { device, host } = estimate.split(self.pool_tokens, self.gpu_layers, self.fused);
        [(0, host), (self.device, device)]
    }
}

/// One device.
#[derive(Debug)]
struct Device {
    name: String,
    memory_bytes: u64,
    taken: BTreeMap<Holder, Needs>,
}

impl Device {
    fn taken_bytes(&self) -> u64 {
        self.taken.values().map(Needs::total).fold(0, u64::saturating_add)
    }
}

/// All devices, and the mounts that want to be placed on them.
#[derive(Debug)]
pub(super) struct Devices {
    list: Vec<Device>,
    /// The host has said which devices there are.
    known: bool,
    /// Inspected models without a place, in the order of asking.
    line: VecDeque<ModelId>,
    /// Something has changed for those in line.
    changed: bool,
    /// When others have rested long enough for them.
    look_again: Option<Now>,
}

impl Devices {
    /// The devices of the configuration. Without main memory among them, that is there and without bounds.
    pub(super) fn new(configured: &[DeviceConfig], more_to_come: bool) -> Devices {
        let mut devices = Devices {
            list: vec![],
            known: !more_to_come,
            line: VecDeque::new(),
            changed: false,
            look_again: None,
        };
        let main = DeviceConfig { name: MAIN_MEMORY.into(), memory_bytes: u64::MAX };
        let is_main = |d: &&DeviceConfig| d.name == MAIN_MEMORY;
        devices.add(configured.iter().find(is_main).unwrap_or(&main));
        configured.iter().filter(|d| !is_main(d)).for_each(|d| devices.add(d));
        devices
    }

    /// Adds a device; one of a name that is there already is not another one.
    fn add(&mut self, device: &DeviceConfig) {
        if self.list.iter().all(|d| d.name != device.name) {
            let (name, memory_bytes) = (device.name.clone(), device.memory_bytes);
            self.list.push(Device { name, memory_bytes, taken: BTreeMap::new() });
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|d| d.name == name)
    }

    /// The name of the device of a placement.
    pub(super) fn name(&self, device: usize) -> &str {
        self.list.get(device).map_or(MAIN_MEMORY, |d| &d.name)
    }

    /// Those in line are looked at again: somebody may have room for them who had not.
    pub(in crate::core) fn reconsider(&mut self) {
        self.changed = true;
    }

    /// When those in line are to be looked at again without an event.
    pub(super) fn next_look(&self) -> Option<Now> {
        self.look_again
    }

    /// Bytes of each device.
    fn sizes(&self) -> Vec<u64> {
        self.list.iter().map(|d| d.memory_bytes).collect()
    }

    /// Bytes of each device that nobody takes.
    fn free(&self) -> Vec<u64> {
        self.list.iter().map(|d| d.memory_bytes.saturating_sub(d.taken_bytes())).collect()
    }

    /// Bytes of each device that nobody takes once the workers that were told to stop are gone.
    fn free_soon(&self) -> Vec<u64> {
        let leaving = |d: &Device| {
            let leaving = d.taken.iter().filter(|(holder, _)| matches!(holder, Holder::Leaving(_)));
            leaving.map(|(_, needs)| needs.total()).fold(0, u64::saturating_add)
        };
        self.list.iter().zip(self.free()).map(|(d, free)| free.saturating_add(leaving(d))).collect()
    }

    /// Enters what a model takes, in place of what it took.
    ///
    /// # Panics
    ///
    /// Where a device would be promised more than it has: the caller has seen that it fits.
    fn enter(&mut self, id: ModelId, placement: &Placement, estimate: &Estimate) {
        self.release(Holder::Model(id));
        for (device, needs) in placement.shares(estimate) {
            if needs.total() > 0 {
                let device = &mut self.list[device];
                *device.taken.entry(Holder::Model(id)).or_default() += needs;
                let (taken, all) = (device.taken_bytes(), device.memory_bytes);
                assert!(taken <= all, "{taken} bytes of the {all} of {} are promised", device.name);
            }
        }
    }

    /// Takes the entries of a holder out. Those in line may have room now.
    pub(super) fn release(&mut self, holder: Holder) {
        for device in &mut self.list {
            self.changed |= device.taken.remove(&holder).is_some();
        }
    }

    /// A worker was told to stop: its model has no claim to the memory any more, but the worker still has it.
    pub(super) fn leave(&mut self, worker: WorkerId) {
        for device in &mut self.list {
            if let Some(needs) = device.taken.remove(&Holder::Model(worker.model)) {
                device.taken.insert(Holder::Leaving(worker), needs);
            }
        }
    }

    /// A model that is gone waits for nothing.
    pub(super) fn leave_line(&mut self, id: ModelId) {
        self.line.retain(|waiting| *waiting != id);
        self.reconsider();
    }
}
