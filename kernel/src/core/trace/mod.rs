//! Tracing: telling somebody what a process asks for, what comes of it, and which signals it gets.
//!
//! A trace is a call that lasts. A process that nobody traces pays for one comparison a call. Nothing is kept for a
//! tracer and no process waits for one: to a tracer that does not read, events are counted instead of sent, as to a
//! subscriber (`core/subscription.rs`), and so are an event that is larger than [`TRACE_EVENT_BYTES_MAX`], and those that
//! come at once beyond what a reader can be owed ([`OUTPUT_BYTES_MAX`]): a process may have thousands of contexts.
//!
//! [`TRACE_EVENT_BYTES_MAX`]: syscalls::limits::TRACE_EVENT_BYTES_MAX
//! [`OUTPUT_BYTES_MAX`]: syscalls::limits::OUTPUT_BYTES_MAX

mod cut;
mod tell;

use std::collections::{BTreeMap, BTreeSet};

use syscalls::call::{Capability, Trace};
use syscalls::{Call, Pid};

use super::Kernel;
use super::call::CallNo;
use super::event::{ConnId, Now};

/// One trace.
#[derive(Debug)]
struct Tracing {
    conn: ConnId,
    /// The tracer, which is not in its own trace.
    tracer: Pid,
    uid: u32,
    /// It may trace processes of other users.
    reaches_all: bool,
    follow: bool,
    tokens: bool,
    whole: bool,
    /// Processes of the operating system whose processes belong to it.
    os_pids: BTreeSet<u32>,
    /// It lasts until it is ended, and not only as long as a process lives.
    endless: bool,
    pids: BTreeSet<Pid>,
    /// When it was told something last, and how many bytes then.
    told: (Now, usize),
    /// Events that were left out since the last one that was sent.
    lost: u64,
}

/// All traces, by their calls.
#[derive(Debug, Default)]
pub(super) struct Traces {
    by_call: BTreeMap<CallNo, Tracing>,
    /// The last number that a traced call was given.
    numbered: u64,
}

impl Traces {
    pub(super) fn len(&self) -> usize {
        self.by_call.len()
    }

    /// How many a user has.
    pub(super) fn count_of(&self, uid: u32) -> usize {
        self.by_call.values().filter(|t| t.uid == uid).count()
    }

    /// The traces that a process is in.
    fn of(&self, pid: Pid) -> Vec<CallNo> {
        self.by_call.iter().filter(|(_, t)| t.pids.contains(&pid)).map(|(call, _)| *call).collect()
    }

    /// Whether a process is in a trace.
    pub(super) fn has(&self, pid: Pid) -> bool {
        self.by_call.values().any(|t| t.pids.contains(&pid))
    }

    /// Processes of all traces.
    pub(super) fn pids(&self) -> BTreeSet<Pid> {
        self.by_call.values().flat_map(|t| t.pids.iter().copied()).collect()
    }
}

impl Kernel {
    /// A trace begins. The caller has seen that it may.
    pub(super) fn begin_trace(&mut self, call: CallNo, conn: ConnId, args: &Trace) {
        let Some(tracer) = self.calls.get(call).map(|pending| pending.pid) else { return };
        let Ok(process) = self.process(tracer) else { return };
        let tracing = Tracing {
            conn,
            tracer,
            uid: process.id.uid,
            reaches_all: process.caps.has(Capability::Kill),
            follow: args.follow,
            tokens: args.tokens,
            whole: args.whole,
            os_pids: args.os_pid.into_iter().collect(),
            endless: args.os_pid.is_some(),
            pids: BTreeSet::new(),
            told: (self.now, 0),
            lost: 0,
        };
        self.traces.by_call.insert(call, tracing);
        let Some(pid) = args.pid else { return };
        self.join_trace(call, pid);
        if args.follow {
            let below: Vec<Pid> =
                self.processes.pids().filter(|p| self.processes.descends(*p, pid)).collect();
            below.into_iter().for_each(|pid| self.join_trace(call, pid));
        }
    }

    /// A living process is in a trace from now on.
    fn join_trace(&mut self, call: CallNo, pid: Pid) {
        let Some(tracing) = self.traces.by_call.get_mut(&call).filter(|t| t.tracer != pid) else { return };
        let Some(process) = self.processes.living_mut(pid) else { return };
        if process.id.uid != tracing.uid && !tracing.reaches_all {
            return;
        }
        process.traced = true;
        if tracing.pids.insert(pid) {
            self.tell_held(call, pid);
        }
    }

    /// A trace is over. What it has lost at last is told before its answer.
    pub(super) fn end_trace(&mut self, call: CallNo) {
        let Some(tracing) = self.traces.by_call.remove(&call) else { return };
        if tracing.lost > 0 {
            self.report(call, syscalls::Event::Lost { events: tracing.lost });
        }
        for pid in tracing.pids {
            let traced = self.traces.has(pid);
            if let Some(process) = self.processes.living_mut(pid) {
                process.traced = traced;
            }
        }
    }

    /// A process is in the table: it may belong to a trace.
    pub(super) fn trace_newcomer(&mut self, pid: Pid, os_parent: Option<u32>) {
        if self.traces.by_call.is_empty() {
            return;
        }
        let Some(id) = self.processes.identity(pid) else { return };
        let (parent, os_pid) = (id.parent, id.os_pid);
        let mut joins = Vec::new();
        for (call, tracing) in &mut self.traces.by_call {
            // Who has said hello is a child of the kernel.
            let said_hello = parent == Pid::KERNEL;
            let os_child = tracing.follow && os_parent.is_some_and(|above| tracing.os_pids.contains(&above));
            if said_hello && os_child {
                tracing.os_pids.insert(os_pid);
            }
            let by_os = said_hello && tracing.os_pids.contains(&os_pid);
            if by_os || (tracing.follow && tracing.pids.contains(&parent)) {
                joins.push(*call);
            }
        }
        joins.into_iter().for_each(|call| self.join_trace(call, pid));
    }

    /// A process has ended: traces that have nobody left are over.
    pub(super) fn trace_parting(&mut self, pid: Pid) {
        for call in self.traces.of(pid) {
            let Some(tracing) = self.traces.by_call.get_mut(&call) else { continue };
            tracing.pids.remove(&pid);
            if tracing.pids.is_empty() && !tracing.endless {
                self.finish(call, Ok(syscalls::Reply::Done {}));
            }
        }
    }

    /// Numbers a call of a process that is traced, and tells of it.
    pub(super) fn trace_call(&mut self, pid: Pid, call: &Call) -> Option<u64> {
        if !self.processes.living(pid).is_some_and(|process| process.traced) {
            return None;
        }
        self.traces.numbered += 1;
        let number = self.traces.numbered;
        self.tell_called(pid, number, call);
        Some(number)
    }
}
