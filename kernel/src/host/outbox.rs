//! Bytes on their way out of a socket that must never block the kernel.
//!
//! What one turn of the main loop has to say to one peer is gathered here and leaves in a single write. What the
//! socket does not take stays until it can be written again.

use std::io;

use tokio::net::UnixStream;

/// An empty buffer keeps at most this much memory.
const KEPT_BYTES: usize = 64 << 10;

/// Written bytes at the front are dropped when there are so many of them.
const COMPACT_BYTES: usize = 256 << 10;

/// Bytes that wait to be written, in their order.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// So many of them are written already.
    written: usize,
}

impl Outbox {
    /// The end of the queue, to append to.
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// How many bytes wait.
    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes what the socket takes without waiting. Gives whether all of it is written.
    ///
    /// # Errors
    ///
    /// Those of the socket: the peer is gone.
    pub fn write_to(&mut self, socket: &UnixStream) -> io::Result<bool> {
        while self.waiting() > 0 {
            match socket.try_write(&self.bytes[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.written += bytes,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.compact();
                    return Ok(false);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.bytes.clear();
        self.written = 0;
        self.bytes.shrink_to(KEPT_BYTES);
        Ok(true)
    }

    fn compact(&mut self) {
        if self.written >= COMPACT_BYTES {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use nix::sys::socket::{setsockopt, sockopt};
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn output_larger_than_the_socket_takes_leaves_in_order() {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        // Where nobody says, a socket holds what the machine's administrator likes.
        setsockopt(&near, sockopt::SndBuf, &(64 << 10)).expect("a size");
        let sent: Vec<u8> = (0..3u32 << 20).map(|i| (i % 251) as u8).collect();
        let mut outbox = Outbox::default();
        outbox.end().extend_from_slice(&sent);
        assert!(!outbox.write_to(&near).expect("the peer is there"), "its buffer holds no 3 MiB");
        let writing = async move {
            while !outbox.write_to(&near).expect("the peer is there") {
                near.writable().await.expect("the peer is there");
            }
            outbox
        };
        let mut all = vec![0; sent.len()];
        let (outbox, read) = tokio::join!(writing, far.read_exact(&mut all));
        read.expect("reads");
        assert!(all == sent, "the bytes arrive as they were sent");
        assert_eq!(outbox.waiting(), 0);
        assert!(outbox.bytes.capacity() <= KEPT_BYTES);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn output_to_a_peer_that_is_gone_is_an_error() {
        let (near, far) = UnixStream::pair().expect("a pair");
        drop(far);
        let mut outbox = Outbox::default();
        // What another test starts has the far end, too, until it has become its own program.
        let deadline = Instant::now() + Duration::from_secs(60);
        outbox.end().push(b'x');
        while outbox.write_to(&near).is_ok() {
            assert!(Instant::now() < deadline, "nobody is there");
            tokio::time::sleep(Duration::from_millis(1)).await;
            outbox.end().push(b'x');
        }
    }
}
