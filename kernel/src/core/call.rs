//! Calls that have no answer yet.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use syscalls::reply::Frame;
use syscalls::{CallId, ContextId, Errno, Event, Fault, Pid, Reply};

use super::Kernel;
use super::connection::Connection;
use super::effect::Effect;
use super::event::{ConnId, ModelId, Now};
use super::service::Goal;
use super::subscription::Kinds;
use super::table::Table;
use super::user::Tally;

/// A call, numbered by the kernel in the order of arrival. The client's own numbers need not be in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct CallNo(pub u64);

/// What a call waits for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Waits {
    /// The end of a child, or of any.
    Child(Option<Pid>),
    /// A message.
    Message,
    /// A signal that asks its process to end.
    Signal,
    /// Its turn on a context, and then its work there.
    Context(ContextId),
    /// The answer of a worker.
    Answer(ModelId),
    /// A model that is being loaded.
    Mount(ModelId),
    /// A model that is being loaded, to open a context on it.
    Open(ModelId, Box<Opening>),
    /// Its turn to compute on a device.
    Turn,
    /// The start of the program of a child.
    Start(Pid),
    /// What was asked of the values of its user, or a snapshot that is kept.
    Store,
    /// Events of these kinds.
    Events(Kinds),
    /// Calls of those whom it traces.
    Calls(Box<syscalls::call::Trace>),
    /// What a program prints, from so many of its last lines on.
    Output(Pid, Option<u32>),
    /// That a service runs, or does not.
    Service(String, Goal),
}

impl Waits {
    /// Whether it waits for somebody's word, which is worth nothing where nobody hears it.
    pub(super) fn is_for_a_word(&self) -> bool {
        matches!(
            self,
            Waits::Child(_)
                | Waits::Message
                | Waits::Signal
                | Waits::Start(_)
                | Waits::Turn
                | Waits::Events(_)
                | Waits::Calls(_)
                | Waits::Output(..)
                | Waits::Service(..)
        )
    }
}

/// Who can end a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    Process(Pid),
    /// Any child, those included that the process gets while it waits.
    Children,
}

/// How a context is opened.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Opening {
    New(syscalls::call::Open),
    /// From the snapshot of a name.
    Snapshot(String),
}

/// A call without an answer.
#[derive(Debug)]
pub(super) struct Pending {
    /// Who hears its events and its reply; nobody while its process is detached.
    pub caller: Option<Caller>,
    pub pid: Pid,
    /// The process's user.
    pub uid: u32,
    /// Its name in the manual.
    pub name: &'static str,
    pub since: Now,
    pub waits: Waits,
    /// The processes that can end the wait, where these are known.
    pub waits_for: Option<Awaited>,
    pub deadline: Option<Now>,
    /// Its number in traces, where it was traced when it came.
    pub traced: Option<u64>,
}

/// Whom to tell of a call: a connection, and the number that the call has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub conn: ConnId,
    pub call: CallId,
}

impl Caller {
    /// Sends an event of the call, if the connection is still there. Always part of its caller: where it is called, the
    /// event is copied before the processor has done writing it, and waits for that.
    #[inline(always)]
    pub fn tell(self, connections: &Table<ConnId, Connection>, out: &mut Vec<Effect>, event: Event) {
        let Caller { conn, call } = self;
        if connections.contains_key(&conn) {
            out.push(Effect::Report { conn, call, event });
        }
    }
}

/// All calls without an answer.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pending: Table<CallNo, Pending>,
    deadlines: BTreeSet<(Now, CallNo)>,
    /// Calls that wait for a process, by that.
    by_waited_for: BTreeSet<(Pid, CallNo)>,
    /// Calls that wait for any child, by the process that made them.
    for_children: BTreeSet<(Pid, CallNo)>,
    of_user: Tally,
    next: u64,
}

impl Calls {
    /// The number of the next call.
    pub(super) fn number(&mut self) -> CallNo {
        self.next += 1;
        CallNo(self.next)
    }

    /// Numbers from now on come after this one.
    pub(super) fn count_from(&mut self, call: CallNo) {
        self.next = self.next.max(call.0);
    }

    /// Keeps a call until it is answered.
    pub(super) fn insert(&mut self, call: CallNo, pending: Pending) {
        if let Some(deadline) = pending.deadline {
            self.deadlines.insert((deadline, call));
        }
        match pending.waits_for {
            Some(Awaited::Process(pid)) => drop(self.by_waited_for.insert((pid, call))),
            Some(Awaited::Children) => drop(self.for_children.insert((pending.pid, call))),
            None => {}
        }
        self.of_user.add(pending.uid);
        self.pending.insert(call, pending);
    }

    /// A call without an answer.
    pub(super) fn get(&self, call: CallNo) -> Option<&Pending> {
        self.pending.get(&call)
    }

    /// A call without an answer, to be changed.
    pub(super) fn get_mut(&mut self, call: CallNo) -> Option<&mut Pending> {
        self.pending.get_mut(&call)
    }

    /// What a call waits for.
    pub(super) fn waits(&self, call: CallNo) -> Option<&Waits> {
        self.pending.get(&call).map(|p| &p.waits)
    }

    /// How many each user has.
    pub(super) fn of_user(&self) -> &Tally {
        &self.of_user
    }

    /// The processes of which a call waits for this one, a child of `parent`.
    pub(super) fn waiting_for(&self, pid: Pid, parent: Pid) -> impl Iterator<Item = Pid> {
        let calls = self.by_waited_for.range((pid, CallNo(0))..=(pid, CallNo(u64::MAX)));
        let by_name = calls.filter_map(|(_, call)| self.pending.get(call).map(|p| p.pid));
        by_name.chain(Some(parent).filter(|parent| self.waits_for_children(*parent)))
    }

    /// Whether a call of a process waits for any of its children.
    pub(super) fn waits_for_children(&self, pid: Pid) -> bool {
        let mut calls = self.for_children.range((pid, CallNo(0))..=(pid, CallNo(u64::MAX)));
        calls.next().is_some()
    }

    /// When the next call runs out of time.
    pub(super) fn next_deadline(&self) -> Option<Now> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// All of them, in the order of arrival.
    pub(super) fn numbers(&self) -> Vec<CallNo> {
        self.pending.keys().collect()
    }

    fn remove(&mut self, call: CallNo) -> Option<Pending> {
        let pending = self.pending.remove(&call)?;
        self.of_user.remove(pending.uid);
        if let Some(deadline) = pending.deadline {
            self.deadlines.remove(&(deadline, call));
        }
        match pending.waits_for {
            Some(Awaited::Process(pid)) => drop(self.by_waited_for.remove(&(pid, call))),
            Some(Awaited::Children) => drop(self.for_children.remove(&(pending.pid, call))),
            None => {}
        }
        Some(pending)
    }

    fn expired(&self, now: Now) -> Option<CallNo> {
        self.deadlines.first().filter(|(at, _)| *at <= now).map(|(_, call)| *call)
    }
}

impl Kernel {
    /// Answers a call. One that was answered already is left alone.
    pub(super) fn finish(&mut self, call: CallNo, result: Result<Reply, Fault>) {
        match self.calls.waits(call) {
            Some(Waits::Events(_)) => self.subscriptions.remove(call),
            Some(Waits::Output(pid, _)) => {
                let pid = *pid;
                self.outputs.unfollow(pid, call);
            }
            Some(Waits::Service(name, _)) => {
                if let Some(service) = self.services.get_mut(name) {
                    service.waiters.remove(&call);
                }
            }
            Some(Waits::Turn) => self.turns.leave(call),
            // While it still hears: what it has lost is told before the answer.
            Some(Waits::Calls(_)) => self.end_trace(call),
            _ => {}
        }
        if let Some(context) = self.compactions.remove(&call) {
            return self.compacted(context, result);
        }
        let Some(pending) = self.calls.remove(call) else { return };
        if let Some(process) = self.processes.living_mut(pending.pid) {
            process.calls.remove(&call);
        }
        self.remember_call(pending.pid, pending.name, pending.since, result.as_ref());
        self.trace_return(pending.pid, (pending.traced, pending.name), pending.since, result.as_ref());
        if let Some(awaited) = pending.waits_for {
            self.inherit_of(pending.pid, awaited);
        }
        match pending.caller {
            Some(Caller { conn, call: id }) => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.in_flight.remove(&id);
                }
                self.keep_heard_result(call, &pending, &result);
                self.send(conn, Frame::Reply(id, result));
            }
            None => self.keep_result(call, &pending, &result, false),
        }
    }

    /// Sends an event of a call.
    pub(super) fn report(&mut self, call: CallNo, event: Event) {
        if let Some(caller) = self.calls.get(call).and_then(|pending| pending.caller) {
            self.tell_caller(caller, event);
        }
    }

    /// Sends an event of a call to a connection that is still there.
    pub(super) fn tell_caller(&mut self, caller: Caller, event: Event) {
        caller.tell(&self.connections, &mut self.out, event);
    }

    /// Writes a frame to a connection that is still there.
    pub(super) fn send(&mut self, conn: ConnId, frame: Frame) {
        if self.connections.contains_key(&conn) {
            self.out.push(Effect::Send { conn, frame: Box::new(frame) });
        }
    }

    /// Withdraws a call: a generation that has begun answers with what has come, anything else with the fault.
    pub(super) fn cancel_call(&mut self, call: CallNo, fault: &Fault) {
        let Some(waits) = self.calls.waits(call) else { return };
        match waits.clone() {
            Waits::Context(context) => self.withdraw(context, call, fault),
            Waits::Answer(model) => {
                self.withdraw_question(model, call);
                self.finish(call, Err(fault.clone()));
            }
            Waits::Open(model, _) => {
                self.withdraw_opening(model, call);
                self.finish(call, Err(fault.clone()));
            }
            // A mount goes on without who asked for it.
            Waits::Mount(_)
            | Waits::Child(_)
            | Waits::Message
            | Waits::Signal
            | Waits::Start(_)
            | Waits::Store
            | Waits::Turn
            | Waits::Events(_)
            | Waits::Calls(_)
            | Waits::Output(..)
            | Waits::Service(..) => {
                self.finish(call, Err(fault.clone()));
            }
        }
    }

    /// Answers the calls whose time is up. The time of a subscription is its length and no fault.
    pub(super) fn expire_calls(&mut self) {
        while let Some(call) = self.calls.expired(self.now) {
            let result = match self.calls.waits(call) {
                Some(Waits::Events(_)) => Ok(Reply::Done {}),
                _ => Err(Fault::new(Errno::ETIMEDOUT, "nothing came in the time given by timeout_ms")),
            };
            self.finish(call, result);
        }
    }
}
