//! One program's connection: what reads from it, and what it has been told.
//!
//! Reading is a task of its own that hands whole requests to the main loop and waits where the loop is behind.
//! Writing is done by the loop, without waiting. The loop closes the reader's gate while the program does not
//! read, so a program that only writes is held up and costs a bounded amount of memory. Who is read from next stands in
//! [`super::turns`].

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use syscalls::codec::{Line, LineReader};
use syscalls::limits::{HALF_LINES_BYTES_MAX, LINE_BYTES_MAX, OUTPUT_BYTES_HIGH};
use syscalls::{Call, CallId, Errno, Fault, Frame, Request};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;

use super::halves::Half;
use super::input::Input;
use super::outbox::Outbox;
use super::places::Place;
use super::turns::line::Whose;
use super::turns::manners::{Manners, Said};
use super::turns::{Turn, Turns, has_unread};
use crate::core::event::ConnId;

/// Bytes that one read takes at most.
const READ_BYTES: usize = 16 << 10;

/// Unread bytes below which a program has caught up.
const OUTPUT_BYTES_LOW: usize = OUTPUT_BYTES_HIGH / 4;

/// How long a program that has connected, or was greeted, may take to say what it wants before it counts as one that
/// rests: far longer than any needs, and short enough for a restart to wait for.
pub const NEWCOMER_PATIENCE: Duration = Duration::from_millis(250);

/// A program that is connected.
#[derive(Debug)]
pub struct Connection {
    socket: Arc<UnixStream>,
    outbox: Outbox,
    /// Requests without a reply.
    pub calls_in_flight: usize,
    /// Ends when what waits is written.
    pub closing: bool,
    /// Something waits for the socket to become writable.
    awaits_writable: bool,
    /// Its process has died: what it has sent is carried out as far as the answers find room.
    pub bereft: bool,
    /// When it connected or was greeted, until it asks for something.
    new_since: Option<Instant>,
    /// Whether the reader may read.
    gate: watch::Sender<bool>,
    _place: Place,
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing waits.
    All,
    /// Something waits, and nothing was said about it before: see [`Connection::writable`].
    Blocked,
    /// Something waits, and a wake-up is under way.
    StillBlocked,
    /// The program is gone.
    Gone,
}

/// How the amount of unread bytes changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Level {
    High,
    Low,
}

impl Connection {
    /// Takes a connection over; `place` is its place among the connections.
    pub fn new(socket: Arc<UnixStream>, place: Place) -> Self {
        Connection {
            socket,
            outbox: Outbox::default(),
            calls_in_flight: 0,
            closing: false,
            bereft: false,
            awaits_writable: false,
            new_since: Some(Instant::now()),
            gate: watch::Sender::new(true),
            _place: place,
        }
    }

    /// The reader's view of the gate.
    pub fn gate(&self) -> watch::Receiver<bool> {
        self.gate.subscribe()
    }

    /// The socket, to wait on.
    pub fn socket(&self) -> Arc<UnixStream> {
        Arc::clone(&self.socket)
    }

    /// Whether what it sends is read.
    pub fn is_read(&self) -> bool {
        *self.gate.borrow()
    }

    /// Takes note of what it asks for.
    pub fn heard(&mut self, call: &Call) {
        self.new_since = matches!(call, Call::Hello(_)).then(Instant::now);
    }

    /// Whether it has just connected, and will say in a moment what it wants.
    pub fn is_new(&self) -> bool {
        self.new_since.is_some_and(|since| since.elapsed() < NEWCOMER_PATIENCE)
    }

    /// Reads what has been sent, and nothing that is sent from now on. It fails where the program is gone already.
    pub fn end_reading(&self) {
        let _ = shutdown(std::os::fd::AsRawFd::as_raw_fd(&self.socket.as_fd()), Shutdown::Read);
    }

    /// Appends a frame to what will be written. Gives the number of bytes that wait.
    pub fn push(&mut self, frame: &Frame) -> usize {
        frame.write_line(self.outbox.end());
        self.outbox.waiting()
    }

    /// How many bytes wait.
    pub fn waiting(&self) -> usize {
        self.outbox.waiting()
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self) -> Flushed {
        match self.outbox.write_to(&self.socket) {
            Ok(true) => Flushed::All,
            Ok(false) if self.awaits_writable => Flushed::StillBlocked,
            Ok(false) => {
                self.awaits_writable = true;
                Flushed::Blocked
            }
            Err(_) => Flushed::Gone,
        }
    }

    /// The socket can be written again.
    pub fn writable(&mut self) {
        self.awaits_writable = false;
    }

    /// Opens or closes the gate, and says so where the level has passed a mark.
    pub fn level(&mut self) -> Option<Level> {
        let open = *self.gate.borrow();
        let waiting = self.outbox.waiting();
        if open && waiting > OUTPUT_BYTES_HIGH {
            self.gate.send_replace(false);
            Some(Level::High)
        } else if !open && waiting < OUTPUT_BYTES_LOW {
            self.gate.send_replace(true);
            Some(Level::Low)
        } else {
            None
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Tasks that wait on the socket hold it too; this wakes them. It fails where the program is gone already.
        let _ = shutdown(std::os::fd::AsRawFd::as_raw_fd(&self.socket.as_fd()), Shutdown::Both);
    }
}

/// What a reader task needs.
pub struct Reader {
    pub conn: ConnId,
    pub socket: Arc<UnixStream>,
    pub gate: watch::Receiver<bool>,
    /// Bytes of requests of all connections that may wait for the kernel.
    pub memory: Arc<Semaphore>,
    /// The lines of connections that are not brisk, and whose this one is.
    pub turns: Turns,
    pub whose: Whose,
    pub manners: Manners,
    /// What is kept of a line that has not ended.
    pub half: Half,
    pub inputs: mpsc::Sender<Input>,
}

impl Reader {
    /// Reads requests until the connection ends, from whichever side, and says that it has.
    pub async fn run(mut self) {
        let mut lines = LineReader::new(LINE_BYTES_MAX);
        while self.gate.wait_for(|open| *open).await.is_ok() {
            let Ok((bytes @ 1.., turn)) = self.read(&mut lines).await else { break };
            if self.hand_over_all(&mut lines, turn).await.is_none() {
                return;
            }
            if !self.half.note(lines.kept()) {
                lines.give_up();
                self.half.note(0);
            }
            self.manners.read(bytes, lines.is_midline());
        }
        // The loop is gone only when the daemon ends.
        let _ = self.inputs.send(Input::ReadEnded { conn: self.conn }).await;
    }

    /// Reads what is there, in its turn where it is not brisk. Gives the number of bytes, and the turn.
    async fn read(&self, lines: &mut LineReader) -> io::Result<(usize, Option<Turn>)> {
        loop {
            self.socket.readable().await?;
            let turn = match self.manners.are_brisk() && !has_unread(&self.socket) {
                true => {
                    self.turns.note_brisk();
                    None
                }
                false => Some(self.turn().await),
            };
            match read_some(&self.socket, lines) {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                other => return other.map(|bytes| (bytes, turn)),
            }
        }
    }

    /// Waits for a turn, behind all others where it is rude.
    async fn turn(&self) -> Turn {
        match self.manners.are_rude() {
            true => self.turns.take_rude(self.whose).await,
            false => self.turns.take(self.whose).await,
        }
    }

    /// Gives all whole lines to the main loop. Each behind the first one takes a turn of its own. Gives nothing where the
    /// loop is gone.
    async fn hand_over_all(&mut self, lines: &mut LineReader, mut turn: Option<Turn>) -> Option<()> {
        let mut is_first = true;
        while let Some(line) = lines.next_line() {
            if !std::mem::take(&mut is_first) {
                // Given back first, where it has not left with a line: nobody can wait for himself.
                drop(turn.take());
                turn = Some(self.turn().await);
            }
            let (input, said) = self.input_of(line, turn.take()).await?;
            self.manners.said(said);
            self.inputs.send(input).await.ok()?;
        }
        Some(())
    }

    /// What the main loop gets of a line: the request, or what is wrong with it. Gives which of these it is.
    async fn input_of(&self, line: Line, turn: Option<Turn>) -> Option<(Input, Said)> {
        let conn = self.conn;
        let wrong = |id: Option<CallId>, fault, turn| {
            let said = if id.is_some() { Said::Wrong } else { Said::Nonsense };
            Some((Input::Malformed { conn, id, fault, turn }, said))
        };
        match line {
            Line::TooLong(bytes) => wrong(None, too_long(bytes), turn),
            Line::Whole(line) => match Request::from_line(&line) {
                Err((id, fault)) => wrong(id, fault, turn),
                Ok(request) => {
                    let memory = self.reserve(line.len()).await?;
                    Some((Input::Request { conn, request, memory, turn }, Said::Request))
                }
            },
        }
    }

    async fn reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).expect("a line is shorter than LINE_BYTES_MAX");
        Arc::clone(&self.memory).acquire_many_owned(bytes).await.ok()
    }
}

/// Reads into a buffer on the stack, so that a connection that says nothing has none.
fn read_some(socket: &UnixStream, lines: &mut LineReader) -> io::Result<usize> {
    let mut buffer = [0; READ_BYTES];
    let bytes = socket.try_read(&mut buffer)?;
    lines.push(&buffer[..bytes]);
    if (1..READ_BYTES).contains(&bytes) {
        // Nothing is left. The runtime learns that by being told so, or by another read; the socket may have got more
        // since, which the system then tells it.
        let _ = socket.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
    Ok(bytes)
}

fn too_long(bytes: u64) -> Fault {
    let message = match bytes > LINE_BYTES_MAX as u64 {
        true => format!(
            "a line of {bytes} bytes was dropped; at most {LINE_BYTES_MAX} are read, so split the request"
        ),
        false => format!(
            "a line of {bytes} bytes was dropped: its user had begun others, and of lines that have not ended {HALF_LINES_BYTES_MAX} bytes are kept; end them first"
        ),
    };
    Fault::new(Errno::EMSGSIZE, message)
}

/// The id to answer a malformed line with.
pub fn answer_id(id: Option<CallId>) -> CallId {
    id.unwrap_or(syscalls::reply::NO_CALL)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::super::halves::Halves;
    use super::*;

    /// Few enough that what is not read of them fits in a socket.
    const ROUNDS: usize = 100;

    /// A connection that is read from; gives the program's end.
    fn read_from(conn: u64, turns: &Turns, inputs: &mpsc::Sender<Input>) -> UnixStream {
        let (near, far) = UnixStream::pair().expect("a pair");
        let (gate, open) = watch::channel(true);
        let reader = Reader {
            conn: ConnId(conn),
            socket: Arc::new(near),
            gate: open,
            memory: Arc::new(Semaphore::new(LINE_BYTES_MAX)),
            turns: turns.clone(),
            whose: Some(1),
            manners: Manners::unknown(),
            half: Halves::default().of(1),
            inputs: inputs.clone(),
        };
        tokio::spawn(async move {
            reader.run().await;
            drop(gate);
        });
        far
    }

    #[tokio::test(flavor = "current_thread")]
    async fn program_that_says_nonsense_has_two_lines_taken_while_a_polite_one_has_all() {
        let (turns, (inputs, mut taken)) = (Turns::without_rude_ones(), mpsc::channel(16));
        let (mut polite, mut rude) = (read_from(1, &turns, &inputs), read_from(2, &turns, &inputs));
        let mut lines_of_nonsense = 0;
        for _ in 0..ROUNDS {
            rude.write_all(b"\xff is nonsense\n").await.expect("there is room");
            polite.write_all(b"{\"id\":1,\"call\":\"sysinfo\"}\n").await.expect("there is room");
            loop {
                match taken.recv().await.expect("they are read from") {
                    Input::Request { conn: ConnId(1), .. } => break,
                    Input::Malformed { conn: ConnId(2), .. } => lines_of_nonsense += 1,
                    other => panic!("unexpected {other:?}"),
                }
            }
        }
        assert_eq!(lines_of_nonsense, 2, "of {ROUNDS}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn program_that_says_nonsense_is_heard_when_nobody_polite_is() {
        let (turns, (inputs, mut taken)) = (Turns::new(), mpsc::channel(16));
        let mut rude = read_from(1, &turns, &inputs);
        rude.write_all(&b"nonsense\n".repeat(100)).await.expect("there is room");
        for _ in 0..100 {
            let input = taken.recv().await.expect("it is read from");
            assert!(matches!(input, Input::Malformed { .. }), "{input:?}");
        }
    }
}
