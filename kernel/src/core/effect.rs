//! All that the kernel can want done.

use drivers::wire::{LoadRequest, Question, Slot, Step};
use serde::{Deserialize, Serialize};
use syscalls::call::{Message, Mount, Signal, StoreDelete, StoreGet, StoreList, StorePut, StoreSearch};
use syscalls::{CallId, Event, Frame, Pid, Token};

use super::event::{ConnId, ModelId, Now, WorkerId};
use super::image::{ContextImage, Entry, ProcessImage};
use super::registration::{Digest, Registration};
use super::snapshot::SnapshotRecord;

/// Something for the host to do. Effects are performed in their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write a frame to a connection.
    Send { conn: ConnId, frame: Box<Frame> },
    /// Write an event of a call to a connection. As a frame would, but one of these is made for each token, and
    /// frames are as large as the largest reply.
    Report { conn: ConnId, call: CallId, event: Event },
    /// Close a connection after what was sent to it is written.
    Hangup { conn: ConnId },
    /// Look at the file of a model, after a pause if that is tried again, estimate what it takes, and tell its digest.
    /// `Inspected` follows.
    Inspect { model: ModelId, load: Box<LoadRequest>, delay_ms: u64 },
    /// Start a worker, after a pause if it is a restart. A file with another digest is refused.
    StartWorker { worker: WorkerId, load: Box<LoadRequest>, digest: Option<Digest>, delay_ms: u64 },
    /// End a worker. `WorkerDied` follows.
    StopWorker { worker: WorkerId },
    /// Kill a worker that cannot be relied on. `WorkerDied` follows.
    KillWorker { worker: WorkerId },
    /// Nobody has a page in this slot any more, which has so many bytes: clear it, and give its room back to the system.
    ClearSlot { model: ModelId, slot: Slot, bytes: u64 },
    /// A model is mounted no more: remove what was swapped out for it.
    DropSwap { model: ModelId },
    /// Have a worker run a step.
    Submit { worker: WorkerId, step: Step },
    /// Have a worker stop the step of this number, if it still runs.
    Withdraw { worker: WorkerId, number: u64 },
    /// Have a worker answer a question.
    Ask { worker: WorkerId, number: u64, question: Question },
    /// Send a `Tick` at this time; replaces the one before, and none cancels it.
    WakeAt(Option<Now>),
    /// Start a program as this process. `ProgramStarted` follows, in the end `ProgramEnded`, and `ProgramPrinted` between
    /// them; or `ProgramRefused`, alone.
    StartProgram { pid: Pid, program: Box<Program> },
    /// Send a signal of the operating system to a program that runs, and to all that it has started.
    SignalProgram { pid: Pid, signal: Signal },
    /// Ask the program of a process to end, and kill it after so many milliseconds.
    EndProgram { pid: Pid, grace_ms: u64 },
    /// Write a record to the store, durably, before the effects behind it are performed.
    Persist(Record),
    /// Write a record to the store for a call that promises that it is there. `Stored` follows, when it is durable or
    /// could not be written; then what the store had under its key stays.
    Keep { number: u64, record: Box<Record> },
    /// The store should have these records, whatever it has: write them when that is possible, and keep nothing waiting.
    PutBack(Vec<Record>),
    /// Remove the record of this key from the store.
    Forget(String),
    /// Write what changed of processes that outlive the daemon. It survives the daemon's death when the effects behind it
    /// are performed. Comes at most once an event, first of all.
    Journal(Vec<Entry>),
    /// Write these entries in the place of all before them.
    Checkpoint(Vec<Entry>),
    /// Carry out what a program asks of its user's values. `Stored` follows, when a change is durable.
    Store { number: u64, uid: u32, order: StoreOrder },
    /// Say something in the log. Never holds prompts or generated text.
    Log(LogLevel, String),
    /// The same of something that the log is filtered by.
    LogAbout(LogLevel, Box<Subject>, String),
    /// End the daemon, after all that was sent is written.
    Exit,
}

/// A program to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name and its arguments.
    pub argv: Vec<String>,
    /// Whom it runs as.
    pub uid: u32,
    /// Variables beside those that every program has.
    pub environment: Vec<(String, String)>,
    /// What it may reach beside what every program may.
    pub reach: Reach,
    /// With what arguments the next daemon starts it again, where it goes on from files of its own. One without ends with
    /// the daemon.
    pub again: Option<Vec<String>>,
}

/// What a program may reach that was asked for by somebody who can reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Files and folders that it may read.
    pub read: Vec<String>,
    /// The folder that it may write to.
    pub write: Option<String>,
    /// It computes with all of the machine: the limits that programs run into by mistake are not for it.
    pub computes: bool,
}

impl Program {
    /// A program that reaches what every program may.
    pub fn new(argv: Vec<String>, uid: u32) -> Self {
        Program { argv, uid, environment: Vec::new(), reach: Reach::default(), again: None }
    }
}

/// What a program asks of the values of its user. Names are checked.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreOrder {
    Put(StorePut),
    Get(StoreGet),
    Delete(StoreDelete),
    List(StoreList),
    Search(StoreSearch),
}

/// How much a line of the log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

/// What a line of the log is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub model: Option<String>,
    pub pid: Option<Pid>,
    pub happening: Option<Happening>,
}

/// What administrators look for in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    ModelReady,
    ModelOffline,
    ModelUnmounted,
    WorkerDied,
    /// Processes ended with the daemon that did not want to.
    Interrupted,
}

impl Subject {
    /// Something that happens to a model.
    pub fn of_model(name: &str, happening: Happening) -> Box<Self> {
        Box::new(Subject { model: Some(name.to_owned()), happening: Some(happening), ..Subject::default() })
    }
}

/// Something that outlives the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A model that is mounted again at the next start.
    Mount(Mount),
    /// Which file such a model is.
    Registered(Registration),
    /// A shared segment.
    Segment(Box<SegmentRecord>),
    /// A snapshot of a context.
    Snapshot(Box<SnapshotRecord>),
    /// A process that outlived the daemon.
    Process(Box<ProcessImage>),
    /// A context of such a process.
    Context(Box<ContextImage>),
    /// A process that did not.
    Interrupted { pid: Pid, uid: u32, name: String },
    /// The last pid that was given out.
    Numbered(Pid),
}

/// A shared segment as it outlives the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentRecord {
    /// Its name.
    pub name: String,
    /// The name of its model.
    pub model: String,
    /// Of the model's file: tokens say nothing to another model.
    pub fingerprint: u64,
    /// Its number among all that there have been.
    pub number: u32,
    /// Its owner.
    pub uid: u32,
    /// Its permission bits.
    pub mode: u32,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// The conversation, where the whole of one was published.
    pub messages: Vec<Message>,
    /// The last of these messages is an answer that goes on.
    pub answering: bool,
    /// The length at which a worker died twice of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condemned: Option<u32>,
    /// It was made of a context that was in a step in which a worker died, and nobody knew yet whether because of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspected: bool,
}

impl Record {
    /// The key that it has in the store.
    pub fn key(&self) -> String {
        match self {
            Record::Mount(mount) => format!("mount/{}", mount.name.as_deref().unwrap_or_default()),
            Record::Registered(registration) => Registration::key_of(&registration.name),
            Record::Segment(segment) => SegmentRecord::key_of(&segment.name),
            Record::Snapshot(snapshot) => SnapshotRecord::key_of(snapshot.uid, &snapshot.name),
            Record::Process(process) => format!("process/{}", process.pid),
            Record::Context(context) => format!("context/{}", context.id),
            Record::Numbered(_) => "numbered".into(),
            Record::Interrupted { pid, .. } => format!("interrupted/{pid}"),
        }
    }
}

impl SegmentRecord {
    /// The key of the segment of a name.
    pub fn key_of(name: &str) -> String {
        format!("segment/{name}")
    }
}
