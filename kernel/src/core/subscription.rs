//! Telling subscribers what happens.
//!
//! An event is made only where somebody wants it, so a kernel without subscribers pays for a comparison. Nothing is
//! kept for a subscriber: to one that does not read, events are counted instead of sent, and it is told how many when
//! it reads again. So what waits for it is bounded by what bounds every other output.

use std::collections::BTreeMap;

use syscalls::call::Capability;
use syscalls::event::{PageChange, ProcessChange, StepRow, WorkerChange};
use syscalls::{ContextId, Event, Pid};

use super::Kernel;
use super::call::CallNo;
use super::event::{ConnId, ModelId};
use super::sched::{InFlight, RowSent};

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Process,
    Step,
    Page,
    Worker,
    Service,
}

impl Kind {
    /// All of them, by the names that `subscribe` knows.
    const ALL: [(&'static str, Kind); 5] = [
        ("process", Kind::Process),
        ("step", Kind::Step),
        ("page", Kind::Page),
        ("worker", Kind::Worker),
        ("service", Kind::Service),
    ];
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds(u8);

impl Kinds {
    /// The kinds of these names, or all if there are none; the first name that is unknown where there is one.
    pub(super) fn named(names: &[String]) -> Result<Kinds, &str> {
        let all = || Kind::ALL.iter().map(|(_, kind)| *kind);
        if names.is_empty() {
            return Ok(all().collect());
        }
        let kind = |name: &String| Kind::ALL.iter().find(|(known, _)| known == name).map(|(_, kind)| *kind);
        names.iter().map(|name| kind(name).ok_or(name.as_str())).collect()
    }

    fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        Kinds(kinds.into_iter().fold(0, |set, kind| set | 1 << kind as u8))
    }
}

#[derive(Debug)]
struct Subscription {
    kinds: Kinds,
    conn: ConnId,
    uid: u32,
    /// Events that were left out since the last one that was sent.
    lost: u64,
}

/// All subscriptions, by their calls.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(BTreeMap<CallNo, Subscription>);

impl Subscriptions {
    pub(super) fn insert(&mut self, call: CallNo, conn: ConnId, uid: u32, kinds: Kinds) {
        self.0.insert(call, Subscription { kinds, conn, uid, lost: 0 });
    }

    pub(super) fn remove(&mut self, call: CallNo) {
        self.0.remove(&call);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many a user has.
    pub(super) fn count_of(&self, uid: u32) -> usize {
        self.0.values().filter(|s| s.uid == uid).count()
    }

    /// The subscriptions that want a kind. Allocates nothing where there are none.
    fn wanting(&self, kind: Kind) -> Vec<CallNo> {
        self.0.iter().filter(|(_, s)| s.kinds.has(kind)).map(|(call, _)| *call).collect()
    }
}

impl From<&RowSent> for StepRow {
    fn from(row: &RowSent) -> Self {
        StepRow { pid: row.owner, context: row.context, tokens: row.tokens, prefill: !row.decodes() }
    }
}

impl Kernel {
    fn tell(&mut self, kind: Kind, event: impl FnOnce(&Kernel) -> Option<Event>) {
        let calls = self.subscriptions.wanting(kind);
        if calls.is_empty() {
            return;
        }
        let Some(event) = event(self) else { return };
        for call in calls {
            let Some(event) = self.seen_by(call, &event) else { continue };
            let Some(subscription) = self.subscriptions.0.get_mut(&call) else { continue };
            if self.connections.get(&subscription.conn).is_none_or(|c| c.congested) {
                subscription.lost += 1;
            } else {
                self.report(call, event);
            }
        }
    }

    /// What of an event the subscriber of a call sees: all of it with the capability `kill`, else what is about processes
    /// of his user, and about none.
    fn seen_by(&self, call: CallNo, event: &Event) -> Option<Event> {
        let pending = self.calls.get(call)?;
        let own = |pid: Pid| self.processes.identity(pid).is_some_and(|id| id.uid == pending.uid);
        if self.processes.living(pending.pid).is_some_and(|p| p.caps.has(Capability::Kill)) {
            return Some(event.clone());
        }
        match event {
            Event::Process { pid, .. } | Event::Page { pid, .. } if !own(*pid) => None,
            Event::Step { .. } => {
                let mut event = event.clone();
                if let Event::Step { rows, .. } = &mut event {
                    rows.retain(|row| own(row.pid));
                }
                Some(event)
            }
            _ => Some(event.clone()),
        }
    }

    /// Tells the subscribers on a connection that reads again what they have missed.
    pub(super) fn tell_lost(&mut self, conn: ConnId) {
        let on_it = self.subscriptions.0.iter_mut().filter(|(_, s)| s.conn == conn && s.lost > 0);
        let lost: Vec<_> = on_it.map(|(call, s)| (*call, std::mem::take(&mut s.lost))).collect();
        for (call, events) in lost {
            self.report(call, Event::Lost { events });
        }
    }

    /// A process is in the table.
    pub(super) fn process_started(&mut self, pid: Pid) {
        self.tell(Kind::Process, |kernel| kernel.process_event(pid, ProcessChange::Started, None));
        self.trace_change(pid, ProcessChange::Started, None);
    }

    /// A process has ended; it is still in the table.
    pub(super) fn process_ended(&mut self, pid: Pid, status: u8) {
        self.tell(Kind::Process, |kernel| kernel.process_event(pid, ProcessChange::Ended, Some(status)));
        self.trace_change(pid, ProcessChange::Ended, Some(status));
        self.trace_parting(pid);
    }

    pub(super) fn process_event(&self, pid: Pid, change: ProcessChange, status: Option<u8>) -> Option<Event> {
        let id = self.processes.identity(pid)?;
        let (parent, name, class) = (id.parent, id.name.clone(), id.class);
        Some(Event::Process { at_us: self.now.0, pid, parent, name, class, change, status })
    }

    /// A worker has run a step.
    pub(super) fn step_ran(&mut self, id: ModelId, step: &InFlight, elapsed_us: u64) {
        self.tell(Kind::Step, |kernel| {
            kernel.step_event(id, step, elapsed_us, step.rows.iter().map(Into::into).collect())
        });
        self.trace_step(id, step, elapsed_us);
    }

    /// A step, with these rows of it.
    pub(super) fn step_event(
        &self,
        id: ModelId,
        step: &InFlight,
        elapsed_us: u64,
        rows: Vec<StepRow>,
    ) -> Option<Event> {
        let model = self.models.get(&id)?;
        Some(Event::Step {
            at_us: self.now.0,
            begun_us: step.since.0,
            elapsed_us,
            model: model.name.clone(),
            number: step.number,
            frames_free: model.frames().1.into(),
            rows,
        })
    }

    /// A service is in another state.
    pub(super) fn service_changed(&mut self, name: &str) {
        self.tell(Kind::Service, |kernel| kernel.service_event(name));
    }

    /// Pages of a context came, went, or are waited for.
    pub(super) fn pages_changed(&mut self, context: ContextId, change: PageChange, tokens: u32) {
        self.tell(Kind::Page, |kernel| {
            let (at_us, of) = (kernel.now.0, kernel.contexts.get(&context)?);
            let model = kernel.models.get(&of.model)?.name.clone();
            Some(Event::Page { at_us, model, pid: of.owner, context, change, tokens })
        });
    }

    /// A worker started, was ready, or went.
    pub(super) fn worker_changed(&mut self, id: ModelId, change: WorkerChange, detail: &str) {
        self.tell(Kind::Worker, |kernel| {
            let model = kernel.models.get(&id)?;
            let (model, incarnation) = (model.name.clone(), model.incarnation);
            Some(Event::Worker { at_us: kernel.now.0, model, incarnation, change, detail: detail.into() })
        });
    }
}
