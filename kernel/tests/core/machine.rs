//! A machine for the kernel core to run on: it plays the host, with sim drivers as workers, and checks the
//! kernel's invariants after every event.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use drivers::estimate::estimate;
use drivers::sim::{Died, SimSwap, SimWorker};
use drivers::wire::{DriverFault, LoadRequest, Question, Step};
use kernel::core::effect::{Record, StoreOrder};
use kernel::core::event::{ConnId, Credentials, ModelId, WorkerId};
use kernel::core::image::{Entry, Images};
use kernel::core::registration::Digest;
use kernel::core::{Effect, Event, Kernel, KernelConfig, Now};
use kernel::host::store::values::{Quota, Values};
use syscalls::call::*;
use syscalls::reply::{Frame, GeneratedReply, ModelInfo, ProcessInfo, Stats};
use syscalls::{Call, CallId, ContextId, Errno, Fault, Pid, Reply, Request, Token, Tokens};

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
    /// Steps that are to be withdrawn when they run.
    pub withdrawn: BTreeSet<(WorkerId, u64)>,
    pub records: BTreeMap<String, Record>,
    /// What the journal comes to, and how much was written to it.
    pub images: Images,
    pub journal_bytes: usize,
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
            withdrawn: BTreeSet::new(),
            records: BTreeMap::new(),
            images: Images::default(),
            journal_bytes: 0,
            values: Values::open(BTreeMap::new(), Quota::default()).expect("it is empty"),
            hangups: Vec::new(),
            programs: vec![],
            programs_told_to_end: vec![],
            program_signals: vec![],
            delays: Vec::new(),
            loads: Vec::new(),
            logs: Vec::new(),
            file: None,
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
    }

    /// Notes what states have changed.
    fn watch(&mut self) {
        let Some(before) = self.watched.take() else { return };
        let name = |state| format!("{state:?}").to_lowercase();
        let now: BTreeMap<Pid, String> = self.kernel.states().map(|(pid, s)| (pid, name(s))).collect();
        let none = || "-".to_owned();
        for pid in before.keys().chain(now.keys()) {
            let from = before.get(pid).cloned().unwrap_or_else(none);
            let to = now.get(pid).cloned().unwrap_or_else(none);
            if from != to {
                self.transitions.insert((from, to));
            }
        }
        self.watched = Some(now);
    }

    /// The daemon is killed, and another one begins with what is on disk.
    pub fn crashed(&mut self, config: KernelConfig) -> Machine {
        let mut next = Machine::new(config);
        next.records = std::mem::take(&mut self.records);
        next.images = std::mem::take(&mut self.images);
        next.disks = self.disks.iter().map(|(name, swap)| (name.clone(), swap.disk())).collect();
        (next.next_conn, next.next_id, next.file) = (self.next_conn, self.next_id, self.file);
        let mut records: Vec<Record> = next.records.values().cloned().collect();
        // The host does not say in which order they come.
        records.reverse();
        records.extend(next.images.clone().into_records());
        next.event(Event::Booted { records });
        next
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { conn, frame } => self.heard(conn, *frame),
            Effect::Report { conn, call, event } => self.heard(conn, Frame::Event(call, event)),
            Effect::Hangup { conn } => self.hangups.push(conn),
            Effect::Inspect { model, load } => self.jobs.push_back(Job::Inspect(model, *load)),
            Effect::StartWorker { worker, load, digest, delay_ms } => {
                self.delays.push(delay_ms);
                self.loads.push(*load.clone());
                self.jobs.push_back(Job::Start(worker, *load, digest));
            }
            Effect::StopWorker { worker } => {
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
            Effect::Forget(key) => drop(self.records.remove(&key)),
            Effect::Journal(entries) => {
                self.journal_bytes += self.images.write(&entries);
            }
            Effect::Checkpoint(entries) => {
                self.images = Images::default();
                self.images.write(&entries);
            }
            Effect::Log(_, line) | Effect::LogAbout(_, _, line) => self.logs.push(line),
            Effect::Exit => self.exited = true,
        }
    }

    /// Does the oldest job; tells whether there was one.
    pub fn turn(&mut self) -> bool {
        self.turn_at(0)
    }

    /// Does one of the jobs.
    pub fn turn_at(&mut self, at: usize) -> bool {
        let Some(job) = self.jobs.remove(at) else { return false };
        match job {
            Job::Inspect(model, load) => {
                let digest = self.digest();
                self.event(Event::Inspected { model, estimate: estimate(&load), digest });
            }
            Job::Start(worker, load, digest) if digest == self.digest() => self.start(worker, &load),
            Job::Start(worker, ..) => {
                let fault = DriverFault::new(Errno::EIO, "the file has changed");
                self.event(Event::WorkerRefused { worker, fault });
            }
            Job::Step(worker, step) => self.step(worker, &step),
            Job::Ask(worker, number, question) => self.ask(worker, number, question),
            Job::Store(number, uid, order) => {
                let result = self.values.carry_out(uid, &order).expect("memory does not fail");
                self.event(Event::Stored { number, result });
            }
            Job::Died(worker, how) => self.event(Event::WorkerDied { worker, how }),
        }
        true
    }

    /// Runs until nothing is left to do.
    pub fn run(&mut self) {
        while self.turn() {}
    }

    /// Lets time pass without anything else happening.
    pub fn pass_ms(&mut self, ms: u64) {
        self.now += ms * 1000;
        self.event(Event::Tick);
    }

    fn digest(&self) -> Option<Digest> {
        self.file.map(|version| Digest([version; 32]))
    }

    fn start(&mut self, worker: WorkerId, load: &LoadRequest) {
        let of_name = self.disks.entry(load.name.clone()).or_default();
        let swap = self.swap.entry(worker.model).or_insert_with(|| of_name.clone()).clone();
        let event = match SimWorker::start_with(load, swap) {
            Ok(Ok(started)) => {
                let description = Box::new(started.description().clone());
                self.workers.insert(worker, started);
                Event::WorkerReady { worker, os_pid: 1000 + worker.incarnation, description }
            }
            Ok(Err(fault)) => Event::WorkerRefused { worker, fault },
            Err(Died(how)) => Event::WorkerDied { worker, how },
        };
        self.event(event);
    }

    fn step(&mut self, worker: WorkerId, step: &Step) {
        let Some(driver) = self.workers.get_mut(&worker) else { return };
        let stop = self.withdrawn.contains(&(worker, step.number));
        let through = if stop { step.rows.len() / 2 } else { usize::MAX };
        let event = match driver.step_withdrawn(step, through) {
            Ok(Ok(mut done)) => {
                if let Some(weather) = &mut self.weather {
                    done.elapsed_us = weather(done.elapsed_us);
                }
                self.now += done.elapsed_us.min(1_000_000_000);
                self.longest_step_us = self.longest_step_us.max(done.elapsed_us.min(1_000_000_000));
                Event::StepDone { worker, done }
            }
            Ok(Err(fault)) => {
                assert_ne!(fault.errno, Errno::EINVAL, "{fault}");
                Event::StepFailed { worker, number: step.number, fault }
            }
            Err(Died(how)) => self.died(worker, how),
        };
        self.event(event);
    }

    fn ask(&mut self, worker: WorkerId, number: u64, question: Question) {
        let Some(driver) = self.workers.get_mut(&worker) else { return };
        let event = match driver.ask(question) {
            Ok(answer) => Event::Answered { worker, number, answer },
            Err(Died(how)) => self.died(worker, how),
        };
        self.event(event);
    }

    fn died(&mut self, worker: WorkerId, how: String) -> Event {
        self.workers.remove(&worker);
        Event::WorkerDied { worker, how }
    }

    /// Kills a worker from outside, between two jobs.
    pub fn kill_worker(&mut self) {
        let (worker, _) = self.workers.pop_first().expect("a worker runs");
        self.event(Event::WorkerDied { worker, how: "killed by SIGKILL".into() });
    }

    /// Connects and says hello.
    pub fn connect(&mut self, uid: u32) -> ConnId {
        self.connect_as(uid, Class::Normal, 0)
    }

    pub fn connect_as(&mut self, uid: u32, class: Class, nice: i8) -> ConnId {
        self.connect_for(uid, class, nice, Lifetime::Connection)
    }

    /// Connects and says hello as a process that outlives so much.
    pub fn connect_lasting(&mut self, uid: u32, lifetime: Lifetime) -> ConnId {
        self.connect_for(uid, Class::Normal, 0, lifetime)
    }

    pub fn connect_for(&mut self, uid: u32, class: Class, nice: i8, lifetime: Lifetime) -> ConnId {
        let conn = self.connect_silently(uid);
        let name = Some(format!("test{}", conn.0));
        let hello = Hello { version: 1, name, class, nice, group: None, lifetime, caps: None };
        let reply = self.call(conn, hello);
        assert!(matches!(reply, Ok(Reply::Hello(_))), "{reply:?}");
        conn
    }

    pub fn connect_silently(&mut self, uid: u32) -> ConnId {
        self.connect_with(credentials(uid))
    }

    /// Connects as whom the host finds there.
    pub fn connect_with(&mut self, credentials: Credentials) -> ConnId {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        self.event(Event::Connected { conn, credentials });
        conn
    }

    /// Makes a call and lets others answer it.
    pub fn begin(&mut self, conn: ConnId, call: impl Into<Call>) -> CallId {
        self.begin_as(conn, None, call)
    }

    pub fn begin_as(&mut self, conn: ConnId, pid: Option<Pid>, call: impl Into<Call>) -> CallId {
        self.next_id += 1;
        let id = CallId(self.next_id);
        self.event(Event::Request { conn, request: Request { id, pid, call: call.into() } });
        id
    }

    /// Makes a call and runs until it is answered.
    pub fn call(&mut self, conn: ConnId, call: impl Into<Call>) -> Result<Reply, Fault> {
        self.call_as(conn, None, call)
    }

    pub fn call_as(&mut self, conn: ConnId, pid: Option<Pid>, call: impl Into<Call>) -> Result<Reply, Fault> {
        let id = self.begin_as(conn, pid, call);
        self.finish(conn, id)
    }

    /// Runs until a call is answered.
    pub fn finish(&mut self, conn: ConnId, id: CallId) -> Result<Reply, Fault> {
        loop {
            if let Some(reply) = self.reply(conn, id) {
                return reply;
            }
            assert!(self.turn(), "call {id} is never answered");
        }
    }

    /// The reply of a call, if it is there.
    pub fn reply(&self, conn: ConnId, id: CallId) -> Option<Result<Reply, Fault>> {
        self.replies.get(&(conn, id)).cloned()
    }

    /// The events of a call.
    pub fn events(&self, conn: ConnId, id: CallId) -> &[syscalls::Event] {
        self.events_of.get(&(conn, id)).map_or(&[], Vec::as_slice)
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

    pub fn mount(&mut self, conn: ConnId, name: &str, script: &str) -> Result<ModelInfo, Fault> {
        match self.call(conn, mount(name, script))? {
            Reply::Mounted(info) => Ok(info),
            other => panic!("{other:?}"),
        }
    }

    /// Opens a context.
    pub fn open(&mut self, conn: ConnId) -> ContextId {
        match self.call(conn, open()) {
            Ok(Reply::Opened { context, .. }) => context,
            other => panic!("{other:?}"),
        }
    }

    /// Opens a context with text in it.
    pub fn open_with(&mut self, conn: ConnId, text: &str) -> ContextId {
        let context = self.open(conn);
        self.append(conn, context, text).expect("the text fits");
        context
    }

    /// Appends the bytes of a text as tokens, with no token before them.
    pub fn append(&mut self, conn: ConnId, context: ContextId, text: &str) -> Result<u32, Fault> {
        match self.call(conn, append_bytes(context, text))? {
            Reply::Appended { length, .. } => Ok(length.0),
            other => panic!("{other:?}"),
        }
    }

    /// Generates greedily to the end.
    pub fn generate(&mut self, conn: ConnId, context: ContextId, tokens: u32) -> GeneratedReply {
        generated(self.call(conn, generate(context, tokens)))
    }

    pub fn fork(&mut self, conn: ConnId, context: ContextId, copies: u32) -> Vec<ContextId> {
        match self.call(conn, Fork { context, copies, length: None }) {
            Ok(Reply::Forked { contexts }) => contexts,
            other => panic!("{other:?}"),
        }
    }

    pub fn stat(&mut self, conn: ConnId) -> Stats {
        match self.call(conn, Stat { pid: None, model: None }) {
            Ok(Reply::Stat(stats)) => stats,
            other => panic!("{other:?}"),
        }
    }

    pub fn ps(&mut self, conn: ConnId) -> Vec<ProcessInfo> {
        match self.call(conn, Ps { all: false }) {
            Ok(Reply::Processes(list)) => list,
            other => panic!("{other:?}"),
        }
    }

    pub fn spawn(&mut self, conn: ConnId, name: &str) -> Pid {
        let spawn = Spawn {
            name: name.into(),
            class: None,
            nice: None,
            group: None,
            lifetime: None,
            caps: None,
            argv: vec![],
            read: vec![],
        };
        match self.call(conn, spawn) {
            Ok(Reply::Spawned { pid }) => pid,
            other => panic!("{other:?}"),
        }
    }

    /// The process of a connection.
    pub fn pid(&self, conn: ConnId) -> Pid {
        let hello = self.frames[&conn].iter().find_map(|frame| match frame {
            Frame::Reply(_, Ok(Reply::Hello(hello))) => Some(hello.pid),
            _ => None,
        });
        hello.expect("it said hello")
    }
}

trait Disk {
    /// Takes entries in as the host writes and reads them. Gives how many bytes they take.
    fn write(&mut self, entries: &[Entry]) -> usize;
}

impl Disk for Images {
    fn write(&mut self, entries: &[Entry]) -> usize {
        let bytes = postcard::to_stdvec(entries).expect("they have a form");
        let read: Vec<Entry> = postcard::from_bytes(&bytes).expect("they are read as they were written");
        assert_eq!(read, entries);
        read.into_iter().for_each(|entry| self.apply(entry));
        bytes.len()
    }
}

/// Whom the host finds at the other end.
pub fn credentials(uid: u32) -> Credentials {
    Credentials {
        uid,
        os_pid: 5000,
        os_parent: None,
        executable: "tester".into(),
        admin: uid == ADMIN,
        program: None,
    }
}

pub fn mount(name: &str, script: &str) -> Mount {
    Mount {
        path: format!("sim:{script}"),
        name: Some(name.into()),
        context: None,
        attention: Attention::Auto,
        gpu_layers: None,
        device: None,
        threads: None,
        deterministic: false,
        accept_changed: false,
    }
}

pub fn open() -> Open {
    Open { model: None, tokens_max: None, on_full: OnFull::Stop, prefix: None }
}

pub fn append(context: ContextId, text: &str) -> Append {
    Append { context, text: Some(text.into()), tokens: None, messages: None, special: false }
}

pub fn append_bytes(context: ContextId, text: &str) -> Append {
    let tokens = text.bytes().map(|byte| Token(byte.into())).collect();
    Append { context, text: None, tokens: Some(tokens), messages: None, special: false }
}

pub fn generate(context: ContextId, tokens: u32) -> Generate {
    Generate {
        context,
        max_tokens: Some(Tokens(tokens)),
        stop: vec![],
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        ignore_eos: false,
        logprobs: None,
        stream: true,
        deadline_ms: None,
    }
}

pub fn generated(reply: Result<Reply, Fault>) -> GeneratedReply {
    match reply {
        Ok(Reply::Generated(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

/// What an undisturbed kernel generates: the reference for all disturbed ones.
pub fn reference(script: &str, prompt: &str, tokens: u32) -> String {
    let (mut machine, conn) = Machine::with_model(script);
    let context = machine.open_with(conn, prompt);
    machine.generate(conn, context, tokens).text
}
