//! The operating system's processes at the other ends of connections, and their deaths.
//!
//! A process that dies closes its connections, unless somebody else holds them too, as a child does that it has left
//! behind. So each process is watched by the handle that came with its first connection, and when it dies, what it has sent
//! is read to its end, and then the connection has ended, whoever holds it. The system gives the number of a process that
//! has died to another one, so a peer has a number of its own here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::input::Input;
use crate::core::event::ConnId;
use crate::pidfd;

/// A process that is watched, numbered in the order of first connections and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerNo(u64);

/// The processes that are watched.
#[derive(Debug)]
pub struct Watch {
    inputs: mpsc::Sender<Input>,
    watched: BTreeMap<PeerNo, Peer>,
    /// The last one with each number of the system's.
    by_os_pid: BTreeMap<u32, PeerNo>,
    of: BTreeMap<ConnId, PeerNo>,
    peers_so_far: u64,
}

/// One process, however many connections it has.
#[derive(Debug)]
struct Peer {
    os_pid: u32,
    process: Arc<AsyncFd<OwnedFd>>,
    connections: BTreeSet<ConnId>,
    watch: JoinHandle<()>,
}

impl Watch {
    /// Nobody yet. Deaths are told to `inputs`.
    pub fn new(inputs: mpsc::Sender<Input>) -> Self {
        let (watched, by_os_pid, of) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Watch { inputs, watched, by_os_pid, of, peers_so_far: 0 }
    }

    /// A process has connected, and this is a handle on it. One that has no number any more, since it has ended, is known by
    /// the end of its connection.
    pub fn connected(&mut self, os_pid: u32, process: OwnedFd, conn: ConnId) {
        if os_pid == 0 {
            return;
        }
        let known = self.by_os_pid.get(&os_pid).copied();
        let same =
            known.filter(|no| self.watched.get(no).is_some_and(|peer| pidfd::lives(peer.process.as_fd())));
        let Ok(no) = same.map_or_else(|| self.watch(os_pid, process), Ok) else { return };
        if let Some(peer) = self.watched.get_mut(&no) {
            peer.connections.insert(conn);
            self.of.insert(conn, no);
        }
    }

    /// Watches a process in a task of its own.
    fn watch(&mut self, os_pid: u32, process: OwnedFd) -> io::Result<PeerNo> {
        // SAFETY: the descriptor is open, and nobody closes or replaces it before the watch on it is dropped.
        let process = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE)? };
        self.peers_so_far += 1;
        let no = PeerNo(self.peers_so_far);
        let (process, inputs) = (Arc::new(process), self.inputs.clone());
        let watched = Arc::clone(&process);
        let watch = tokio::spawn(async move {
            if watched.readable().await.is_ok() {
                // The loop is gone only when the daemon ends.
                let _ = inputs.send(Input::PeerDied { peer: no }).await;
            }
        });
        self.watched.insert(no, Peer { os_pid, process, connections: BTreeSet::new(), watch });
        self.by_os_pid.insert(os_pid, no);
        Ok(no)
    }

    /// A connection has ended. A process without one is watched no more.
    pub fn disconnected(&mut self, conn: ConnId) {
        let Some(no) = self.of.remove(&conn) else { return };
        let Some(peer) = self.watched.get_mut(&no) else { return };
        peer.connections.remove(&conn);
        if !peer.connections.is_empty() {
            return;
        }
        peer.watch.abort();
        let os_pid = peer.os_pid;
        self.watched.remove(&no);
        if self.by_os_pid.get(&os_pid) == Some(&no) {
            self.by_os_pid.remove(&os_pid);
        }
    }

    /// The connections of a process that has died.
    pub fn of(&self, peer: PeerNo) -> Vec<ConnId> {
        self.watched.get(&peer).map_or_else(Vec::new, |peer| peer.connections.iter().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// A number that is none of theirs, as if the system had given it to one after the other.
    const OS_PID: u32 = 77;

    fn sleeper() -> (Child, OwnedFd) {
        let child = Command::new("sleep").arg("600").spawn().expect("sleep is part of every Linux");
        let handle = pidfd::open(i32::try_from(child.id()).expect("a process number")).expect("it runs");
        (child, handle)
    }

    fn kill(mut child: Child) {
        child.kill().expect("it runs");
        child.wait().expect("it is a child");
    }

    async fn dead(inputs: &mut mpsc::Receiver<Input>) -> PeerNo {
        match timeout(Duration::from_secs(60), inputs.recv()).await {
            Ok(Some(Input::PeerDied { peer })) => peer,
            other => panic!("unexpected {other:?}"),
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn connections_of_one_process_end_with_it() {
        let (sender, mut inputs) = mpsc::channel(4);
        let mut watch = Watch::new(sender);
        let (child, handle) = sleeper();
        let again = handle.try_clone().expect("a descriptor is left");
        watch.connected(OS_PID, handle, ConnId(1));
        watch.connected(OS_PID, again, ConnId(2));
        kill(child);
        assert_eq!(watch.of(dead(&mut inputs).await), [ConnId(1), ConnId(2)]);
        watch.disconnected(ConnId(1));
        watch.disconnected(ConnId(2));
        assert!(watch.watched.is_empty() && watch.by_os_pid.is_empty() && watch.of.is_empty());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn process_that_gets_the_number_of_a_dead_one_is_watched_by_itself() {
        let (sender, mut inputs) = mpsc::channel(4);
        let mut watch = Watch::new(sender);
        let (first, handle) = sleeper();
        watch.connected(OS_PID, handle, ConnId(1));
        kill(first);
        let (second, handle) = sleeper();
        watch.connected(OS_PID, handle, ConnId(2));
        assert_eq!(watch.of(dead(&mut inputs).await), [ConnId(1)], "the other one lives");
        watch.disconnected(ConnId(1));
        kill(second);
        assert_eq!(watch.of(dead(&mut inputs).await), [ConnId(2)]);
    }
}
