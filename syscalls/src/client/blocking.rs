//! A client for programs of one thread.
//!
//! [`Client::call`] sends one request and waits for its reply. For several at once, [`Client::start`] sends
//! without waiting, and [`Client::finish`] or [`Client::next_frame`] takes what comes. What comes for another
//! call than the one that is waited for is kept until it is asked for.
//!
//! A thread that waits in a call can be freed by another one: [`Client::interrupter`].

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::{
    AGAIN_PAUSE, READ_BYTES, Tries, decode, encode, gone, greeted, hello, inherited, next_id, no_connection,
};
use crate::call::{Call, Hello, Kill, Request, Signal};
use crate::codec::LineReader;
use crate::errno::{Errno, Fault};
use crate::event::Event;
use crate::id::{CallId, Pid};
use crate::limits::REPLY_BYTES_MAX;
use crate::reply::{Frame, HelloReply, NO_CALL, Reply};

mod calls;

/// Frames that may wait for a [`Client::finish`] or [`Client::next_frame`] of their own.
const FRAMES_WAITING_MAX: usize = 65_536;

/// Requests of an [`Interrupter`] have ids from here on; the client drops their replies.
const INTERRUPTER_IDS: u64 = 1 << 52;

/// A connection to the daemon, and the process that it owns there.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    writer: Writer,
    lines: LineReader,
    buffer: Box<[u8]>,
    waiting: VecDeque<Frame>,
    last_id: u64,
    hello: HelloReply,
}

/// The sending side, shared with interrupters. A line is written whole under the lock.
type Writer = Arc<Mutex<UnixStream>>;

impl Client {
    /// Connects to the daemon at `path` as a process called `name`.
    ///
    /// # Errors
    ///
    /// ENOENT or ECONNRESET where no daemon listens, EACCES where this user may not, EPROTONOSUPPORT where it
    /// speaks another version. Where the connection ends before the daemon has greeted, as it does when that ends, this
    /// connects again for up to 5 seconds; with a lifetime of `persistent` it answers ECONNRESET at once.
    pub fn connect(path: &Path, name: &str) -> Result<Client, Fault> {
        Client::connect_with(path, hello(name))
    }

    /// Connects with a class and nice value of one's own; [`hello`] makes the rest.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub fn connect_with(path: &Path, hello: Hello) -> Result<Client, Fault> {
        if let Some(stream) = inherited::take(path) {
            return Client::over(stream, hello);
        }
        let mut tries = Tries::of(&hello);
        loop {
            let stream = UnixStream::connect(path).map_err(|e| no_connection(path, &e))?;
            match Client::over(stream, hello.clone()) {
                Err(fault) if tries.go_on(&fault) => thread::sleep(AGAIN_PAUSE),
                result => return result,
            }
        }
    }

    /// Speaks over a connection that is there already.
    ///
    /// # Errors
    ///
    /// ECONNRESET where nobody answers, EPROTONOSUPPORT where another version does.
    pub fn over(stream: UnixStream, hello: Hello) -> Result<Client, Fault> {
        let writer = stream.try_clone().map_err(|e| gone(Some(&e)))?;
        let writer = Arc::new(Mutex::new(writer));
        let mut client = Client {
            stream,
            writer,
            lines: LineReader::new(REPLY_BYTES_MAX),
            buffer: vec![0; READ_BYTES].into(),
            waiting: VecDeque::new(),
            last_id: 0,
            hello: HelloReply {
                version: hello.version,
                daemon: String::new(),
                pid: Pid(0),
                uid: 0,
                line_bytes_max: 0,
            },
        };
        client.hello = greeted(client.call(hello)?)?;
        Ok(client)
    }

    /// The caller's process.
    pub fn pid(&self) -> Pid {
        self.hello.pid
    }

    /// What the daemon said of itself and of the caller.
    pub fn daemon(&self) -> &HelloReply {
        &self.hello
    }

    /// Bounds every later wait for a frame; none waits for ever. A wait that passes the bound gives ETIMEDOUT and
    /// leaves its call running.
    ///
    /// # Errors
    ///
    /// EINVAL for a duration of zero.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<(), Fault> {
        self.stream
            .set_read_timeout(timeout)
            .map_err(|e| Fault::new(Errno::EINVAL, format!("the time limit {timeout:?} cannot be set: {e}")))
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    ///
    /// The fault that the daemon answers, or ECONNRESET where the connection ends.
    pub fn call(&mut self, call: impl Into<Call>) -> Result<Reply, Fault> {
        self.call_with(call, |_| {})
    }

    /// As [`Client::call`], for a child that this program spawned.
    ///
    /// # Errors
    ///
    /// As [`Client::call`]; EPERM where `pid` is no child of this program.
    pub fn call_as(&mut self, pid: Pid, call: impl Into<Call>) -> Result<Reply, Fault> {
        let id = self.start_as(pid, call)?;
        self.finish(id, |_| {})
    }

    /// As [`Client::call`], with the events that come before the reply.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub fn call_with(&mut self, call: impl Into<Call>, on_event: impl FnMut(Event)) -> Result<Reply, Fault> {
        let id = self.start(call)?;
        self.finish(id, on_event)
    }

    /// Sends a request and does not wait. While requests are sent faster than their frames are taken, the daemon
    /// lets the sender wait, so take them from time to time.
    ///
    /// # Errors
    ///
    /// EMSGSIZE where the request is longer than a line may be, EINVAL where it has no JSON form, ECONNRESET
    /// where the connection is gone.
    pub fn start(&mut self, call: impl Into<Call>) -> Result<CallId, Fault> {
        self.send(None, call.into())
    }

    /// As [`Client::start`], for a child that this program spawned.
    ///
    /// # Errors
    ///
    /// As [`Client::start`].
    pub fn start_as(&mut self, pid: Pid, call: impl Into<Call>) -> Result<CallId, Fault> {
        self.send(Some(pid), call.into())
    }

    /// Waits for the reply to a request that was started.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub fn finish(&mut self, id: CallId, mut on_event: impl FnMut(Event)) -> Result<Reply, Fault> {
        loop {
            match self.frame_of(id)? {
                Frame::Event(_, event) => on_event(event),
                Frame::Reply(_, result) => return result,
            }
        }
    }

    /// Takes the next frame of any request. A fault that belongs to no request has the id
    /// [`NO_CALL`](crate::reply::NO_CALL).
    ///
    /// # Errors
    ///
    /// ECONNRESET where the connection ends, ETIMEDOUT after [`Client::set_timeout`].
    pub fn next_frame(&mut self) -> Result<Frame, Fault> {
        match self.waiting.pop_front() {
            Some(frame) => Ok(frame),
            None => self.read_frame(),
        }
    }

    /// A handle by which another thread, such as one that waits for SIGINT, ends the calls that run.
    pub fn interrupter(&self) -> Interrupter {
        Interrupter {
            pid: self.hello.pid,
            writer: Arc::clone(&self.writer),
            next: Arc::new(AtomicU64::new(INTERRUPTER_IDS)),
        }
    }

    fn send(&mut self, pid: Option<Pid>, call: Call) -> Result<CallId, Fault> {
        let id = next_id(&mut self.last_id);
        let line = encode(&Request { id, pid, call })?;
        match write_line(&self.writer, &line) {
            Ok(()) => Ok(id),
            Err(error) => Err(self.last_words().unwrap_or_else(|| gone(Some(&error)))),
        }
    }

    /// What the daemon said before it closed the connection, such as EMFILE.
    fn last_words(&mut self) -> Option<Fault> {
        loop {
            match self.read_frame() {
                Ok(Frame::Reply(NO_CALL, Err(fault))) => return Some(fault),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// The next frame of one request, or a fault that belongs to none. Frames of others are kept.
    fn frame_of(&mut self, id: CallId) -> Result<Frame, Fault> {
        if let Some(at) = self.waiting.iter().position(|f| f.id() == id) {
            return Ok(self.waiting.remove(at).expect("the position was found"));
        }
        loop {
            // Before another one is read: there would be no place for it, and with a reply its call would never end.
            if self.waiting.len() >= FRAMES_WAITING_MAX {
                return Err(Fault::new(
                    Errno::EAGAIN,
                    format!(
                        "{FRAMES_WAITING_MAX} frames of other calls wait; take them with `next_frame` first"
                    ),
                ));
            }
            let frame = self.read_frame()?;
            if frame.id() == id || frame.id() == NO_CALL {
                return Ok(frame);
            }
            self.waiting.push_back(frame);
        }
    }

    fn read_frame(&mut self) -> Result<Frame, Fault> {
        loop {
            while let Some(line) = self.lines.next_line() {
                let frame = decode(line)?;
                if frame.id().0 < INTERRUPTER_IDS {
                    return Ok(frame);
                }
            }
            match self.stream.read(&mut self.buffer) {
                Ok(0) => return Err(gone(None)),
                Ok(bytes) => self.lines.push(&self.buffer[..bytes]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(Fault::new(
                        Errno::ETIMEDOUT,
                        "the daemon did not answer within the time limit",
                    ));
                }
                Err(e) => return Err(gone(Some(&e))),
            }
        }
    }
}

/// Ends the running calls of a [`Client`] from another thread.
#[derive(Clone, Debug)]
pub struct Interrupter {
    pid: Pid,
    writer: Writer,
    next: Arc<AtomicU64>,
}

impl Interrupter {
    /// Sends INT to the client's process: its running calls end, `generate` with the text that it has.
    ///
    /// # Errors
    ///
    /// ECONNRESET where the connection is gone.
    pub fn interrupt(&self) -> Result<(), Fault> {
        self.signal(self.pid, Signal::Int)
    }

    /// Sends a signal to a process. Whether the kernel obeys is not reported here.
    ///
    /// # Errors
    ///
    /// ECONNRESET where the connection is gone.
    pub fn signal(&self, pid: Pid, signal: Signal) -> Result<(), Fault> {
        let id = CallId(self.next.fetch_add(1, Ordering::Relaxed));
        let line = encode(&Request { id, pid: None, call: Call::Kill(Kill { pid, signal }) })?;
        write_line(&self.writer, &line).map_err(|e| gone(Some(&e)))
    }
}

fn write_line(writer: &Writer, line: &[u8]) -> io::Result<()> {
    // A thread that panicked while it wrote has left half a line; the next write must not join it.
    let mut stream =
        writer.lock().map_err(|_: PoisonError<_>| io::Error::other("a writer of this client died"))?;
    stream.write_all(line)
}

#[cfg(test)]
mod tests;
