//! Whether and when a service is started again.

use std::collections::VecDeque;

use syscalls::call::{Restart, RestartRules, Signal};

use super::super::event::Now;

/// Ends by these signals are somebody's wish and no failure, as for systemd: HUP, INT, PIPE and TERM.
const CLEAN_SIGNALS: [u8; 4] = [1, 2, 13, 15];

/// Whether a status is that of a program that has done its work, or was asked to end.
pub(super) fn is_clean(status: u8) -> bool {
    status == 0 || status.checked_sub(128).is_some_and(|signal| CLEAN_SIGNALS.contains(&signal))
}

/// Whether a service that has ended with a status is started again.
pub(super) fn restarts(restart: Restart, status: u8) -> bool {
    match restart {
        Restart::Always => true,
        Restart::OnFailure => !is_clean(status),
        Restart::Never => false,
    }
}

/// A status in words.
pub(super) fn describe(status: u8) -> String {
    let signals =
        [Signal::Int, Signal::Term, Signal::Kill, Signal::Xcpu].map(|s| (128 + s.number(), format!("{s:?}")));
    match signals.iter().find(|(of, _)| *of == status) {
        Some((_, name)) => format!("ended by {}", name.to_uppercase()),
        None => format!("ended with status {status}"),
    }
}

/// The starts of a service since somebody asked for one.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// When the last ones were, as many as the limit counts.
    starts: VecDeque<Now>,
    /// The pause before the next one, if there was one before.
    delay_ms: Option<u64>,
}

impl Attempts {
    /// Notes a start, if the limit allows one more.
    ///
    /// # Errors
    ///
    /// The limit, in words.
    pub(super) fn start(&mut self, rules: RestartRules, now: Now) -> Result<(), String> {
        let RestartRules { start_limit_burst: burst, start_limit_interval_ms: interval_ms, .. } = rules;
        if interval_ms == 0 {
            return Ok(());
        }
        let interval_us = interval_ms.saturating_mul(1000);
        while self.starts.front().is_some_and(|at| now.0.saturating_sub(at.0) >= interval_us) {
            self.starts.pop_front();
        }
        if self.starts.len() >= burst as usize {
            return Err(format!("started {burst} times within {interval_ms} ms, which is its start limit"));
        }
        self.starts.push_back(now);
        Ok(())
    }

    /// How long to pause before the next start, after it ran for so long.
    pub(super) fn pause_ms(&mut self, rules: RestartRules, ran_us: u64) -> u64 {
        let had_rest = ran_us / 1000 >= rules.backoff_max_ms;
        let doubled = self.delay_ms.filter(|_| !had_rest).map(|delay| delay.saturating_mul(2));
        let delay = doubled.unwrap_or(rules.backoff_start_ms).min(rules.backoff_max_ms);
        self.delay_ms = Some(delay);
        delay
    }

    #[cfg(test)]
    fn pauses(&mut self, rules: RestartRules, ran_us: &[u64]) -> Vec<u64> {
        ran_us.iter().map(|ran| self.pause_ms(rules, *ran)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RestartRules = RestartRules {
        backoff_start_ms: 100,
        backoff_max_ms: 1000,
        start_limit_burst: 3,
        start_limit_interval_ms: 10,
    };

    #[test]
    fn pause_doubles_up_to_its_limit_and_begins_anew_after_a_long_run() {
        let pauses = Attempts::default().pauses(RULES, &[0, 0, 0, 0, 0, 1_000_000, 0]);
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 100, 200]);
    }

    #[test]
    fn start_limit_counts_the_last_interval_alone() {
        let mut attempts = Attempts::default();
        let start = |attempts: &mut Attempts, ms: u64| attempts.start(RULES, Now(ms * 1000)).is_ok();
        let allowed: Vec<bool> = [0, 1, 2, 3, 9, 10, 11].map(|ms| start(&mut attempts, ms)).to_vec();
        assert_eq!(allowed, [true, true, true, false, false, true, true]);
        let none = RestartRules { start_limit_interval_ms: 0, ..RULES };
        assert!((0..100).all(|_| Attempts::default().start(none, Now(0)).is_ok()));
    }

    #[test]
    fn policy_tells_failures_from_ends() {
        let of = |restart| [0, 1, 126, 128 + 9, 128 + 15, 255].map(|status| restarts(restart, status));
        assert_eq!(of(Restart::OnFailure), [false, true, true, true, false, true]);
        assert_eq!((of(Restart::Always), of(Restart::Never)), ([true; 6], [false; 6]));
        assert_eq!(describe(137), "ended by KILL");
        assert_eq!(describe(3), "ended with status 3");
    }
}
