//! Programs come, go, signal each other, and act for processes that others began.

use kernel::core::Event as Input;
use syscalls::call::*;
use syscalls::{CallId, Pid, Reply};

use super::{History, Program};
use crate::machine::ADMIN;

const CLASSES: [Class; 4] = [Class::Realtime, Class::Interactive, Class::Normal, Class::Batch];
const LIFETIMES: [Lifetime; 4] =
    [Lifetime::Connection, Lifetime::Connection, Lifetime::Detached, Lifetime::Persistent];
const SIGNALS: [Signal; 7] =
    [Signal::Stop, Signal::Cont, Signal::Int, Signal::Cont, Signal::Term, Signal::Kill, Signal::Xcpu];

impl History {
    pub(super) fn connect(&mut self) {
        if self.programs.len() < 8 {
            let mut class = CLASSES[self.chance.below(4)];
            let mut nice = self.chance.below(40) as i8 - 20;
            let uid = [ADMIN, ADMIN, 1000, 1001][self.chance.below(4)];
            if uid != ADMIN {
                (class, nice) = (class.max(Class::Normal), nice.max(0));
            }
            let lifetime = LIFETIMES[self.chance.below(4)];
            let conn = self.machine.connect_for(uid, class, nice, lifetime);
            let pid = self.machine.pid(conn);
            self.kept.uids.insert(pid, uid);
            if lifetime != Lifetime::Connection {
                self.lasting.insert(pid);
            }
            self.programs.push(Program::new(conn, pid));
        }
    }

    /// Makes a call for one of the processes.
    pub(super) fn begin(&mut self, at: usize, call: impl Into<Call>) -> CallId {
        let Program { conn, pid, .. } = self.programs[at];
        self.machine.begin_as(conn, Some(pid), call)
    }

    /// Takes a process off its connection.
    pub(super) fn detach(&mut self) {
        let Some(at) = self.program().filter(|_| self.programs.len() > 2) else { return };
        let pid = self.programs[at].pid;
        self.lasting.insert(pid);
        self.begin(at, Detach { pid: None });
        self.programs.remove(at);
    }

    /// Puts a process on another connection, by force where it has one, and follows all its calls there.
    pub(super) fn attach(&mut self) {
        let pids: Vec<Pid> = self.lasting.iter().copied().collect();
        let (Some(at), Some(pid)) = (self.program(), self.chance.one_of(&pids).copied()) else { return };
        let conn = self.programs[at].conn;
        let force = self.chance.once_in(3);
        let id = self.begin(at, Attach { pid, force });
        let Some(Ok(Reply::Attached(attached))) = self.machine.reply(conn, id) else { return };
        self.programs.retain(|p| p.pid != pid);
        let contexts = attached.contexts.iter().map(|c| c.context).collect();
        self.programs.push(Program { contexts, ..Program::new(conn, pid) });
        let at = self.programs.len() - 1;
        for call in attached.calls {
            let replay = self.chance.once_in(2);
            let id = self.begin(at, Follow { call: call.ticket, replay });
            match (call.call.as_str(), call.context) {
                ("generate", Some(context)) => {
                    self.programs[at].calls.push((id, context));
                    self.generated.push((conn, id, context));
                }
                ("open", _) => self.programs[at].opening.push(id),
                _ => {}
            }
        }
    }

    pub(super) fn disconnect(&mut self) {
        if self.programs.len() < 3 {
            return;
        }
        let Some(at) = self.program() else { return };
        let conn = self.programs[at].conn;
        self.programs.retain(|p| p.conn != conn);
        self.machine.event(Input::Disconnected { conn });
    }

    pub(super) fn signal(&mut self) {
        let (Some(from), Some(to)) = (self.program(), self.program()) else { return };
        let pid = self.programs[to].pid;
        let rarely = if self.chance.once_in(5) { 7 } else { 4 };
        let signal = SIGNALS[self.chance.below(rarely)];
        if self.chance.once_in(8) {
            self.begin(to, Sigwait { timeout_ms: None });
        }
        self.begin(from, Kill { pid, signal });
    }

    pub(super) fn setpriority(&mut self) {
        let Some(at) = self.program() else { return };
        let pid = self.programs[at].pid;
        let class = Some(CLASSES[self.chance.below(4)]);
        let nice = Some(self.chance.below(40) as i8 - 20);
        let conn = self.programs[at].conn;
        self.machine.begin(conn, Setpriority { pid, class, nice });
    }

    pub(super) fn congest(&mut self) {
        let Some(at) = self.program() else { return };
        let conn = self.programs[at].conn;
        let high = self.chance.once_in(2);
        self.machine.event(if high { Input::OutputHigh { conn } } else { Input::OutputLow { conn } });
    }

    /// One sends another a message and waits for one.
    pub(super) fn converse(&mut self) {
        let (Some(from), Some(to)) = (self.program(), self.program()) else { return };
        let pid = self.programs[to].pid;
        self.begin(from, Send { pid, data: 1.into() });
        let timeout_ms = Some(self.chance.below(50) as u64);
        self.begin(from, Receive { timeout_ms });
    }

    /// One looks into another, and keeps one of its contexts.
    pub(super) fn look(&mut self) {
        let (Some(from), Some(at)) = (self.program(), self.program()) else { return };
        let pid = self.programs[at].pid;
        let id = self.begin(from, Inspect { pid });
        let from = self.programs[from].conn;
        let Some(Ok(Reply::Inspected(inspected))) = self.machine.reply(from, id) else { return };
        assert_eq!(inspected.process.pid, pid);
        if let Some(view) = self.chance.one_of(&inspected.contexts) {
            self.machine.begin(from, Snapshot { context: view.context, name: "looked at".into() });
        }
    }

    /// One traces another, whether it reads or not.
    pub(super) fn trace(&mut self) {
        let (Some(from), Some(at)) = (self.program(), self.program()) else { return };
        let pid = Some(self.programs[at].pid);
        let (follow, tokens) = (self.chance.once_in(2), self.chance.once_in(2));
        let whole = self.chance.once_in(2);
        self.begin(from, Trace { pid, os_pid: None, follow, tokens, whole });
    }

    /// A subscriber is told of everything, whether it reads or not.
    pub(super) fn subscribe(&mut self) {
        let Some(at) = self.program() else { return };
        let timeout_ms = self.chance.once_in(2).then_some(1);
        self.machine.begin(self.programs[at].conn, Subscribe { kinds: vec![], timeout_ms });
    }
}
