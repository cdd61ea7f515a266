//! Headers that lie: the reader answers each with an error, never panics, and stays within its budget of memory.
//!
//! This test has a binary of its own, because it counts what its process allocates.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicUsize, Ordering};

use drivers::gguf::random::{Family, Shape};
use drivers::gguf::{HEADER_MEMORY_MAX, check_runnable, read};

/// Beside the budget: the reader's buffer, a file name, an error's sentence.
const SLACK: usize = 1 << 20;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator; only sizes are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs something and gives the most that it held at any time.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = work();
    (result, PEAK.load(Ordering::Relaxed) - before)
}

/// A file of any length that begins with some bytes and repeats the rest of them for ever.
struct Endless {
    head: Vec<u8>,
    tail: Vec<u8>,
    at: u64,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for byte in buffer.iter_mut() {
            let at = self.at as usize;
            *byte = match self.head.get(at) {
                Some(byte) => *byte,
                None => self.tail[(at - self.head.len()) % self.tail.len()],
            };
            self.at += 1;
        }
        Ok(buffer.len())
    }
}

impl Seek for Endless {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Start(at) => self.at = at,
            SeekFrom::Current(by) => self.at = self.at.wrapping_add_signed(by),
            SeekFrom::End(_) => return Err(io::Error::other("it has no end")),
        }
        Ok(self.at)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

const EXTREMES: [u64; 10] =
    [0, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 32, 1 << 62, i64::MAX as u64, u64::MAX];

/// Damages a file in one to four places.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        // Most of what matters stands near the beginning or in the tensor table, at the end of the header.
        let reach = if random.below(2) == 0 { bytes.len().min(600) } else { bytes.len() };
        let at = random.below(reach.max(1));
        match random.below(6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 if at + 8 <= bytes.len() => {
                bytes[at..at + 8].copy_from_slice(&EXTREMES[random.below(EXTREMES.len())].to_le_bytes());
            }
            3 if at + 4 <= bytes.len() => {
                bytes[at..at + 4].copy_from_slice(&(EXTREMES[random.below(6)] as u32).to_le_bytes());
            }
            4 => {
                let piece: Vec<u8> = bytes[at..bytes.len().min(at + 64)].to_vec();
                let to = random.below(bytes.len().max(1)).min(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                bytes.drain(at..bytes.len().min(at + 1 + random.below(16)));
            }
        }
    }
}

fn model(family: Family) -> Vec<u8> {
    let mut shape = Shape::preset("tiny").unwrap();
    shape.family = family;
    (shape.embedding, shape.feed_forward, shape.vocabulary, shape.context) = (64, 64, 300, 64);
    shape.kv_heads = if family == Family::Llama { 2 } else { shape.heads };
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("model.gguf");
    shape.write(&path).unwrap();
    std::fs::read(path).unwrap()
}

fn mutated_headers_neither_panic_nor_exceed_the_budget() {
    let seed = 0x5eed_0001;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let models = [model(Family::Llama), model(Family::Bert)];
    let (mut refused, mut accepted, mut most) = (0, 0, 0);
    for number in 0..10_000 {
        let mut bytes = models[number % 2].clone();
        mutate(&mut bytes, &mut random);
        let length = bytes.len() as u64;
        let (result, peak) = peak_of(|| read(Cursor::new(&bytes), length));
        assert!(peak <= HEADER_MEMORY_MAX + SLACK, "header {number} of seed {seed:#x} took {peak} bytes");
        most = most.max(peak);
        match result.and_then(|header| check_runnable(&header)) {
            Ok(()) => accepted += 1,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    println!(
        "figure: mutated headers: {refused} refused in a sentence, {accepted} sound, {} KiB held at most",
        most >> 10
    );
    assert!(refused > 5_000, "only {refused} of the mutations were noticed, {accepted} were not");
}

/// One metadata entry that is an array of this type and count, in a file that never ends.
fn endless_array(kind: u32, count: u64, tail: Vec<u8>) -> Endless {
    let mut head = b"GGUF\x03\0\0\0".to_vec();
    head.extend(0u64.to_le_bytes());
    head.extend(1u64.to_le_bytes());
    head.extend(1u64.to_le_bytes());
    head.extend(b"k");
    head.extend(9u32.to_le_bytes());
    head.extend(kind.to_le_bytes());
    head.extend(count.to_le_bytes());
    Endless { head, tail, at: 0 }
}

fn arrays_of_all_that_is_allowed_stay_within_the_budget() {
    let texts = endless_array(8, 16 << 20, [3u64.to_le_bytes().as_slice(), b"abc"].concat());
    let numbers = endless_array(10, 16 << 20, vec![7]);
    let broken = endless_array(8, 64, [(4u64 << 20).to_le_bytes().as_slice(), &vec![0xff; 4 << 20]].concat());
    for (name, file) in [("texts", texts), ("numbers", numbers), ("broken texts", broken)] {
        let (result, peak) = peak_of(|| read(file, u64::MAX >> 1));
        assert!(result.is_err(), "{name}");
        assert!(peak <= HEADER_MEMORY_MAX + SLACK, "{name} took {peak} bytes");
    }
}

/// One after the other, since both count what the process allocates.
#[test]
fn hostile_headers_are_refused_within_the_budget() {
    mutated_headers_neither_panic_nor_exceed_the_budget();
    arrays_of_all_that_is_allowed_stay_within_the_budget();
}
