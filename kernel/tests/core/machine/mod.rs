//! A machine for the kernel core to run on: it plays the host, with sim drivers as workers, and checks the
//! kernel's invariants after every event.

mod calls;
mod connections;
mod disk;
mod jobs;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use drivers::sim::{SimSwap, SimWorker};
use drivers::wire::{LoadRequest, Question, Step};
use kernel::core::effect::{Record, StoreOrder};
use kernel::core::event::{ConnId, ModelId, WorkerId};
use kernel::core::image::Images;
use kernel::core::registration::Digest;
use kernel::core::{Effect, Event, Kernel, KernelConfig, Now};
use kernel::host::store::values::Values;
use syscalls::call::Signal;
use syscalls::reply::Frame;
use syscalls::{CallId, Errno, Fault, Pid, Reply};

pub use calls::*;
use disk::Disk;

/// The user that the daemon runs as.
pub const ADMIN: u32 = 0;

/// Something that a worker is to do.
pub enum Job {
    Inspect(ModelId, LoadRequest),
    Start(WorkerId, LoadRequest, Option<Digest>),
    Step(WorkerId, Step),
    Ask(WorkerId, u64, Question),
    Store(u64, u32, StoreOrder),
    Died(WorkerId, String),
}

/// From which state to which a process came, `-` where it was not or is no longer in the table.
pub type Transition = (String, String);

pub struct Machine {
    pub kernel: Kernel,
    pub now: u64,
    pub jobs: VecDeque<Job>,
    pub workers: BTreeMap<WorkerId, SimWorker>,
    /// The swap area of each model, which outlives its workers, and by names of models what is on disk of it.
    pub swap: BTreeMap<ModelId, SimSwap>,
    pub disks: BTreeMap<String, SimSwap>,
    pub frames: BTreeMap<ConnId, Vec<Frame>>,
    replies: BTreeMap<(ConnId, CallId), Result<Reply, Fault>>,
    events_of: BTreeMap<(ConnId, CallId), Vec<syscalls::Event>>,
    pub steps: Vec<Step>,
    pub longest_step_us: u64,
    /// Changes how long steps take, for a test that wants a machine as machines are.
    pub weather: Option<Box<dyn FnMut(u64) -> u64>>,
    /// What every operation on pages takes, in place of the script's word, which is less.
    pub pages_us: Option<u64>,
    /// Steps that are to be withdrawn when they run.
    pub withdrawn: BTreeSet<(WorkerId, u64)>,
    pub records: BTreeMap<String, Record>,
    /// Why the disk takes none that a call waits for, and what has come of those that came with the event at hand.
    pub cannot_keep: Option<Errno>,
    kept: Vec<(u64, Result<Reply, Fault>)>,
    /// What the journal comes to, and how much was written to it.
    pub images: Images,
    pub journal_bytes: usize,
    /// The disk has no room for a second journal beside the one that there is.
    pub checkpoints_fail: bool,
    pub values: Values<BTreeMap<String, Vec<u8>>>,
    pub hangups: Vec<ConnId>,
    /// Programs that the kernel wants started.
    pub programs: Vec<(syscalls::Pid, kernel::core::effect::Program)>,
    /// Programs that it wants ended.
    pub programs_told_to_end: Vec<syscalls::Pid>,
    /// Signals that it wants them to get.
    pub program_signals: Vec<(syscalls::Pid, Signal)>,
    pub delays: Vec<u64>,
    pub loads: Vec<LoadRequest>,
    pub logs: Vec<String>,
    /// What all files of models are, where they are files.
    pub file: Option<u8>,
    /// Why files cannot be looked at, and the pauses before each look.
    pub cannot_inspect: Option<Errno>,
    pub inspection_delays: Vec<u64>,
    /// What there is not enough of to start workers.
    pub short_of: Option<Errno>,
    pub wake: Option<Now>,
    pub exited: bool,
    next_id: u64,
    next_conn: u64,
    /// Invariants are checked after every event; a test with thousands of processes checks now and then.
    pub check_every: u64,
    events: u64,
    /// The states of processes, where they are watched, and what led to them.
    pub watched: Option<BTreeMap<Pid, String>>,
    pub transitions: BTreeSet<Transition>,
}

impl Default for Machine {
    fn default() -> Self {
        Machine::new(KernelConfig::default())
    }
}

impl Machine {
    pub fn new(config: KernelConfig) -> Self {
        Machine {
            kernel: Kernel::new(config, 42),
            now: 0,
            jobs: VecDeque::new(),
            workers: BTreeMap::new(),
            swap: BTreeMap::new(),
            disks: BTreeMap::new(),
            frames: BTreeMap::new(),
            replies: BTreeMap::new(),
            events_of: BTreeMap::new(),
            steps: Vec::new(),
            longest_step_us: 0,
            weather: None,
            pages_us: None,
            withdrawn: BTreeSet::new(),
            records: BTreeMap::new(),
            cannot_keep: None,
            kept: Vec::new(),
            images: Images::default(),
            journal_bytes: 0,
            checkpoints_fail: false,
            values: disk::no_values(),
            hangups: Vec::new(),
            programs: vec![],
            programs_told_to_end: vec![],
            program_signals: vec![],
            delays: Vec::new(),
            loads: Vec::new(),
            logs: Vec::new(),
            file: None,
            cannot_inspect: None,
            inspection_delays: Vec::new(),
            short_of: None,
            wake: None,
            exited: false,
            next_id: 0,
            next_conn: 0,
            check_every: 1,
            events: 0,
            watched: None,
            transitions: BTreeSet::new(),
        }
    }

    /// A machine with one model mounted, and a connection of the administrator.
    pub fn with_model(script: &str) -> (Machine, ConnId) {
        let mut machine = Machine::default();
        let conn = machine.connect(ADMIN);
        machine.mount(conn, "m", script).expect("the script mounts");
        (machine, conn)
    }

    /// The same, with so many pages of swap in each tier.
    pub fn with_swap(script: &str, host: u64, disk: u64) -> (Machine, ConnId) {
        let config = KernelConfig {
            swap_host_bytes: host * 4096,
            swap_disk_bytes: disk * 4096,
            ..KernelConfig::default()
        };
        let mut machine = Machine::new(config);
        let conn = machine.connect(ADMIN);
        machine.mount(conn, "m", script).expect("the script mounts");
        (machine, conn)
    }

    /// Gives the kernel an event and does what it wants.
    pub fn event(&mut self, event: Event) {
        self.now += 1;
        let mut effects = Vec::new();
        self.kernel.step(Now(self.now), event, &mut effects);
        self.events += 1;
        if self.events.is_multiple_of(self.check_every) {
            self.kernel.check_invariants();
        }
        let journals = effects.iter().skip(1).filter(|e| matches!(e, Effect::Journal(_)));
        assert_eq!(journals.count(), 0, "something is said before it is on disk");
        effects.into_iter().for_each(|effect| self.perform(effect));
        self.watch();
        if self.events.is_multiple_of(self.check_every) && !self.kernel.is_ending() {
            assert!(self.images == self.kernel.images(), "what is on disk is not what there is");
        }
        for (number, result) in std::mem::take(&mut self.kept) {
            self.event(Event::Stored { number, result });
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { conn, frame } => self.heard(conn, *frame),
            Effect::Report { conn, call, event } => self.heard(conn, Frame::Event(call, event)),
            Effect::Hangup { conn } => self.hangups.push(conn),
            Effect::Inspect { model, load, delay_ms } => {
                self.inspection_delays.push(delay_ms);
                self.jobs.push_back(Job::Inspect(model, *load));
            }
            Effect::StartWorker { worker, load, digest, delay_ms } => {
                self.delays.push(delay_ms);
                self.loads.push(*load.clone());
                self.jobs.push_back(Job::Start(worker, *load, digest));
            }
            Effect::StopWorker { worker } | Effect::KillWorker { worker } => {
                self.workers.remove(&worker);
                self.jobs.push_back(Job::Died(worker, "stopped".into()));
            }
            Effect::Submit { worker, step } => {
                self.steps.push(step.clone());
                self.jobs.push_back(Job::Step(worker, step));
            }
            Effect::Withdraw { worker, number } => drop(self.withdrawn.insert((worker, number))),
            Effect::Ask { worker, number, question } => {
                self.jobs.push_back(Job::Ask(worker, number, question));
            }
            Effect::Store { number, uid, order } => self.jobs.push_back(Job::Store(number, uid, order)),
            Effect::ClearSlot { model, slot, bytes: _ } => {
                self.swap.get(&model).into_iter().for_each(|swap| swap.clear(slot));
            }
            Effect::DropSwap { model } => {
                if let Some(gone) = self.swap.remove(&model) {
                    self.disks.retain(|_, disk| !disk.is(&gone));
                }
            }
            Effect::StartProgram { pid, program } => self.programs.push((pid, *program)),
            Effect::SignalProgram { pid, signal } => self.program_signals.push((pid, signal)),
            Effect::EndProgram { pid, grace_ms: _ } => self.programs_told_to_end.push(pid),
            Effect::WakeAt(at) => self.wake = at,
            Effect::Persist(record) => drop(self.records.insert(record.key(), record)),
            Effect::Keep { number, record } => {
                let result = match self.cannot_keep {
                    Some(errno) => Err(Fault::new(errno, "the disk does not take it")),
                    None => {
                        self.records.insert(record.key(), *record);
                        Ok(Reply::Done {})
                    }
                };
                self.kept.push((number, result));
            }
            Effect::PutBack(records) => self.records.extend(records.into_iter().map(|r| (r.key(), r))),
            Effect::Forget(key) => drop(self.records.remove(&key)),
            Effect::Journal(entries) => {
                self.journal_bytes += self.images.write(&entries);
            }
            Effect::Checkpoint(_) if self.checkpoints_fail => {}
            Effect::Checkpoint(entries) => {
                self.images = Images::default();
                self.images.write(&entries);
            }
            Effect::Log(_, line) | Effect::LogAbout(_, _, line) => self.logs.push(line),
            Effect::Exit => self.exited = true,
        }
    }

    fn heard(&mut self, conn: ConnId, frame: Frame) {
        match &frame {
            Frame::Event(id, event) => self.events_of.entry((conn, *id)).or_default().push(event.clone()),
            Frame::Reply(id, reply) => {
                let before = self.replies.insert((conn, *id), reply.clone());
                // A request whose number is taken is refused under that very number.
                let refused = matches!(reply, Err(fault) if fault.message.contains("a number of its own"));
                assert!(before.is_none() || refused, "call {id} is answered twice");
            }
        }
        self.frames.entry(conn).or_default().push(frame);
    }
}
