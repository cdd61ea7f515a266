//! What programs that compute have been served on a device, as virtual time in each class.
//!
//! As among generations (`sched/policy/fair.rs`): who waits for its turn, or asks again before it is that of others, and
//! is not stopped, is backlogged, and who becomes so begins at the clock of its class, or at its own virtual time if that
//! is later. A rest earns nothing, a newcomer has no past to make up for, and newcomers that come again and again keep
//! nobody waiting for ever.

use std::collections::{BTreeMap, BTreeSet};

use syscalls::Pid;
use syscalls::call::Class;
use syscalls::limits::QUANTUM_US_MAX;

use super::super::sched::{Clock, Spread, virtual_time, weight};

/// So far behind the least served newcomers begin at most, in microseconds: a longest quantum.
const LAG_US: u64 = QUANTUM_US_MAX as u64;

/// By device and class.
#[derive(Debug, Default)]
pub(super) struct Served(BTreeMap<(usize, Class), Members>);

#[derive(Debug, Default)]
struct Members {
    clock: Clock,
    all: BTreeMap<Pid, Member>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    /// Virtual time.
    service: u64,
    backlogged: bool,
}

/// A process that is backlogged on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backlogged {
    pub pid: Pid,
    pub class: Class,
    pub nice: i8,
}

impl Served {
    /// What a process has been served.
    pub(super) fn of(&self, device: usize, class: Class, pid: Pid) -> u64 {
        self.0.get(&(device, class)).and_then(|members| members.all.get(&pid)).map_or(0, |m| m.service)
    }

    /// Takes note of who is backlogged on a device: of all who are, when it is somebody's turn.
    pub(super) fn see(&mut self, device: usize, backlogged: &[Backlogged]) {
        let still: BTreeSet<(Class, Pid)> = backlogged.iter().map(|b| (b.class, b.pid)).collect();
        for ((_, class), members) in self.of_device(device) {
            for (pid, member) in &mut members.all {
                member.backlogged &= still.contains(&(*class, *pid));
            }
        }
        for Backlogged { pid, class, .. } in backlogged {
            let Members { clock, all } = self.0.entry((device, *class)).or_default();
            let member = all.entry(*pid).or_default();
            if !member.backlogged {
                *member = Member { service: member.service.max(clock.at()), backlogged: true };
            }
        }
        for ((_, class), members) in self.of_device(device) {
            let mut spread = Spread::default();
            for b in backlogged.iter().filter(|b| b.class == *class) {
                spread.join(Spread::of(members.all[&b.pid].service, weight(b.nice)));
            }
            if !spread.is_empty() {
                members.clock.see(spread, virtual_time(LAG_US, 0));
            }
        }
    }

    fn of_device(&mut self, device: usize) -> impl Iterator<Item = (&(usize, Class), &mut Members)> {
        self.0.iter_mut().filter(move |((on, _), _)| *on == device)
    }

    /// Charges a process with a time.
    pub(super) fn charge(&mut self, device: usize, Backlogged { pid, class, nice }: Backlogged, us: u64) {
        let Members { clock, all } = self.0.entry((device, class)).or_default();
        let member = all.entry(pid).or_default();
        member.service = member.service.saturating_add(virtual_time(us, nice));
        clock.pass(us);
    }

    /// Forgets a process that has ended.
    pub(super) fn forget(&mut self, pid: Pid) {
        for members in self.0.values_mut() {
            members.all.remove(&pid);
        }
    }

    /// Who is known, for tests of the invariants.
    pub(super) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.0.values().flat_map(|members| members.all.keys().copied())
    }
}
