//! All that can happen to the kernel.

use drivers::estimate::Estimate;
use drivers::wire::{Answer, DriverFault, ModelDescription, StepDone};
use syscalls::{Fault, Pid, Reply, Request};

use super::config::{DeviceConfig, KernelConfig};
use super::effect::Record;
use super::printed::Printed;
use super::registration::Digest;

/// Monotonic time since the daemon's start, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Now(pub u64);

/// A connection, numbered by the host and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A mount of a model, numbered by the kernel and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(pub u32);

/// One worker process of a model: each start of a worker gets a new incarnation, so that a late word of a dead
/// worker is not taken for one of its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId {
    /// The model that it runs.
    pub model: ModelId,
    /// Counts its starts from 1.
    pub incarnation: u32,
}

/// Who is at the other end of a connection, from the socket and never from a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub uid: u32,
    /// The operating system's process.
    pub os_pid: u32,
    /// The operating system's parent of that process, where it is known.
    pub os_parent: Option<u32>,
    /// The name of its executable, or the empty string.
    pub executable: String,
    /// May do everything: root, the user that the daemon runs as, or one of the admin group.
    pub admin: bool,
    /// The process of the program that it was started by or in, where the daemon started that.
    pub program: Option<Pid>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A program connected.
    Connected { conn: ConnId, credentials: Credentials },
    /// A connection ended, from whichever side.
    Disconnected { conn: ConnId },
    /// A program asks.
    Request { conn: ConnId, request: Request },
    /// A program does not read: its unread bytes passed `OUTPUT_BYTES_HIGH`.
    OutputHigh { conn: ConnId },
    /// It has caught up.
    OutputLow { conn: ConnId },
    /// These devices were found beside those of the configuration. Comes once, if the configuration says so.
    DevicesFound { devices: Vec<DeviceConfig> },
    /// So much of the file of a model has been read for its digest, from 0 to 1.
    Checking { model: ModelId, fraction: f32 },
    /// The file of a model was looked at. A model without a file has no digest.
    Inspected { model: ModelId, estimate: Result<Estimate, DriverFault>, digest: Option<Digest> },
    /// A worker reports how far it has loaded, from 0 to 1.
    WorkerLoading { worker: WorkerId, os_pid: u32, fraction: f32 },
    /// A worker has loaded its model.
    WorkerReady { worker: WorkerId, os_pid: u32, description: Box<ModelDescription> },
    /// A worker cannot load its model, and exits.
    WorkerRefused { worker: WorkerId, fault: DriverFault },
    /// A worker is gone, and how: `killed by SIGSEGV`, `exit status 1`, `could not be started: …`.
    WorkerDied { worker: WorkerId, how: String },
    /// A worker ran a step.
    StepDone { worker: WorkerId, done: StepDone },
    /// A worker could not run a step at all.
    StepFailed { worker: WorkerId, number: u64, fault: DriverFault },
    /// A worker answered a question.
    Answered { worker: WorkerId, number: u64, answer: Result<Answer, DriverFault> },
    /// An order about values was carried out, or a record kept, or could not be.
    Stored { number: u64, result: Result<Reply, Fault> },
    /// What the store held when the daemon started. Comes first, once.
    Booted { records: Vec<Record> },
    /// The host has many entries of the journal, or could not write the last of them: it wants them all in one.
    JournalLong,
    /// The store could not be used any more and was begun anew: what it had is not on disk.
    StoreEmptied,
    /// The time of the last `WakeAt` has come, or time passed in some other way.
    Tick,
    /// The program of a process runs, on a connection of its own.
    ProgramStarted { pid: Pid, conn: ConnId, os_pid: u32 },
    /// The program of a process has printed.
    ProgramPrinted { pid: Pid, lines: Vec<Printed> },
    /// The program of a process cannot be started.
    ProgramRefused { pid: Pid, fault: Fault },
    /// The program of a process has ended, with a status as shells tell it.
    ProgramEnded { pid: Pid, status: u8 },
    /// The configuration was read again; what can change while the daemon runs is taken over.
    Configured { config: Box<KernelConfig> },
    /// The daemon was asked to end (TERM, INT).
    Terminate,
}
