//! What the service manager hears: that the socket serves, that the main loop turns, and how much is going on.
//!
//! The watchdog is fed by the loop itself, between two turns. A side thread would go on feeding it while the loop
//! hangs, which is the one thing that the watchdog is for. Without a service manager nothing is said, and the loop is
//! woken for nothing.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use sd_notify::NotifyState;
use syscalls::reply::Stats;
use tokio::time::Instant;

/// Between two status lines.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// The watchdog is fed so many times in its period: once would race with the clock of the other side.
const FEEDS_A_PERIOD: u32 = 3;

/// The service manager that started this daemon, if one did.
#[derive(Debug, Default)]
pub struct ServiceManager {
    is_there: bool,
    /// It did not hear something, which was said in the log.
    is_deaf: bool,
    /// Between two feeds of the watchdog, if there is one.
    feed_every: Option<Duration>,
    feed_at: Option<Instant>,
    status_at: Option<Instant>,
    /// Tokens and time of the last status.
    last: Option<(Instant, u64)>,
}

impl ServiceManager {
    /// Reads from the environment what the manager wants.
    pub fn find() -> Self {
        let is_there = std::env::var_os("NOTIFY_SOCKET").is_some();
        let mut period_us = 0;
        let watched = is_there && sd_notify::watchdog_enabled(false, &mut period_us);
        let feed_every =
            (watched && period_us > 0).then(|| Duration::from_micros(period_us) / FEEDS_A_PERIOD);
        let now = Instant::now();
        ServiceManager {
            is_there,
            is_deaf: false,
            feed_every,
            feed_at: feed_every.map(|_| now),
            status_at: is_there.then_some(now),
            last: None,
        }
    }

    /// When the loop must turn next on the manager's account.
    pub fn next(&self) -> Option<Instant> {
        [self.feed_at, self.status_at].into_iter().flatten().min()
    }

    /// The loop has turned: says what is due. `stats` is asked for only where they are told.
    pub fn turned(&mut self, stats: impl FnOnce() -> Stats) {
        let Some(next) = self.next() else { return };
        let now = Instant::now();
        if now < next {
            return;
        }
        if self.feed_at.is_some_and(|at| at <= now) {
            self.feed_at = self.feed_every.map(|every| now + every);
            self.tell(&[NotifyState::Watchdog]);
        }
        if self.status_at.is_some_and(|at| at <= now) {
            self.status_at = Some(now + STATUS_EVERY);
            let stats = stats();
            let line = self.status(now, &stats);
            self.last = Some((now, stats.tokens_generated));
            self.tell(&[NotifyState::Status(&line)]);
        }
    }

    /// The configuration is read again.
    pub fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    /// All is as it should be, at the start and after a reload.
    pub fn ready(&mut self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// The daemon ends, and takes so long at most, for which the manager waits whatever the unit says.
    pub fn stopping(&mut self, within: Duration) {
        let us = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(us)]);
    }

    fn status(&self, now: Instant, stats: &Stats) -> String {
        let rate = self.last.map_or(0.0, |(then, tokens)| {
            let seconds = now.saturating_duration_since(then).as_secs_f64();
            if seconds > 0.0 { (stats.tokens_generated.saturating_sub(tokens)) as f64 / seconds } else { 0.0 }
        });
        format!(
            "{} processes, {} contexts, {rate:.1} tokens/s, {} of {} frames free",
            stats.processes, stats.contexts, stats.frames_free, stats.frames_total
        )
    }

    fn tell(&mut self, words: &[NotifyState]) {
        if !self.is_there {
            return;
        }
        if let Err(e) = sd_notify::notify(false, words)
            && !std::mem::replace(&mut self.is_deaf, true)
        {
            tracing::warn!("the service manager could not be told {words:?}: {e}; this is said once");
        }
    }
}

/// The listening socket that the service manager handed over, if it did. To be called before anything is opened.
///
/// # Errors
///
/// What was handed over is no listening Unix socket, or more than one.
pub fn activated() -> Result<Option<UnixListener>, String> {
    let fds = sd_notify::listen_fds().map_err(|e| e.to_string())?.collect::<Vec<_>>();
    match fds[..] {
        [] => Ok(None),
        [fd] => {
            // SAFETY: the manager has opened it for this process, and nothing here has taken it before.
            let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
            if getsockopt(&borrowed, sockopt::AcceptConn) != Ok(true) {
                return Err("what the service manager hands over is no socket that listens".into());
            }
            // SAFETY: as above; this is its one owner from here on.
            let listener = unsafe { UnixListener::from_raw_fd(borrowed.as_raw_fd()) };
            listener
                .local_addr()
                .map_err(|_| "the service manager hands over a socket that is no Unix socket")?;
            Ok(Some(listener))
        }
        _ => Err(format!("the service manager hands over {} sockets; one is served", fds.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn status_has_the_rate_since_the_last_one() {
        let mut manager = ServiceManager::default();
        let now = Instant::now();
        manager.last = Some((now, 100));
        let stats = Stats { tokens_generated: 150, processes: 3, contexts: 2, ..Stats::default() };
        let line = manager.status(now + Duration::from_secs(5), &stats);
        assert_eq!(line, "3 processes, 2 contexts, 10.0 tokens/s, 0 of 0 frames free");
    }

    #[test]
    fn loop_without_a_manager_is_not_woken() {
        let mut manager = ServiceManager::default();
        assert_eq!(manager.next(), None);
        manager.turned(|| unreachable!("nobody asks"));
    }
}
