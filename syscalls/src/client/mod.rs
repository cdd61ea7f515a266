//! Two clients for the same conversation: [`blocking`] for programs of one thread, [`asynchronous`] for tokio.
//!
//! Here stands what both have in common: the first call, when it is made again, the faults that only a client can meet,
//! and the bounds of lines in both directions.

pub mod asynchronous;
pub mod blocking;
mod inherited;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::call::{Attention, Class, Hello, Lifetime, Mount, Request, Spawn};
use crate::codec::Line;
use crate::errno::{Errno, Fault};
use crate::id::{CallId, ContextId, Tokens};
use crate::limits::{ABI_VERSION, LINE_BYTES_MAX, REPLY_BYTES_MAX};
use crate::reply::{Frame, HelloReply, Reply};

/// Bytes that a client reads at once.
const READ_BYTES: usize = 64 << 10;

/// How long a client goes on connecting after a connection has ended before the daemon had greeted.
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// Before each of these tries.
const AGAIN_PAUSE: Duration = Duration::from_millis(50);

/// The arguments of a `hello` by a program that is called `name`, in class `normal`.
pub fn hello(name: &str) -> Hello {
    Hello {
        version: ABI_VERSION,
        name: Some(name.into()),
        class: Class::default(),
        nice: 0,
        group: None,
        lifetime: Lifetime::default(),
        caps: None,
    }
}

/// The arguments of a `mount` under a name, all else as the daemon chooses.
pub fn mount(path: &str, name: &str) -> Mount {
    Mount {
        path: path.into(),
        name: Some(name.into()),
        context: None,
        attention: Attention::default(),
        gpu_layers: None,
        device: None,
        threads: None,
        deterministic: false,
        accept_changed: false,
    }
}

/// The arguments of a `spawn` of a process that is called `name`, like its parent and without a program.
pub fn spawn(name: &str) -> Spawn {
    Spawn {
        name: name.into(),
        class: None,
        nice: None,
        group: None,
        lifetime: None,
        caps: None,
        argv: vec![],
        read: vec![],
    }
}

/// Tries to be greeted. A daemon that ends lets go of everybody whom it has not greeted, and whoever connects again is
/// the next one's. All that can have been done is the `hello`, whose process is gone with the connection or at the
/// latest with its daemon, unless it was to outlive that: only such a `hello` is not said again.
#[derive(Debug)]
struct Tries {
    may_repeat: bool,
    /// When they end, from the first that failed on.
    until: Option<Instant>,
}

impl Tries {
    fn of(hello: &Hello) -> Tries {
        Tries { may_repeat: hello.lifetime != Lifetime::Persistent, until: None }
    }

    /// Whether to connect again after what came of saying hello.
    fn go_on(&mut self, fault: &Fault) -> bool {
        let now = Instant::now();
        let is_end = fault.errno == Errno::ECONNRESET;
        self.may_repeat && is_end && now < *self.until.get_or_insert(now + AGAIN_MAX)
    }
}

/// A context that `open` or `restore` made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its number.
    pub context: ContextId,
    /// The model that it is on.
    pub model: String,
    /// How many tokens it has.
    pub length: Tokens,
    /// How many it can have.
    pub tokens_max: Tokens,
}

/// Writes a request as one line that the daemon will read.
fn encode(request: &Request) -> Result<Vec<u8>, Fault> {
    let line = request.to_line()?;
    if line.len() > LINE_BYTES_MAX {
        let call = request.call.name();
        return Err(Fault::new(
            Errno::EMSGSIZE,
            format!(
                "the request `{call}` takes {} bytes of at most {LINE_BYTES_MAX}; split it into several",
                line.len()
            ),
        ));
    }
    Ok(line)
}

/// Reads a frame from a line that came.
fn decode(line: Line) -> Result<Frame, Fault> {
    match line {
        Line::Whole(line) => Frame::from_line(&line).map_err(|e| {
            Fault::new(Errno::EPROTO, format!("the daemon sent what this client does not know: {e}"))
        }),
        Line::TooLong(bytes) => Err(Fault::new(
            Errno::EMSGSIZE,
            format!(
                "the daemon sent a line of {bytes} bytes of at most {REPLY_BYTES_MAX}; ask for less at once"
            ),
        )),
    }
}

/// Takes the answer to `hello`.
fn greeted(reply: Reply) -> Result<HelloReply, Fault> {
    match reply {
        Reply::Hello(hello) => Ok(hello),
        other => Err(unexpected(&other)),
    }
}

/// The fault of a reply that is not of the call's kind.
fn unexpected(reply: &Reply) -> Fault {
    let shown: String = format!("{reply:?}").chars().take(80).collect();
    Fault::new(Errno::EPROTO, format!("the daemon answered with the reply of another call: {shown}"))
}

/// The fault of a connection that could not be made.
fn no_connection(path: &Path, error: &io::Error) -> Fault {
    let path = path.display();
    let start = "start one with `llmasos daemon` or `make run`";
    match error.kind() {
        io::ErrorKind::NotFound => {
            Fault::new(Errno::ENOENT, format!("no daemon listens on {path}: there is no such file; {start}"))
        }
        io::ErrorKind::ConnectionRefused => {
            Fault::new(Errno::ECONNRESET, format!("no daemon listens on {path}; {start}"))
        }
        io::ErrorKind::PermissionDenied => Fault::new(
            Errno::EACCES,
            format!("this user may not connect to {path}; join its group, or {start} and set LLMASOS_SOCKET"),
        ),
        io::ErrorKind::InvalidInput => Fault::new(
            Errno::EINVAL,
            format!(
                "{path} cannot name a socket: {error}; the system allows 107 bytes, choose a shorter path"
            ),
        ),
        _ => Fault::new(Errno::ECONNRESET, format!("could not connect to {path}: {error}; {start}")),
    }
}

/// The fault of a connection that ended.
fn gone(error: Option<&io::Error>) -> Fault {
    let how = error.map(|e| format!(": {e}")).unwrap_or_default();
    Fault::new(
        Errno::ECONNRESET,
        format!("the connection to the daemon is gone{how}; look at its log and connect again"),
    )
}

/// Numbers requests from 1; [`crate::reply::NO_CALL`] is never used.
fn next_id(last: &mut u64) -> CallId {
    *last += 1;
    CallId(*last)
}

#[cfg(test)]
mod scripted;

#[cfg(test)]
mod tests;
