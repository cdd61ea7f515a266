//! Multilevel feedback queue: a process begins at the top level and sinks as it uses time, so that short work goes
//! before long work without anybody saying which is which. Once a period all rise again, which keeps those at the
//! bottom from starving and lets a process that has become short-lived show it.

use super::super::account::Account;
use super::{Rank, View};
use crate::core::event::Now;

/// What a process may use at the top level, in microseconds; each further level has twice as much.
const QUANTUM_US: u64 = 200_000;

/// Levels.
const LEVELS: u8 = 4;

/// How often all rise to the top, in microseconds.
const PERIOD_US: u64 = 10_000_000;

pub(super) fn rank(view: &View) -> Rank {
    let level = view.account.map_or(0, |a| level(a, view.now));
    Rank { tier: level, key: view.account.map_or(0, |a| a.served), ..Rank::default() }
}

/// The period of a time.
pub(super) fn epoch(now: Now) -> u64 {
    now.0 / PERIOD_US
}

fn level(account: &Account, now: Now) -> u8 {
    if account.epoch != epoch(now) {
        return 0;
    }
    let quanta = account.used_us / QUANTUM_US + 1;
    (quanta.ilog2() as u8).min(LEVELS - 1)
}

impl Account {
    /// Counts what the process has used in the period of now.
    pub(in crate::core::sched) fn use_up(&mut self, now: Now, us: u64) {
        if self.epoch != epoch(now) {
            (self.epoch, self.used_us) = (epoch(now), 0);
        }
        self.used_us = self.used_us.saturating_add(us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_sinks_with_use_and_rises_with_the_period() {
        let mut account = Account::default();
        let now = Now(3 * PERIOD_US);
        let mut levels = vec![level(&account, now)];
        for _ in 0..8 {
            account.use_up(now, QUANTUM_US);
            levels.push(level(&account, now));
        }
        assert_eq!(levels, [0, 1, 1, 2, 2, 2, 2, 3, 3]);
        assert_eq!(level(&account, Now(4 * PERIOD_US)), 0);
    }
}
