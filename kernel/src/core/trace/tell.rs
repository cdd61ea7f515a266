//! What tracers are told.

use serde_json::Value;
use syscalls::call::Signal;
use syscalls::event::{ProcessChange, StepRow};
use syscalls::limits::{OUTPUT_BYTES_MAX, TRACE_EVENT_BYTES_MAX};
use syscalls::{Call, ContextId, Event, Fault, Pid, Reply, Token, Tokens};

use super::super::Kernel;
use super::super::call::CallNo;
use super::super::event::{ConnId, ModelId, Now};
use super::super::sched::InFlight;
use super::Tracing;
use super::cut::{cut_event, event_bytes};

impl Kernel {
    /// Tells those who trace a process, if they want such events.
    fn tell_tracers(&mut self, pid: Pid, wants: impl Fn(&Tracing) -> bool, event: &Event) {
        for call in self.traces.of(pid) {
            if self.traces.by_call.get(&call).is_some_and(&wants) {
                self.tell_tracer(call, event.clone());
            }
        }
    }

    fn tell_tracer(&mut self, call: CallNo, mut event: Event) {
        let Some(tracing) = self.traces.by_call.get_mut(&call) else { return };
        if !tracing.whole {
            cut_event(&mut event);
        }
        let congested = self.connections.get(&tracing.conn).is_none_or(|c| c.congested);
        let bytes = event_bytes(&event);
        let at_once = bytes + if tracing.told.0 == self.now { tracing.told.1 } else { 0 };
        if congested || bytes > TRACE_EVENT_BYTES_MAX || at_once > OUTPUT_BYTES_MAX {
            tracing.lost += 1;
            return;
        }
        tracing.told = (self.now, at_once);
        let events = std::mem::take(&mut tracing.lost);
        if events > 0 {
            self.report(call, Event::Lost { events });
        }
        self.report(call, event);
    }

    /// Tells the tracers on a connection that reads again what they have missed.
    pub(in crate::core) fn tell_lost_of_traces(&mut self, conn: ConnId) {
        let on_it = self.traces.by_call.iter_mut().filter(|(_, t)| t.conn == conn && t.lost > 0);
        let lost: Vec<_> = on_it.map(|(call, t)| (*call, std::mem::take(&mut t.lost))).collect();
        for (call, events) in lost {
            self.report(call, Event::Lost { events });
        }
    }

    pub(super) fn tell_called(&mut self, pid: Pid, number: u64, call: &Call) {
        let (at_us, args) = (self.now.0, call.args());
        let event = Event::Called { at_us, pid, number, call: call.name().to_owned(), args };
        self.tell_tracers(pid, |_| true, &event);
    }

    /// A traced call is answered.
    pub(in crate::core) fn trace_return(
        &mut self,
        pid: Pid,
        (number, call): (Option<u64>, &str),
        since: Now,
        result: Result<&Reply, &Fault>,
    ) {
        let Some(number) = number.filter(|_| self.traces.has(pid)) else { return };
        let took_us = self.now.0.saturating_sub(since.0);
        let (reply, fault) = match result {
            Ok(reply) => (Some(serde_json::to_value(reply).unwrap_or(Value::Null)), None),
            Err(fault) => (None, Some(fault.clone())),
        };
        let (at_us, call) = (self.now.0, call.to_owned());
        self.tell_tracers(
            pid,
            |_| true,
            &Event::Returned { at_us, pid, number, call, took_us, result: reply, fault },
        );
        if let Ok(Reply::Opened { context, length, .. }) = result
            && *length > Tokens(0)
        {
            for call in self.traces.of(pid) {
                self.tell_context(call, pid, *context);
            }
        }
    }

    /// A token of a traced process came out.
    pub(in crate::core) fn trace_token(
        &mut self,
        pid: Pid,
        call: CallNo,
        context: ContextId,
        token: Token,
        piece: &[u8],
    ) {
        let Some(number) = self.calls.get(call).and_then(|pending| pending.traced) else { return };
        let text = String::from_utf8_lossy(piece).into_owned();
        let event = Event::Sampled { at_us: self.now.0, pid, number, context, token, text };
        self.tell_tracers(pid, |t| t.tokens, &event);
    }

    /// A signal comes to a process.
    pub(in crate::core) fn trace_signal(&mut self, pid: Pid, signal: Signal) {
        if self.processes.living(pid).is_some_and(|process| process.traced) {
            self.tell_tracers(pid, |_| true, &Event::Signalled { at_us: self.now.0, pid, signal });
        }
    }

    /// A process began or ended.
    pub(in crate::core) fn trace_change(&mut self, pid: Pid, change: ProcessChange, status: Option<u8>) {
        if self.traces.len() > 0
            && self.traces.has(pid)
            && let Some(event) = self.process_event(pid, change, status)
        {
            self.tell_tracers(pid, |_| true, &event);
        }
    }

    /// A worker has run a step: each tracer with `tokens` is told of the rows of its processes.
    pub(in crate::core) fn trace_step(&mut self, id: ModelId, step: &InFlight, elapsed_us: u64) {
        let wanting = self.traces.by_call.iter().filter(|(_, t)| t.tokens);
        let wanting: Vec<CallNo> = wanting.map(|(call, _)| *call).collect();
        for call in wanting {
            let Some(tracing) = self.traces.by_call.get(&call) else { continue };
            let rows: Vec<StepRow> =
                step.rows.iter().filter(|r| tracing.pids.contains(&r.owner)).map(Into::into).collect();
            if let Some(event) =
                (!rows.is_empty()).then(|| self.step_event(id, step, elapsed_us, rows)).flatten()
            {
                self.tell_tracer(call, event);
            }
        }
    }

    /// Tells a trace that begins what the contexts of a process hold.
    pub(super) fn tell_held(&mut self, call: CallNo, pid: Pid) {
        let Some(process) = self.processes.living(pid) else { return };
        let contexts: Vec<ContextId> = process.contexts.iter().copied().collect();
        contexts.into_iter().for_each(|context| self.tell_context(call, pid, context));
    }

    fn tell_context(&mut self, call: CallNo, pid: Pid, id: ContextId) {
        if !self.traces.by_call.get(&call).is_some_and(|t| t.whole) {
            return;
        }
        let Some(context) = self.contexts.get(&id) else { return };
        let Some(model) = self.models.get(&context.model).map(|m| m.name.clone()) else { return };
        let busy = !context.queue.is_empty() || !context.messages.is_empty() || context.is_compacting();
        let event = Event::Held {
            at_us: self.now.0,
            pid,
            context: id,
            model,
            tokens: context.log.to_vec(),
            tokens_max: Tokens(context.tokens_max),
            on_full: context.on_full,
            busy,
        };
        self.tell_tracer(call, event);
    }
}
