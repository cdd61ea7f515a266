//! A client for tokio: cloneable, with any number of calls in flight on one connection.
//!
//! Two tasks stand behind it. One writes whole lines, so a caller that is cancelled never leaves half a line on
//! the wire. The other one reads frames and hands each to its call. A call whose events nobody takes holds the
//! reading up once `EVENTS_WAITING_MAX` of them wait, and with it the whole connection, as the daemon would hold
//! up a client that does not read; so read each call to its end or drop it. Dropping does not end the call in
//! the kernel: send a `kill` for that.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{AGAIN_PAUSE, READ_BYTES, Tries, decode, encode, gone, greeted, hello, next_id, no_connection};
use crate::call::{Call, Hello, Request};
use crate::codec::LineReader;
use crate::errno::Fault;
use crate::event::Event;
use crate::id::{CallId, Pid};
use crate::limits::REPLY_BYTES_MAX;
use crate::reply::{Frame, HelloReply, NO_CALL, Reply};

/// Frames of one call that may wait to be taken.
const EVENTS_WAITING_MAX: usize = 1024;

/// Requests that may wait to be written.
const REQUESTS_WAITING_MAX: usize = 64;

/// A connection to the daemon. Clones share it; it closes when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Client {
    calls: Arc<Mutex<Calls>>,
    lines: mpsc::Sender<Vec<u8>>,
    hello: Arc<HelloReply>,
}

/// The calls that await their reply.
#[derive(Debug, Default)]
struct Calls {
    last_id: u64,
    running: BTreeMap<CallId, mpsc::Sender<Frame>>,
    /// Why no more replies will come.
    ended: Option<Fault>,
}

/// A call under way: its events, then its reply.
#[derive(Debug)]
pub struct Running {
    id: CallId,
    frames: mpsc::Receiver<Frame>,
    calls: Arc<Mutex<Calls>>,
    result: Option<Result<Reply, Fault>>,
}

impl Client {
    /// Connects to the daemon at `path` as a process called `name`.
    ///
    /// # Errors
    ///
    /// ENOENT or ECONNRESET where no daemon listens, EACCES where this user may not, EPROTONOSUPPORT where it
    /// speaks another version. Where the connection ends before the daemon has greeted, as it does when that ends, this
    /// connects again for up to 5 seconds; with a lifetime of `persistent` it answers ECONNRESET at once.
    pub async fn connect(path: &Path, name: &str) -> Result<Client, Fault> {
        Client::connect_with(path, hello(name)).await
    }

    /// Connects with a class and nice value of one's own; [`hello`] makes the rest.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub async fn connect_with(path: &Path, hello: Hello) -> Result<Client, Fault> {
        let mut tries = Tries::of(&hello);
        loop {
            let stream = UnixStream::connect(path).await.map_err(|e| no_connection(path, &e))?;
            match Client::over(stream, hello.clone()).await {
                Err(fault) if tries.go_on(&fault) => sleep(AGAIN_PAUSE).await,
                result => return result,
            }
        }
    }

    /// Speaks over a connection that is there already.
    async fn over(stream: UnixStream, hello: Hello) -> Result<Client, Fault> {
        let (read, write) = stream.into_split();
        let (lines, waiting) = mpsc::channel(REQUESTS_WAITING_MAX);
        let calls = Arc::new(Mutex::new(Calls::default()));
        tokio::spawn(write_lines(write, waiting));
        tokio::spawn(read_frames(read, Arc::clone(&calls)));
        let unknown = HelloReply {
            version: hello.version,
            daemon: String::new(),
            pid: Pid(0),
            uid: 0,
            line_bytes_max: 0,
        };
        let mut client = Client { calls, lines, hello: Arc::new(unknown) };
        client.hello = Arc::new(greeted(client.call(hello).await?)?);
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

    /// Sends a request and waits for its reply; its events are dropped.
    ///
    /// # Errors
    ///
    /// The fault that the daemon answers, or ECONNRESET where the connection ends.
    pub async fn call(&self, call: impl Into<Call>) -> Result<Reply, Fault> {
        self.start(call).await?.reply().await
    }

    /// As [`Client::call`], for a child that this program spawned.
    ///
    /// # Errors
    ///
    /// As [`Client::call`]; EPERM where `pid` is no child of this program.
    pub async fn call_as(&self, pid: Pid, call: impl Into<Call>) -> Result<Reply, Fault> {
        self.start_as(pid, call).await?.reply().await
    }

    /// Sends a request and gives its events and its reply as they come.
    ///
    /// # Errors
    ///
    /// EMSGSIZE where the request is longer than a line may be, EINVAL where it has no JSON form, ECONNRESET
    /// where the connection is gone.
    pub async fn start(&self, call: impl Into<Call>) -> Result<Running, Fault> {
        self.send(None, call.into()).await
    }

    /// As [`Client::start`], for a child that this program spawned.
    ///
    /// # Errors
    ///
    /// As [`Client::start`].
    pub async fn start_as(&self, pid: Pid, call: impl Into<Call>) -> Result<Running, Fault> {
        self.send(Some(pid), call.into()).await
    }

    async fn send(&self, pid: Option<Pid>, call: Call) -> Result<Running, Fault> {
        let place = self.lines.reserve().await;
        let (sender, frames) = mpsc::channel(EVENTS_WAITING_MAX);
        let mut calls = lock(&self.calls);
        if let Some(fault) = &calls.ended {
            return Err(fault.clone());
        }
        let id = next_id(&mut calls.last_id);
        let line = encode(&Request { id, pid, call })?;
        place.map_err(|_| gone(None))?.send(line);
        calls.running.insert(id, sender);
        drop(calls);
        Ok(Running { id, frames, calls: Arc::clone(&self.calls), result: None })
    }
}

impl Running {
    /// The request's number.
    pub fn id(&self) -> CallId {
        self.id
    }

    /// The next event, or none when the reply has come.
    pub async fn next_event(&mut self) -> Option<Event> {
        if self.result.is_some() {
            return None;
        }
        match self.frames.recv().await {
            Some(Frame::Event(_, event)) => return Some(event),
            Some(Frame::Reply(_, result)) => self.result = Some(result),
            None => self.result = Some(Err(lock(&self.calls).ended.clone().unwrap_or_else(|| gone(None)))),
        }
        None
    }

    /// The reply; events before it are dropped.
    ///
    /// # Errors
    ///
    /// The fault that the daemon answers, or ECONNRESET where the connection ends.
    pub async fn reply(mut self) -> Result<Reply, Fault> {
        while self.next_event().await.is_some() {}
        self.result.take().expect("events end with the reply")
    }
}

async fn write_lines(mut stream: OwnedWriteHalf, mut lines: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = lines.recv().await {
        // The reader sees the end of the connection too, and tells the calls.
        if stream.write_all(&line).await.is_err() {
            break;
        }
    }
}

async fn read_frames(mut stream: OwnedReadHalf, calls: Arc<Mutex<Calls>>) {
    let fault = read_until_end(&mut stream, &calls).await;
    let mut calls = lock(&calls);
    calls.ended = Some(fault);
    calls.running.clear();
}

async fn read_until_end(stream: &mut OwnedReadHalf, calls: &Mutex<Calls>) -> Fault {
    let mut lines = LineReader::new(REPLY_BYTES_MAX);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        while let Some(line) = lines.next_line() {
            match decode(line) {
                Ok(Frame::Reply(NO_CALL, Err(fault))) => return fault,
                Ok(frame) => hand_over(frame, calls).await,
                Err(fault) => return fault,
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) => return gone(None),
            Ok(bytes) => lines.push(&buffer[..bytes]),
            Err(e) => return gone(Some(&e)),
        }
    }
}

async fn hand_over(frame: Frame, calls: &Mutex<Calls>) {
    let receiver = match &frame {
        Frame::Event(id, _) => lock(calls).running.get(id).cloned(),
        Frame::Reply(id, _) => lock(calls).running.remove(id),
    };
    if let Some(receiver) = receiver {
        // Nobody takes it where the call was dropped.
        let _ = receiver.send(frame).await;
    }
}

/// The calls stay consistent at every point where a holder of the lock could panic.
fn lock(calls: &Mutex<Calls>) -> MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
