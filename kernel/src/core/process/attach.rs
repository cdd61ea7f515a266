//! Processes that outlive their connections.
//!
//! A process is on a connection, or detached: then it goes on, what its calls report is dropped, and their replies are
//! kept with it until somebody fetches them, a bounded number. `attach` puts it on another connection, and `follow`
//! makes somebody there the one who hears a call. A process and those below it on the same connection stay together,
//! whichever way they go.

use serde::{Deserialize, Serialize};
use syscalls::call::Lifetime;
use syscalls::event::Event;
use syscalls::reply::{AttachedReply, CallInfo, ContextInfo, Frame};
use syscalls::{ContextId, Errno, Fault, Pid, Reply, Ticket, TokenRun, Tokens};

use super::super::Kernel;
use super::super::call::{CallNo, Caller, Pending, Waits};
use super::super::effect::Effect;
use super::super::event::ConnId;
use super::super::image::{EndedCall, Entry, Kept};
use super::Process;

/// A call that ended, and whose reply is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::core) struct Ended {
    pub call: CallNo,
    /// Its name in the manual.
    pub name: String,
    /// The context that it was about.
    pub context: Option<ContextId>,
    /// A `Result<Reply, Fault>`.
    pub result: Kept,
    /// It was sent to somebody, who may not have got it before the daemon ended.
    #[serde(default)]
    pub sent: bool,
}

impl Kernel {
    /// Whether somebody takes what the calls of a process report, or it is detached and nobody needs to.
    pub(in crate::core) fn is_read(&self, process: &Process) -> bool {
        match process.conn {
            Some(conn) => self.connections.get(&conn).is_some_and(|c| !c.congested),
            None => true,
        }
    }

    /// A process, and those below it that are where it is: on the same connection, or detached.
    pub(in crate::core) fn flock(&self, pid: Pid) -> Vec<Pid> {
        let Some(conn) = self.processes.living(pid).map(|p| p.conn) else { return vec![] };
        let mut flock = vec![pid];
        let mut at = 0;
        while let Some(parent) = flock.get(at).copied() {
            let children = self.processes.children(parent);
            flock.extend(children.filter(|c| self.processes.living(*c).is_some_and(|p| p.conn == conn)));
            at += 1;
        }
        flock
    }

    /// Takes a process and those below it off their connection, for good. The connection that began with it ends.
    pub(in crate::core) fn detach(&mut self, pid: Pid) {
        let Some(conn) = self.processes.living(pid).and_then(|p| p.conn) else { return };
        for pid in self.flock(pid) {
            self.processes.prolong(pid, Lifetime::Detached);
            self.let_go(pid);
        }
        self.reparent(pid, Pid::KERNEL);
        if self.connections.get(&conn).is_some_and(|c| c.pid == Some(pid)) {
            self.out.push(Effect::Hangup { conn });
        }
    }

    /// Takes one process off its connection. Calls that wait for somebody's word end, because nobody would hear it; the
    /// others go on unheard.
    pub(in crate::core) fn let_go(&mut self, pid: Pid) {
        let Some(process) = self.processes.living(pid) else { return };
        let calls: Vec<CallNo> = process.calls.iter().copied().collect();
        for call in calls {
            match self.calls.waits(call) {
                Some(waits) if waits.is_for_a_word() => {
                    let fault = Fault::new(Errno::ECANCELED, format!("process {pid} is detached"));
                    self.cancel_call(call, &fault);
                }
                Some(_) => self.unhear(call),
                None => {}
            }
        }
        self.end_quantum(pid);
        let Some(process) = self.processes.living_mut(pid) else { return };
        let Some(conn) = process.conn.take() else { return };
        if process.generating > 0 {
            process.come_back(self.now);
        }
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.processes.remove(&pid);
        }
        self.settle_process(pid);
    }

    /// Puts a detached process and those below it on a connection, as a child of a process there. A program that is being
    /// started is about to have a connection of its own.
    pub(in crate::core) fn attach(&mut self, pid: Pid, parent: Pid, conn: ConnId) {
        let congested = self.connections.get(&conn).is_some_and(|c| c.congested);
        let mut flock = self.flock(pid);
        flock.retain(|pid| !self.programs.is_starting(*pid));
        for pid in flock {
            if let Some(connection) = self.connections.get_mut(&conn) {
                connection.processes.insert(pid);
            }
            if let Some(process) = self.processes.living_mut(pid) {
                process.conn = Some(conn);
                if congested {
                    process.rest(self.now);
                }
            }
            self.settle_process(pid);
        }
        // Somebody may use contexts that sleep.
        self.devices.reconsider();
        self.reparent(pid, parent);
    }

    /// Gives a living process another parent. Whoever waited for it as its parent hears that it is his child no more.
    fn reparent(&mut self, pid: Pid, parent: Pid) {
        let Some(before) = self.processes.identity(pid).map(|id| id.parent) else { return };
        self.processes.adopt(pid, parent);
        self.touch_process(pid);
        if before != parent {
            self.inherit(pid);
            self.tell_parent(before);
        }
    }

    /// What `attach` tells of a process.
    pub(in crate::core) fn attached(&self, pid: Pid) -> Result<AttachedReply, Fault> {
        let process = self.process(pid)?;
        let contexts = process.contexts.iter().filter_map(|id| {
            let (context, model) = (self.contexts.get(id)?, self.model(self.contexts.get(id)?.model).ok()?);
            Some(ContextInfo {
                context: *id,
                model: model.name.clone(),
                length: Tokens(context.length()),
                tokens_max: Tokens(context.tokens_max),
            })
        });
        let ended =
            process.results.iter().map(|ended| (ended.call, ended.name.as_str(), ended.context, true));
        let running = process.calls.iter().filter_map(|call| {
            let pending = self.calls.get(*call)?;
            Some((*call, pending.name, pending.context(), false))
        });
        let mut calls: Vec<_> = ended.chain(running).collect();
        calls.sort_unstable_by_key(|(call, ..)| *call);
        let info = |(call, name, context, ended): (CallNo, &str, _, _)| CallInfo {
            ticket: Ticket(call.0),
            call: name.to_owned(),
            context,
            ended,
        };
        let asleep = self.asleep.values().filter(|image| image.owner == pid).map(|image| ContextInfo {
            context: image.id,
            model: image.model.clone(),
            length: Tokens(image.log.len() as u32),
            tokens_max: Tokens(image.tokens_max),
        });
        let mut contexts: Vec<ContextInfo> = contexts.chain(asleep).collect();
        contexts.sort_unstable_by_key(|info| info.context);
        Ok(AttachedReply { pid, contexts, calls: calls.into_iter().map(info).collect() })
    }

    /// Makes somebody hear a call that nobody hears, and tells him what has come so far.
    pub(in crate::core) fn follow(&mut self, call: CallNo, caller: Caller, replay: bool) {
        self.hear(call, Some(caller));
        let Some(Waits::Context(id)) = self.calls.waits(call) else { return };
        let Some(context) = self.contexts.get(id).filter(|c| replay && c.generating() == Some(call)) else {
            return;
        };
        let Some(generation) = &context.generation else { return };
        let tokens = TokenRun::from_vec(generation.tokens(&context.log));
        if !tokens.is_empty() && generation.valid.stream {
            let text = generation.text().to_owned();
            self.tell_caller(caller, Event::Tokens { text, tokens, logprobs: vec![] });
        }
    }

    /// Nobody hears a call any more. Who did is told why his request has no reply.
    fn unhear(&mut self, call: CallNo) {
        let Some(pending) = self.calls.get(call) else { return };
        let Some(caller) = pending.caller else { return };
        let message = format!(
            "process {} is detached; attach it, and follow call {} to its reply",
            pending.pid, call.0
        );
        self.hear(call, None);
        if let Some(connection) = self.connections.get_mut(&caller.conn) {
            connection.in_flight.remove(&caller.call);
        }
        self.send(caller.conn, Frame::Reply(caller.call, Err(Fault::new(Errno::ECANCELED, message))));
    }

    fn hear(&mut self, call: CallNo, caller: Option<Caller>) {
        let Some(pending) = self.calls.get_mut(call) else { return };
        pending.caller = caller;
        let Some(context) = pending.context() else { return };
        let context = self.contexts.get_mut(&context);
        let generation = context.and_then(|c| c.generation.as_mut()).filter(|g| g.call == call);
        if let Some(generation) = generation {
            generation.caller = caller;
        }
    }

    /// Keeps the reply of a call that nobody hears, in the place of the oldest if there are too many.
    pub(in crate::core) fn keep_result(
        &mut self,
        call: CallNo,
        pending: &Pending,
        result: &Result<Reply, Fault>,
        sent: bool,
    ) {
        let is_word = pending.waits.is_for_a_word();
        let Some(process) = self.processes.living(pending.pid).filter(|_| !is_word) else { return };
        let persistent = process.is_persistent();
        let result = self.processes.as_kept(pending.pid, result);
        let ended = Ended { call, name: pending.name.to_owned(), context: pending.context(), result, sent };
        if persistent {
            let ended = Box::new(EndedCall(ended.clone()));
            self.journal.add(Entry::Ended { pid: pending.pid, ended });
        }
        self.processes.keep_reply(pending.pid, ended);
    }

    /// Keeps the text of a generation that is sent to somebody who may not get it before the daemon is killed, until
    /// the next one on its context has ended.
    pub(in crate::core) fn keep_heard_result(
        &mut self,
        call: CallNo,
        pending: &Pending,
        result: &Result<Reply, Fault>,
    ) {
        let (Ok(Reply::Generated(_)), Some(context)) = (result, pending.context()) else { return };
        let Some(process) = self.processes.living(pending.pid).filter(|p| p.is_persistent()) else { return };
        let before = process.results.iter().filter(|e| e.sent && e.context == Some(context)).map(|e| e.call);
        for before in before.collect::<Vec<_>>() {
            self.fetch_result(pending.pid, before);
        }
        self.keep_result(call, pending, result, true);
    }

    /// Takes the kept reply of a call.
    pub(in crate::core) fn fetch_result(&mut self, pid: Pid, call: CallNo) -> Option<Ended> {
        let ended = self.processes.take_reply(pid, call)?;
        if self.processes.living(pid).is_some_and(Process::is_persistent) {
            self.journal.add(Entry::Fetched { pid, call: call.0 });
        }
        Some(ended)
    }
}

impl Pending {
    /// The context that it is about.
    pub(in crate::core) fn context(&self) -> Option<ContextId> {
        match self.waits {
            Waits::Context(context) => Some(context),
            _ => None,
        }
    }
}
