//! Connections: who is at the other end, which processes it owns, and whether it reads what it is sent.

use std::collections::BTreeSet;

use syscalls::call::Lifetime;
use syscalls::limits::CONNECTIONS_MAX;
use syscalls::reply::{Frame, NO_CALL};
use syscalls::{CallId, Errno, Fault, Pid};

use super::Kernel;
use super::capability::Caps;
use super::effect::Effect;
use super::event::{ConnId, Credentials};
use super::process::STATUS_HANGUP;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub credentials: Credentials,
    /// What its processes may do at most.
    pub caps: Caps,
    /// The process that `hello` created.
    pub pid: Option<Pid>,
    /// All living processes that it owns.
    pub processes: BTreeSet<Pid>,
    /// Requests without a reply.
    pub in_flight: BTreeSet<CallId>,
    /// It does not read; its processes are not scheduled until it does.
    pub congested: bool,
}

impl Connection {
    /// The one that a program is born with.
    pub(super) fn of_program(credentials: Credentials, caps: Caps, pid: Pid) -> Self {
        Connection {
            credentials,
            caps,
            pid: Some(pid),
            processes: BTreeSet::from([pid]),
            in_flight: BTreeSet::new(),
            congested: false,
        }
    }
}

impl Kernel {
    pub(super) fn connected(&mut self, conn: ConnId, credentials: Credentials) {
        if self.connections.len() >= CONNECTIONS_MAX {
            let message =
                format!("there are {CONNECTIONS_MAX} connections, which is the limit; try again later");
            let frame = Frame::Reply(NO_CALL, Err(Fault::new(Errno::EMFILE, message)));
            self.out.push(Effect::Send { conn, frame: Box::new(frame) });
            self.out.push(Effect::Hangup { conn });
            return;
        }
        let caps = self.caps_of(&credentials);
        let (uid, most) = (credentials.uid, self.config.user.connections);
        if let Err(fault) = self.connections_of.check(uid, caps, 1, most, "connections") {
            self.out.push(Effect::Send { conn, frame: Box::new(Frame::Reply(NO_CALL, Err(fault))) });
            return self.out.push(Effect::Hangup { conn });
        }
        let connection = Connection {
            credentials,
            caps,
            pid: None,
            processes: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            congested: false,
        };
        self.connections.insert(conn, connection);
        self.connections_of.add(uid);
    }

    /// The process that speaks on a connection, for the log.
    pub fn process_of(&self, conn: ConnId) -> Option<Pid> {
        self.connections.get(&conn)?.pid
    }

    /// The connection is gone, and nobody hears the answers. Those of its processes that outlive it go on detached, and
    /// the others end. A program that has closed its connection still runs.
    pub(super) fn disconnected(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.remove(&conn) else { return };
        self.connections_of.remove(connection.credentials.uid);
        let lasts = |pid: &Pid| {
            self.processes.living(*pid).is_some_and(|p| p.program || p.lifetime != Lifetime::Connection)
        };
        let (lasting, others): (Vec<Pid>, Vec<Pid>) = connection.processes.iter().partition(|pid| lasts(pid));
        lasting.into_iter().for_each(|pid| self.let_go(pid));
        others.into_iter().for_each(|pid| self.end_process(pid, STATUS_HANGUP));
    }

    pub(super) fn set_congested(&mut self, conn: ConnId, congested: bool) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        connection.congested = congested;
        let processes: Vec<Pid> = connection.processes.iter().copied().collect();
        for pid in processes {
            if let Some(process) = self.processes.living_mut(pid) {
                match congested {
                    true => process.rest(self.now),
                    false if process.generating > 0 => process.come_back(self.now),
                    false => {}
                }
            }
            self.settle_process(pid);
        }
        if !congested {
            self.tell_lost(conn);
            self.tell_printed(conn);
            self.tell_lost_of_traces(conn);
        }
    }
}
