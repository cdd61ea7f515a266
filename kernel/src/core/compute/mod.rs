//! Turns of programs that compute on a device by themselves: trainers, and whatever makes models smaller.
//!
//! Models are given steps; a program of this kind asks for a *quantum*, a time in which it computes, with `compute`, and
//! asks again when that is over. On each device one of them has a quantum at a time. Whose turn it is:
//!
//! - by class, and in a class the process that has been served least for its weight. Rests earn nothing (`served.rs`).
//! - Beside models that have steps on the device, it is a matter of shares: below what runs there it is owed a twentieth
//!   of the time, in the class of what runs there its part by weight, above it everything. What it has not had of its
//!   share is kept, what it had beyond it is held against it, up to [`OWED_US_MAX`].
//!
//! Nobody can take a processor away from a program in the middle of its quantum but the system, so quanta are short, and a
//! program of the class batch should also ask the system to run it only where processors are idle. One that computes on
//! after its quantum is charged for that, and keeps others waiting for as long as it usually does: what it computes has
//! no end before, and if others had their turns then, the weights of those who are late would not count. The time is
//! charged when the quantum ends, and before that when it would reach the process's limit of service: one that never ends
//! its quantum is held to that all the same.

mod served;

use std::collections::{BTreeMap, BTreeSet};

use syscalls::call::Class;
use syscalls::{Pid, Reply};

use super::Kernel;
use super::call::CallNo;
use super::event::Now;
use super::process::Run;
use super::sched::{OWED_SHARE, OWED_US_MAX, weight};
use served::{Backlogged, Served};

/// How long after the end of its quantum a process may ask for the next before others have their turn, in microseconds:
/// otherwise two would take turns whatever their weights and classes, since only one of them is in line at a time.
const ASKS_AGAIN_US: u64 = 2_000;

/// How much longer than that a process has which usually ends its quanta late, because what it computes has no end before:
/// at most this, or one that ends without a word would hold up the others.
const LATE_US_MAX: u64 = 250_000;

/// A process that computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quantum {
    device: usize,
    until: Now,
    /// Up to when its time is charged.
    charged: Now,
    /// When the process will have had all the service that it may have.
    limit_at: Option<Now>,
}

/// A process that waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    pid: Pid,
    device: usize,
    us: u32,
}

/// A part of a device's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    weight: u64,
    of: u64,
}

/// What programs are owed of a device's time beside models.
#[derive(Clone, Copy, Debug, Default)]
struct Debt {
    /// In microseconds; below 0 what they had too much.
    owed_us: i64,
    /// Since when `share` is their share; none where nobody shares the device with them.
    at: Now,
    share: Option<Share>,
}

/// Who computes, and who waits for that.
#[derive(Debug, Default)]
pub(super) struct Turns {
    quanta: BTreeMap<Pid, Quantum>,
    waiting: BTreeMap<CallNo, Waiting>,
    served: Served,
    /// How long after the ends of its quanta each process asks again, in microseconds; the longest, which fades.
    late_us: BTreeMap<Pid, u64>,
    debts: BTreeMap<usize, Debt>,
    /// When those who compute reach their limits of service.
    limits: BTreeSet<(Now, Pid)>,
    /// When somebody who waits may have his turn.
    next_look: Option<Now>,
}

impl Turns {
    /// When somebody who waits may have his turn without an event.
    pub(super) fn next_look(&self) -> Option<Now> {
        self.next_look
    }

    /// When somebody who computes reaches his limit of service.
    pub(super) fn next_limit(&self) -> Option<Now> {
        self.limits.first().map(|(at, _)| *at)
    }

    /// Notes when a process that computes reaches its limit of service, if it does.
    fn expect_limit(&mut self, pid: Pid, at: Option<Now>) {
        let Some(quantum) = self.quanta.get_mut(&pid) else { return };
        if let Some(before) = std::mem::replace(&mut quantum.limit_at, at) {
            self.limits.remove(&(before, pid));
        }
        self.limits.extend(at.map(|at| (at, pid)));
    }

    /// Puts a call in line.
    pub(super) fn wait(&mut self, call: CallNo, pid: Pid, device: usize, us: u32) {
        self.waiting.insert(call, Waiting { pid, device, us });
    }

    /// Takes a call out of line.
    pub(super) fn leave(&mut self, call: CallNo) {
        self.waiting.remove(&call);
    }

    /// Whether a process waits for its turn.
    pub(super) fn waits(&self, pid: Pid) -> bool {
        self.waiting.values().any(|w| w.pid == pid)
    }

    /// Whether a process has a quantum that is not over.
    pub(super) fn computes(&self, pid: Pid, now: Now) -> bool {
        self.quanta.get(&pid).is_some_and(|quantum| quantum.until > now)
    }

    /// Forgets what a process that has ended was served.
    pub(super) fn forget(&mut self, pid: Pid) {
        self.served.forget(pid);
        self.late_us.remove(&pid);
    }

    /// Learns how late a process asks again.
    fn asked_again(&mut self, pid: Pid, quantum: Quantum, now: Now) {
        let late = now.0.saturating_sub(quantum.until.0).min(LATE_US_MAX);
        let usual = self.late_us.entry(pid).or_default();
        *usual = late.max((3 * *usual + late) / 4);
    }

    /// When others may have a device that somebody computes on.
    fn busy_until(&self, device: usize, now: Now) -> Option<Now> {
        let on_it = self.quanta.iter().filter(|(_, q)| q.device == device);
        let until = on_it.map(|(pid, q)| {
            let late = self.late_us.get(pid).copied().unwrap_or_default();
            Now(q.until.0.saturating_add(ASKS_AGAIN_US + late))
        });
        until.filter(|until| *until > now).max()
    }

    /// The calls in line and the processes that have quanta, for tests of the invariants.
    pub(super) fn all(&self) -> (impl Iterator<Item = (CallNo, Pid)>, impl Iterator<Item = Pid>) {
        (
            self.waiting.iter().map(|(call, w)| (*call, w.pid)),
            self.quanta.keys().copied().chain(self.served.pids()),
        )
    }
}

impl Debt {
    /// Counts the time since it was looked at last, and takes over the share that holds from now on.
    fn pass(&mut self, now: Now, share: Option<Share>) {
        let us = now.0.saturating_sub(self.at.0).min(OWED_US_MAX as u64 * OWED_SHARE as u64);
        match self.share {
            Some(Share { weight, of }) => {
                let owed = i64::try_from(us * weight / of.max(1)).unwrap_or(OWED_US_MAX);
                self.owed_us = (self.owed_us + owed).min(OWED_US_MAX);
            }
            // Time that nobody else wanted is not held against them.
            None => self.owed_us = 0,
        }
        // Parts of a microsecond that are not counted yet stay to be counted.
        if self.share != share || self.share.is_none_or(|s| us * s.weight >= s.of) {
            self.at = now;
        }
        self.share = share;
    }

    /// When they may compute again, if not now.
    fn waits_until(&self) -> Option<Now> {
        let Share { weight, of } = self.share?;
        let lacks = u64::try_from(-self.owed_us).ok().filter(|lacks| *lacks > 0)?;
        Some(Now(self.at.0.saturating_add((lacks * of).div_ceil(weight.max(1)))))
    }
}

impl Kernel {
    /// Gives quanta to those whose turn it is.
    pub(super) fn grant_quanta(&mut self) {
        let devices: BTreeSet<usize> = self.turns.waiting.values().map(|w| w.device).collect();
        self.turns.next_look = devices.into_iter().filter_map(|device| self.grant_on(device)).min();
    }

    /// Gives a quantum on a device to whose turn it is. Says when to look again where somebody waits on.
    fn grant_on(&mut self, device: usize) -> Option<Now> {
        let now = self.now;
        // As after nearly every event, and then nothing is looked up for those that wait.
        if let Some(until) = self.turns.busy_until(device, now) {
            return Some(until);
        }
        let backlogged = self.waiting_for(device);
        self.turns.served.see(device, &backlogged);
        let (call, waiting, class) = self.next_in_turn(device)?;
        let own: u64 = backlogged.iter().filter(|b| b.class == class).map(|b| weight(b.nice)).sum();
        let share = self.share_beside_models(device, own, class);
        let debt = self.turns.debts.entry(device).or_default();
        debt.pass(now, share);
        if let Some(until) = debt.waits_until() {
            return Some(until);
        }
        self.turns.quanta.insert(
            waiting.pid,
            Quantum {
                device,
                until: Now(now.0.saturating_add(u64::from(waiting.us))),
                charged: now,
                limit_at: None,
            },
        );
        self.expect_service_limit(waiting.pid);
        self.finish(call, Ok(Reply::Quantum { us: waiting.us }));
        self.next_in_turn(device)?;
        self.turns.busy_until(device, now)
    }

    /// Those that wait for a device and are not stopped. Whoever has a quantum there that he has not ended when it is
    /// somebody's turn again may never end it, and is no measure for the others.
    fn waiting_for(&self, device: usize) -> Vec<Backlogged> {
        let waiting = self.turns.waiting.values().filter(|w| w.device == device);
        waiting.filter_map(|w| self.as_backlogged(w.pid)).collect()
    }

    fn as_backlogged(&self, pid: Pid) -> Option<Backlogged> {
        let process = self.processes.living(pid).filter(|process| process.run == Run::Going)?;
        Some(Backlogged { pid, class: process.class(), nice: process.id.nice })
    }

    /// Whose turn it is among those that wait for a device and are not stopped.
    fn next_in_turn(&self, device: usize) -> Option<(CallNo, Waiting, Class)> {
        let waiting = self.turns.waiting.iter().filter(|(_, w)| w.device == device);
        let candidates = waiting.filter_map(|(call, w)| {
            let class = self.as_backlogged(w.pid)?.class;
            Some(((class, self.turns.served.of(device, class, w.pid), *call), *w))
        });
        candidates.min_by_key(|(rank, _)| *rank).map(|((class, _, call), w)| (call, w, class))
    }

    /// The share of programs of a class, which weigh so much together, of the time of a device that models have steps on;
    /// nothing where they are alone there.
    fn share_beside_models(&self, device: usize, own: u64, class: Class) -> Option<Share> {
        let steps = self.models.values().filter(|m| m.placement.is_some_and(|p| p.device == device));
        let mut peers = BTreeSet::new();
        for row in steps.filter_map(|m| m.in_flight.as_ref()).flat_map(|step| &step.rows) {
            if row.class < class {
                return Some(Share { weight: 1, of: OWED_SHARE as u64 });
            }
            if row.class == class {
                peers.insert(row.owner);
            }
        }
        let nice = |pid: &Pid| self.processes.living(*pid).map_or(0, |process| process.id.nice);
        let theirs: u64 = peers.iter().map(|pid| weight(nice(pid))).sum();
        (theirs > 0).then_some(Share { weight: own, of: own + theirs })
    }

    /// Ends the quantum of a process, if it has one, and charges it with the time that it is not charged for yet.
    pub(super) fn end_quantum(&mut self, pid: Pid) {
        self.charge_quantum(pid);
        self.turns.expect_limit(pid, None);
        let Some(quantum) = self.turns.quanta.remove(&pid) else { return };
        if self.processes.living(pid).is_some() {
            self.turns.asked_again(pid, quantum, self.now);
        }
    }

    /// Charges a process, if it has a quantum, with the time since it was charged for that last.
    fn charge_quantum(&mut self, pid: Pid) {
        let Some(quantum) = self.turns.quanta.get_mut(&pid) else { return };
        let us = self.now.0.saturating_sub(quantum.charged.0);
        quantum.charged = self.now;
        let device = quantum.device;
        let debt = self.turns.debts.entry(device).or_default();
        debt.pass(self.now, debt.share);
        if debt.share.is_some() {
            debt.owed_us =
                debt.owed_us.saturating_sub(i64::try_from(us).unwrap_or(i64::MAX)).max(-OWED_US_MAX);
        }
        let Some(process) = self.processes.living_mut(pid) else { return };
        let who = Backlogged { pid, class: process.class(), nice: process.id.nice };
        self.turns.served.charge(device, who, us);
        if process.serve(us) {
            self.used_up.insert(pid);
        }
    }

    /// Takes note of a limit of service that has changed, where its process computes.
    pub(super) fn service_limit_changed(&mut self, pid: Pid) {
        self.charge_quantum(pid);
        self.expect_service_limit(pid);
    }

    /// Works out when a process that computes, and is charged up to now, reaches its limit of service.
    fn expect_service_limit(&mut self, pid: Pid) {
        let Some(process) = self.processes.living(pid) else { return };
        let left = process.limits.service_us.map(|most| most.saturating_sub(process.id.counters.step_us));
        let at = left.map(|us| Now(self.now.0.saturating_add(us.max(1))));
        self.turns.expect_limit(pid, at);
    }

    /// Charges those who compute and have reached their limits of service.
    pub(super) fn charge_at_limits(&mut self) {
        while let Some((at, pid)) = self.turns.limits.first().copied().filter(|(at, _)| *at <= self.now) {
            self.turns.limits.remove(&(at, pid));
            self.charge_quantum(pid);
        }
    }
}
