//! Whose line is next where many connections say something at once.
//!
//! A connection is served at once as long as it is *brisk*: it says one whole request at a time, and has read what it was
//! told before. All else takes turns in one line: what is no request, a request that comes in pieces, those behind the
//! first of several that come at once, requests of a program that does not read the answers, and newcomers. Between two turns the
//! sockets are looked at, so a brisk connection that has become ready meanwhile goes first. It waits for one line of the
//! others at most, however many of them there are; and since every look at the sockets ends in a turn, they get on too.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;

/// The line of those who take turns.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Semaphore>);

/// A turn, which lasts until this is dropped.
pub type Turn = OwnedSemaphorePermit;

impl Turns {
    /// Nobody is in line.
    pub fn new() -> Turns {
        Turns(Arc::new(Semaphore::new(1)))
    }

    /// Waits for a turn, in the order of asking, and then until the sockets have been looked at.
    pub async fn take(&self) -> Turn {
        let turn = Arc::clone(&self.0).acquire_owned().await.expect("the semaphore is never closed");
        // Whoever was answered may wait for this very CPU.
        std::thread::yield_now();
        // The runtime wakes a task that yields behind those that it finds ready when it asks the system.
        yield_now().await;
        turn
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
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinSet;

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
                let _turn = turns.take().await;
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
}
