//! What a program prints: read from its two pipes, cut into lines, and handed to the kernel.
//!
//! A program that prints faster than the kernel takes in waits in its own `write`, as on any pipe: only so many batches
//! of all programs together wait for the kernel, and one that fills a batch pauses with its room. So a program that prints
//! without end costs the daemon a bounded part of its time, and no memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use syscalls::Pid;
use syscalls::event::Stream;
use syscalls::limits::PRINTED_LINE_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::input::Input;
use crate::core::printed::Printed;

/// Bytes of one batch: four of the longest lines.
const BATCH_BYTES: usize = 4 * PRINTED_LINE_BYTES_MAX;

/// Batches of all programs that may wait for the kernel. It takes one in within a fraction of a millisecond.
pub const BATCHES_WAITING_MAX: usize = 4;

/// How long the room of a batch that was full stays taken: all programs together print 16 MB a second at most.
const PAUSE: Duration = Duration::from_millis(4);

/// Pieces of the time in which the rest is read: where the machine lets nothing run for longer than all of it, one of them is
/// lost, and what has been printed is read in the others.
const PATIENCE_PIECES: u32 = 20;

/// The tasks that read from a program.
pub struct Printing(JoinSet<()>);

impl Printing {
    /// Begins to read what a program prints.
    pub fn begin(
        pid: Pid,
        child: &mut Child,
        batches: &Arc<Semaphore>,
        inputs: &mpsc::Sender<Input>,
    ) -> Printing {
        let mut tasks = JoinSet::new();
        let reader = |stream| Reader { pid, stream, batches: Arc::clone(batches), inputs: inputs.clone() };
        if let Some(pipe) = child.stdout.take() {
            tasks.spawn(reader(Stream::Stdout).run(pipe));
        }
        if let Some(pipe) = child.stderr.take() {
            tasks.spawn(reader(Stream::Stderr).run(pipe));
        }
        Printing(tasks)
    }

    /// Waits until all is read of a program that has ended. Somebody outside of its group may still hold the pipes, who is
    /// not heard any more after so long.
    pub async fn finish(mut self, patience: Duration) {
        for _ in 0..PATIENCE_PIECES {
            let all_is_read = async { while self.0.join_next().await.is_some() {} };
            if timeout(patience / PATIENCE_PIECES, all_is_read).await.is_ok() {
                return;
            }
        }
        // What is left is dropped with the tasks.
    }
}

struct Reader {
    pid: Pid,
    stream: Stream,
    batches: Arc<Semaphore>,
    inputs: mpsc::Sender<Input>,
}

impl Reader {
    async fn run(self, mut pipe: impl AsyncRead + Unpin) {
        let (mut lines, mut buffer) = (Lines::new(self.stream), vec![0; BATCH_BYTES]);
        loop {
            let bytes = match pipe.read(&mut buffer).await {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // No pipe gives an error that is not its end.
                Err(_) => 0,
            };
            lines.push(&buffer[..bytes]);
            if bytes == 0 {
                lines.end();
            }
            let full = bytes == BATCH_BYTES;
            if self.hand_over(lines.take(), full).await.is_none() || bytes == 0 {
                return;
            }
        }
    }

    /// Gives lines to the main loop, when it has room for them. Nothing where that is gone.
    async fn hand_over(&self, lines: Vec<Printed>, pause: bool) -> Option<()> {
        if lines.is_empty() {
            return Some(());
        }
        let room = Arc::clone(&self.batches).acquire_owned().await.ok()?;
        if pause {
            sleep(PAUSE).await;
        }
        self.inputs.send(Input::ProgramPrinted { pid: self.pid, lines, room }).await.ok()
    }
}

/// Makes lines of bytes.
struct Lines {
    stream: Stream,
    whole: Vec<Printed>,
    rest: Vec<u8>,
}

impl Lines {
    fn new(stream: Stream) -> Self {
        Lines { stream, whole: Vec::new(), rest: Vec::new() }
    }

    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(piece);
            while self.rest.len() > PRINTED_LINE_BYTES_MAX {
                let rest = self.rest.split_off(whole_characters(&self.rest[..PRINTED_LINE_BYTES_MAX]));
                let line = std::mem::replace(&mut self.rest, rest);
                self.line(&line, true);
            }
            if self.rest.last() == Some(&b'\n') {
                let line = std::mem::take(&mut self.rest);
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                self.line(line.strip_suffix(b"\r").unwrap_or(line), false);
            }
        }
    }

    /// Nothing more comes, and a line that was begun is one.
    fn end(&mut self) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.line(&rest, false);
        }
    }

    fn line(&mut self, bytes: &[u8], cut: bool) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.whole.push(Printed { stream: self.stream, text, cut });
    }

    fn take(&mut self) -> Vec<Printed> {
        std::mem::take(&mut self.whole)
    }
}

/// How many of the bytes end with a whole character; all where they are no UTF-8.
fn whole_characters(bytes: &[u8]) -> usize {
    let back = (1..=3).find(|back| bytes[bytes.len() - back] & 0b1100_0000 == 0b1100_0000);
    match back {
        Some(back) if std::str::from_utf8(&bytes[bytes.len() - back..]).is_err() => bytes.len() - back,
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<(String, bool)> {
        let mut lines = Lines::new(Stream::Stdout);
        pieces.iter().for_each(|piece| lines.push(piece));
        lines.end();
        lines.take().into_iter().map(|line| (line.text, line.cut)).collect()
    }

    #[test]
    fn pieces_of_all_sizes_are_the_same_lines() {
        let text = "one\ntwo\r\n\nthe fourth";
        let expected = ["one", "two", "", "the fourth"].map(|line| (line.to_owned(), false));
        assert_eq!(lines(&[text.as_bytes()]), expected);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(lines(&bytes), expected);
    }

    #[test]
    fn line_that_is_too_long_is_cut_between_characters() {
        let long = "é".repeat(PRINTED_LINE_BYTES_MAX);
        let whole = format!("x{long}\n");
        let cut = lines(&[whole.as_bytes()]);
        assert!(cut.iter().all(|(line, _)| line.len() <= PRINTED_LINE_BYTES_MAX));
        assert_eq!(cut.iter().map(|(line, _)| line.as_str()).collect::<String>() + "\n", whole);
        assert_eq!(cut.iter().filter(|(_, cut)| !cut).count(), 1, "the last piece alone ends the line");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(lines(&[b"a\xff\n"]), [("a\u{fffd}".to_owned(), false)]);
    }
}
