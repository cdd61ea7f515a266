//! All that the main loop waits for, in two queues: what workers and the system say, and what programs say. The
//! first is served first, so that no flood of requests delays the tokens of those who are generating.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use syscalls::{CallId, Fault, Pid, Request};
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;

use super::places::Place;
use super::settings::Settings;
use super::turns::Turn;
use super::watch::PeerNo;
use crate::core::event::{ConnId, Credentials, Event, WorkerId};
use crate::core::printed::Printed;

/// Something that the main loop reacts to.
#[derive(Debug)]
pub enum Input {
    /// A program connected, and has a place among the connections.
    Connected {
        socket: UnixStream,
        credentials: Credentials,
        /// The leader of its process group.
        group_leader: u32,
        /// A handle on its process.
        process: OwnedFd,
        place: Place,
        turn: Turn,
    },
    /// A program asks; `memory` is its share of what may wait for the kernel, and `turn` its turn if it took one.
    Request { conn: ConnId, request: Request, memory: OwnedSemaphorePermit, turn: Option<Turn> },
    /// A program sent what is no request.
    Malformed { conn: ConnId, id: Option<CallId>, fault: Fault, turn: Option<Turn> },
    /// Nothing more will come from a program.
    ReadEnded { conn: ConnId },
    /// A process that has connections has died.
    PeerDied { peer: PeerNo },
    /// A program that did not read can be written to again.
    Writable { conn: ConnId },
    /// The program of a process of a user runs; `socket` is the daemon's end of its connection.
    ProgramStarted { pid: Pid, uid: u32, os_pid: u32, socket: UnixStream, place: Place },
    /// Everything that was accepted from this process group is through, and it is gone.
    GroupGone { leader: u32 },
    /// The program of a process has printed; `room` is its share of what may wait for the kernel.
    ProgramPrinted { pid: Pid, lines: Vec<Printed>, room: OwnedSemaphorePermit },
    /// A worker runs, and loads its model.
    WorkerStarted { worker: WorkerId, link: Arc<UnixStream> },
    /// A worker that did not read can be written to again.
    WorkerWritable { worker: WorkerId },
    /// A worker said something, or died; or a file was looked at, devices were found, or the store did something.
    Worker(Event),
    /// The configuration is to be read again.
    Reload,
    /// It was, for the request of this number.
    Settled { number: u64, settled: Box<Result<Settings, String>> },
    /// The system asks the daemon to end.
    Terminate,
}
