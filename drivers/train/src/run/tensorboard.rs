//! Event files for TensorBoard: records of a small protobuf message, each framed with its length and masked CRC-32C.
//!
//! Of the message `Event` only these fields are used: 1 `wall_time`, 2 `step`, 3 `file_version`, 5 `summary`; of a
//! `Summary.Value` only 1 `tag` and 2 `simple_value`.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::patient::PatientFile;

/// The constant that TFRecord adds to a rotated checksum.
const MASK_DELTA: u32 = 0xa282_ead8;

/// A file that is being written.
#[derive(Debug)]
pub struct EventFile {
    file: PatientFile,
}

impl EventFile {
    /// Begins a file in a folder; a run that goes on begins another one, as TensorBoard expects.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub fn create(folder: &Path) -> io::Result<EventFile> {
        std::fs::create_dir_all(folder)?;
        let name = format!("events.out.tfevents.{:010}.llmasos.{}", now() as u64, std::process::id());
        let mut events = EventFile { file: PatientFile::new(File::create(folder.join(name))?) };
        let mut event = wall_time();
        put_bytes(&mut event, 3, b"brain.Event:2");
        events.record(&event);
        events.flush()?;
        Ok(events)
    }

    /// Adds a number under a tag.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) {
        let mut number = Vec::new();
        put_bytes(&mut number, 1, tag.as_bytes());
        number.push(2 << 3 | 5);
        number.extend((value as f32).to_le_bytes());
        let mut summary = Vec::new();
        put_bytes(&mut summary, 1, &number);
        let mut event = wall_time();
        event.push(2 << 3);
        put_varint(&mut event, step);
        put_bytes(&mut event, 5, &summary);
        self.record(&event);
    }

    /// Hands all records to the system.
    ///
    /// # Errors
    ///
    /// The file cannot be written; what it did not take waits.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn record(&mut self, data: &[u8]) {
        let length = (data.len() as u64).to_le_bytes();
        let sums = [masked(&length), masked(data)].map(u32::to_le_bytes);
        self.file.put(&[&length, &sums[0][..], data, &sums[1][..]].concat());
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn wall_time() -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(now().to_le_bytes());
    event
}

fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(MASK_DELTA)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Splits a file into its records, checking both sums of each.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let sum = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            assert_eq!(sum(8), masked(&bytes[..8]));
            assert_eq!(sum(12 + length), masked(&bytes[12..12 + length]));
            found.push(bytes[12..12 + length].to_vec());
            bytes = &bytes[16 + length..];
        }
        found
    }

    #[test]
    fn numbers_stand_in_records_with_their_sums() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path()).unwrap();
        events.scalar("loss", 300, 1.5);
        events.flush().unwrap();
        let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let records = records(&std::fs::read(path).unwrap());
        assert_eq!(records.len(), 2);
        assert_eq!(records[0][9..], *b"\x1a\x0dbrain.Event:2");
        let mut wanted = vec![0x10, 0xac, 0x02, 0x2a, 13, 0x0a, 11, 0x0a, 4];
        wanted.extend(b"loss\x15");
        wanted.extend(1.5f32.to_le_bytes());
        assert_eq!(records[1][9..], wanted);
    }

    /// The check value of CRC-32C, and its masked form as TFRecord has it.
    #[test]
    fn sums_are_those_of_the_standard() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked(b"123456789"), 0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }
}
