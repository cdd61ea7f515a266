//! Cuts a stream of bytes into lines, of which none is longer than a bound.
//!
//! A line over the bound is not kept: its bytes are counted and dropped until its newline comes, then it is
//! reported once, and the stream goes on with the next line. So a 100 MB line costs its sender one fault and
//! nobody any memory.

use memchr::memchr;

/// An empty buffer keeps at most this much memory.
const KEPT_BYTES: usize = 64 << 10;

/// What came out of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A whole line, without its newline.
    Whole(Vec<u8>),
    /// A line of so many bytes, which was dropped.
    TooLong(u64),
}

/// The state between two reads.
#[derive(Debug)]
pub struct LineReader {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are known to hold no newline.
    scanned: usize,
    /// Bytes dropped so far of a line that is too long; 0 while no line is.
    dropping: u64,
    bytes_max: usize,
}

impl LineReader {
    /// Starts with an empty stream; `bytes_max` bounds a line, its newline included.
    pub fn new(bytes_max: usize) -> Self {
        LineReader { buffer: Vec::new(), scanned: 0, dropping: 0, bytes_max }
    }

    /// Takes bytes as they came. Call [`next_line`](Self::next_line) until it gives none before the next push,
    /// so that the buffer stays within one line and one read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line, if a whole one has come.
    pub fn next_line(&mut self) -> Option<Line> {
        match memchr(b'\n', &self.buffer[self.scanned..]) {
            Some(offset) => Some(self.take_line(self.scanned + offset)),
            None => {
                self.scanned = self.buffer.len();
                if self.dropping > 0 || self.buffer.len() >= self.bytes_max {
                    self.give_up();
                }
                None
            }
        }
    }

    /// Whether a line has begun and not ended.
    pub fn is_midline(&self) -> bool {
        self.dropping > 0 || !self.buffer.is_empty()
    }

    /// Bytes that are kept of a line that has begun and not ended.
    pub fn kept(&self) -> usize {
        self.buffer.len()
    }

    /// Keeps nothing of the line that has begun. It is reported as one that is too long when its end comes.
    pub fn give_up(&mut self) {
        self.dropping += self.buffer.len() as u64;
        self.buffer = Vec::new();
        self.scanned = 0;
    }

    fn take_line(&mut self, newline: usize) -> Line {
        let mut line: Vec<u8> = self.buffer.drain(..=newline).collect();
        self.scanned = 0;
        if self.buffer.is_empty() {
            self.buffer.shrink_to(KEPT_BYTES);
        }
        let dropped = std::mem::take(&mut self.dropping);
        let bytes = dropped + line.len() as u64;
        if dropped > 0 || bytes > self.bytes_max as u64 {
            return Line::TooLong(bytes);
        }
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Line::Whole(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(chunks: &[&[u8]], bytes_max: usize) -> Vec<Line> {
        let mut reader = LineReader::new(bytes_max);
        let mut lines = Vec::new();
        for chunk in chunks {
            reader.push(chunk);
            while let Some(line) = reader.next_line() {
                lines.push(line);
            }
        }
        lines
    }

    #[test]
    fn lines_split_over_reads_come_whole() {
        let lines = lines_of(&[b"ab", b"c\nde\r\n", b"", b"f\n"], 16);
        assert_eq!(lines, ["abc", "de", "f"].map(|l| Line::Whole(l.into())));
    }

    #[test]
    fn line_over_the_bound_is_dropped_and_the_next_one_read() {
        let lines = lines_of(&[b"0123456789", b"0123456789", b"01\nok\n"], 8);
        assert_eq!(lines, vec![Line::TooLong(23), Line::Whole(b"ok".to_vec())]);
    }

    #[test]
    fn line_given_up_is_dropped_however_short_it_is_and_the_next_one_read() {
        let mut reader = LineReader::new(64);
        reader.push(b"one\ntw");
        assert_eq!(reader.next_line(), Some(Line::Whole(b"one".to_vec())));
        assert_eq!((reader.next_line(), reader.kept()), (None, 2));
        reader.give_up();
        assert_eq!((reader.kept(), reader.is_midline()), (0, true));
        reader.push(b"o\nthree\n");
        assert_eq!(reader.next_line(), Some(Line::TooLong(4)));
        assert_eq!(reader.next_line(), Some(Line::Whole(b"three".to_vec())));
    }

    #[test]
    fn line_at_the_bound_is_kept() {
        assert_eq!(lines_of(&[b"1234567\n"], 8), vec![Line::Whole(b"1234567".to_vec())]);
        assert_eq!(lines_of(&[b"12345678\n"], 8), vec![Line::TooLong(9)]);
    }

    #[test]
    fn buffer_is_given_back_while_a_long_line_is_dropped() {
        let mut reader = LineReader::new(64);
        for _ in 0..1000 {
            reader.push(&[b'x'; 64]);
            assert_eq!(reader.next_line(), None);
            assert!(reader.buffer.capacity() <= 128);
        }
    }
}
