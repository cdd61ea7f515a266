//! A flood on a daemon's socket: a thousand connections of the kinds that cost a careless server dear.
//!
//! A quarter each says garbage and reads what it is told; stays in the middle of a line; says a request byte by byte;
//! and asks without ever reading. One thread plays them all and paces them, so that they burden the daemon and not the
//! machine that both run on.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::sim::chance::Chance;
use crate::skipped;

/// Connections of a flood.
pub const CONNECTIONS: usize = 1000;

/// Between two rounds, in each of which every connection says what it has to say.
const ROUND: Duration = Duration::from_millis(100);

/// Connections that speak before the next ones do, so that a round is no single burst.
const AT_ONCE: usize = 20;

/// Bytes of a line of garbage.
const GARBAGE_BYTES: usize = 200;

const GREETING: &[u8] = b"{\"id\":1,\"call\":\"hello\",\"args\":{\"version\":1,\"name\":\"flood\"}}\n";
const QUESTION: &[u8] = b"{\"id\":2,\"call\":\"sysinfo\"}\n";

/// What a connection does.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Garbage,
    HalfLine,
    ByteByByte,
    Deaf,
}

/// One of the connections.
struct Nuisance {
    stream: UnixStream,
    manner: Manner,
    said: usize,
}

/// What a flood came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub bytes_said: u64,
    pub bytes_heard: u64,
    /// Connections that the daemon closed.
    pub closed: usize,
}

/// A flood under way.
pub struct Flood {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Counts>,
}

impl Flood {
    /// Connects all, and begins.
    ///
    /// # Panics
    ///
    /// The daemon does not take the connections.
    pub fn begin(socket: &Path, connections: usize) -> Flood {
        raise_open_files(connections);
        let connect = |n: usize| {
            let stream = UnixStream::connect(socket).expect("the daemon takes connections");
            stream.set_nonblocking(true).expect("a socket can be");
            let manner = [Manner::Garbage, Manner::HalfLine, Manner::ByteByByte, Manner::Deaf][n % 4];
            Nuisance { stream, manner, said: 0 }
        };
        let all: Vec<Nuisance> = (0..connections).map(connect).collect();
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        Flood { ended, thread: thread::spawn(move || play(all, &until)) }
    }

    /// Ends it, and closes all.
    ///
    /// # Panics
    ///
    /// It panicked.
    pub fn end(self) -> Counts {
        self.ended.store(true, Ordering::Release);
        self.thread.join().expect("the flood does not panic")
    }
}

fn play(mut all: Vec<Nuisance>, ended: &AtomicBool) -> Counts {
    let mut chance = Chance::new(1);
    let mut counts = Counts::default();
    let pause = ROUND / u32::try_from(all.len().div_ceil(AT_ONCE)).expect("there are few");
    while !ended.load(Ordering::Acquire) && !all.is_empty() {
        let before = all.len();
        let mut place = 0;
        all.retain_mut(|nuisance| {
            place += 1;
            if place % AT_ONCE == 0 {
                thread::sleep(pause);
            }
            nuisance.speak(&mut chance, &mut counts)
        });
        counts.closed += before - all.len();
    }
    counts
}

impl Nuisance {
    /// Says what is due. Gives whether the connection is still there.
    fn speak(&mut self, chance: &mut Chance, counts: &mut Counts) -> bool {
        let mut line = [b'\n'; GARBAGE_BYTES];
        let words: &[u8] = match self.manner {
            Manner::Garbage => {
                line[..GARBAGE_BYTES - 1].fill_with(|| chance.below(256) as u8);
                &line
            }
            Manner::HalfLine if self.said == 0 => &GREETING[..GREETING.len() / 2],
            Manner::HalfLine => &[],
            Manner::ByteByByte => &GREETING[self.said % GREETING.len()..][..1],
            Manner::Deaf if self.said == 0 => GREETING,
            Manner::Deaf => QUESTION,
        };
        match (&self.stream).write(words) {
            Ok(bytes) => {
                self.said += bytes;
                counts.bytes_said += bytes as u64;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        matches!(self.manner, Manner::Deaf) || self.hear(counts)
    }

    fn hear(&mut self, counts: &mut Counts) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match (&self.stream).read(&mut buffer) {
                Ok(0) => return false,
                Ok(bytes) => counts.bytes_heard += bytes as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }
}

/// Whether there is room for so many connections here and in a daemon that this process starts, which has two files for each
/// of them and some for itself. Where there is none, says so, and the test that wanted them has nothing to do.
pub fn has_room(connections: usize) -> bool {
    let wanted = 2 * connections as u64 + 512;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the system says");
    if hard < wanted {
        skipped(&format!("floods: {hard} files may be open here, and one of {connections} takes {wanted}"));
    }
    hard >= wanted
}

/// Lets this process have so many connections beside what it has.
fn raise_open_files(connections: usize) {
    let wanted = connections as u64 + 256;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the system says");
    if soft < wanted {
        assert!(hard >= wanted, "this process may open {hard} files, and the flood needs {wanted}");
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).expect("up to the hard limit it may be set");
    }
}
