//! Whose line is next where many connections say something at once.
//!
//! A connection is served at once as long as it is *brisk*: it says one whole request at a time, and has read what it was
//! told before. All else takes turns in one line ([`line`]), by users: requests that come in pieces, those behind the
//! first of several that come at once, requests of a program that does not read the answers, and newcomers. Between two turns the
//! sockets are looked at, so a brisk connection that has become ready meanwhile goes first. It waits for one line of the
//! others at most, however many of them there are; and since every look at the sockets ends in a turn, they get on too.
//!
//! Those who say nonsense again and again, or a byte at a time ([`manners`]), stand in a line of their own first, and as
//! long as brisk ones are served each of them waits a moment at its head. So of all of them together a bounded number of
//! lines a second come between the requests of others, and none of them loses its connection for it.

pub mod line;
pub mod manners;

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use line::{Line, Taken, Whose};

/// How long one of the rude waits at the head of their line while others are served: a thousand lines of theirs a second
/// at most, which cost one or two hundredths of a processor.
const PACE: Duration = Duration::from_millis(1);

/// How long after its last request a brisk connection counts as one that is served.
const BRISK_FOR: Duration = Duration::from_millis(20);

/// The lines of those who take turns.
#[derive(Clone, Debug)]
pub struct Turns {
    all: Line,
    rude: Line,
    brisk_last: Arc<Mutex<Option<Instant>>>,
    pace: Duration,
    brisk_for: Duration,
}

/// A turn, which lasts until this is dropped.
#[derive(Debug)]
pub struct Turn {
    _turn: Taken,
    _rude: Option<Taken>,
}

impl Turns {
    /// Nobody is in line.
    pub fn new() -> Turns {
        let (all, rude, brisk_last) = (Line::default(), Line::default(), Arc::default());
        Turns { all, rude, brisk_last, pace: PACE, brisk_for: BRISK_FOR }
    }

    /// Those in which rude ones wait for ever once a brisk one has been served.
    #[cfg(test)]
    pub fn without_rude_ones() -> Turns {
        let long = Duration::from_secs(3600);
        Turns { pace: long, brisk_for: long, ..Turns::new() }
    }

    /// Notes that a brisk connection is served.
    pub fn note_brisk(&self) {
        *self.brisk_last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Waits for a turn, in the order of asking and by users, and then until the sockets have been looked at.
    pub async fn take(&self, whose: Whose) -> Turn {
        let turn = self.all.take(whose).await;
        // Whoever was answered may wait for this very CPU.
        std::thread::yield_now();
        // The runtime wakes a task that yields behind those that it finds ready when it asks the system.
        yield_now().await;
        Turn { _turn: turn, _rude: None }
    }

    /// The same, for those who are rude.
    pub async fn take_rude(&self, whose: Whose) -> Turn {
        let rude = self.rude.take(whose).await;
        if self.serves_brisk() {
            sleep(self.pace).await;
        }
        let turn = self.take(whose).await;
        Turn { _rude: Some(rude), ..turn }
    }

    fn serves_brisk(&self) -> bool {
        let last = *self.brisk_last.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() < self.brisk_for)
    }
}

/// Whether the program at the other end has not read all that it was told.
pub fn has_unread(socket: &UnixStream) -> bool {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the call writes one number to where it is told.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    asked == 0 && bytes > 0
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn what_was_told_is_unread_until_it_is_read() {
        let (mut near, mut far) = UnixStream::pair().expect("a pair");
        assert!(!has_unread(&near));
        near.write_all(b"answer").await.expect("writes");
        assert!(has_unread(&near) && !has_unread(&far));
        far.read_exact(&mut [0; 6]).await.expect("reads");
        assert!(!has_unread(&near));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn connection_that_becomes_ready_goes_before_a_hundred_in_line() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let (turns, order) = (Turns::new(), Arc::new(Mutex::new(Vec::new())));
        let note = |what: &'static str| {
            let order = Arc::clone(&order);
            move || order.lock().expect("nobody panics").push(what)
        };
        let mut all = JoinSet::new();
        let brisk = note("brisk");
        all.spawn(async move {
            near.readable().await.expect("the other end is there");
            brisk();
        });
        // It waits for its socket from now on.
        yield_now().await;
        let mut far = Some(far);
        for _ in 0..100 {
            let (turns, in_line, far) = (turns.clone(), note("in line"), far.take());
            all.spawn(async move {
                let _turn = turns.take(Some(1)).await;
                in_line();
                // The first of them makes the other one ready.
                far.iter().for_each(|far| assert_eq!(far.try_write(b"x").expect("there is room"), 1));
            });
        }
        while let Some(ended) = all.join_next().await {
            ended.expect("nobody panics");
        }
        let order = order.lock().expect("nobody panics");
        let before = order.iter().position(|who| *who == "brisk").expect("it was served");
        assert!(order.len() == 101 && before <= 2, "it was served behind {before} of them");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn rude_ones_wait_while_brisk_ones_are_served_and_hold_nobody_else_up() {
        let turns = Turns::without_rude_ones();
        drop(turns.take_rude(Some(1)).await);
        turns.note_brisk();
        let waits = |turns: Turns| tokio::spawn(async move { drop(turns.take_rude(Some(1)).await) });
        let rude = [waits(turns.clone()), waits(turns.clone())];
        for _ in 0..100 {
            let served = timeout(Duration::from_secs(60), turns.take(Some(1))).await;
            drop(served.expect("the line of all others is free"));
        }
        assert!(rude.iter().all(|rude| !rude.is_finished()));
        rude.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
