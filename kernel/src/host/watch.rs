//! The operating system's processes at the other ends of connections, and their deaths.
//!
//! A process that dies closes its connections, unless somebody else holds them too, as a child does that it has left
//! behind. So each process is watched by the handle that came with its first connection, and when it dies, what it has sent is read to its end, and then the
//! connection has ended, whoever holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::input::Input;
use crate::core::event::ConnId;

/// The processes that are watched.
#[derive(Debug)]
pub struct Watch {
    inputs: mpsc::Sender<Input>,
    watched: BTreeMap<u32, Peer>,
    of: BTreeMap<ConnId, u32>,
}

/// One process, however many connections it has.
#[derive(Debug)]
struct Peer {
    connections: BTreeSet<ConnId>,
    watch: JoinHandle<()>,
}

impl Watch {
    /// Nobody yet. Deaths are told to `inputs`.
    pub fn new(inputs: mpsc::Sender<Input>) -> Self {
        Watch { inputs, watched: BTreeMap::new(), of: BTreeMap::new() }
    }

    /// A process has connected, and this is a handle on it. One that has no number any more, since it has ended, is known by
    /// the end of its connection.
    pub fn connected(&mut self, os_pid: u32, process: OwnedFd, conn: ConnId) {
        if os_pid == 0 {
            return;
        }
        if let Some(peer) = self.watched.get_mut(&os_pid) {
            peer.connections.insert(conn);
        } else {
            let Ok(watch) = watch(process, os_pid, self.inputs.clone()) else { return };
            self.watched.insert(os_pid, Peer { connections: BTreeSet::from([conn]), watch });
        }
        self.of.insert(conn, os_pid);
    }

    /// A connection has ended. A process without one is watched no more.
    pub fn disconnected(&mut self, conn: ConnId) {
        let Some(os_pid) = self.of.remove(&conn) else { return };
        let Some(peer) = self.watched.get_mut(&os_pid) else { return };
        peer.connections.remove(&conn);
        if peer.connections.is_empty() {
            peer.watch.abort();
            self.watched.remove(&os_pid);
        }
    }

    /// The connections of a process that has died.
    pub fn of(&self, os_pid: u32) -> Vec<ConnId> {
        self.watched.get(&os_pid).map_or_else(Vec::new, |peer| peer.connections.iter().copied().collect())
    }
}

/// Watches a process in a task of its own.
fn watch(process: OwnedFd, os_pid: u32, inputs: mpsc::Sender<Input>) -> io::Result<JoinHandle<()>> {
    // SAFETY: the descriptor is open, and nobody closes or replaces it before the watch on it is dropped.
    let process = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE)? };
    Ok(tokio::spawn(async move {
        if process.readable().await.is_ok() {
            // The loop is gone only when the daemon ends.
            let _ = inputs.send(Input::PeerDied { os_pid }).await;
        }
    }))
}
