//! The fuzz targets on their seeds and on random changes of them, under seeds that are printed. `make fuzz` lets
//! libFuzzer look further.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};

use harness::sim::chance::Chance;
use targets::{TARGETS, Target};

/// Changed inputs of each target.
const INPUTS: u64 = 3000;

/// Changes of one input at most.
const CHANGES_MAX: u64 = 8;

/// Bytes that mean something to one of the formats.
const TOKENS: [&[u8]; 14] = [
    b"\n",
    b"\"",
    b"{",
    b"[[[[",
    b"\\",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"'",
    b"$(",
    b"&&",
    b"1e999",
    b"-9223372036854775809",
    "\u{1f600}".as_bytes(),
    b"null",
];

fn changed(seeds: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut below = |n: usize| chance.below(n.max(1) as u64) as usize;
    let mut bytes = seeds[below(seeds.len())].clone();
    for _ in 0..=below(CHANGES_MAX as usize) {
        let at = below(bytes.len() + 1);
        match below(6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << below(8),
            2 => drop(bytes.splice(at..at, TOKENS[below(TOKENS.len())].iter().copied())),
            3 => drop(bytes.drain(at..(at + below(32)).min(bytes.len()))),
            4 => {
                let piece = bytes[at..(at + below(64)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let other = &seeds[below(seeds.len())];
                let from = below(other.len() + 1);
                bytes.splice(at.., other[from..].iter().copied());
            }
        }
    }
    bytes
}

fn check(target: &Target, bytes: &[u8], whence: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        panic!("{} cannot take {whence}: {:?}", target.name, String::from_utf8_lossy(bytes));
    }
}

#[test]
fn targets_take_their_seeds_and_random_changes_of_them() {
    for target in &TARGETS {
        let seeds = (target.seeds)();
        seeds.iter().for_each(|bytes| check(target, bytes, "a seed"));
        for seed in 1..=INPUTS {
            check(target, &changed(&seeds, &mut Chance::new(seed)), &format!("seed {seed}"));
        }
        println!("{}: {} seeds, and changes under the seeds 1 to {INPUTS}", target.name, seeds.len());
    }
}

/// Writes the seeds to where `make fuzz` begins with them.
#[test]
fn seeds_are_written_where_they_are_asked_for() {
    let asked = std::env::var_os("LLMASOS_FUZZ_CORPUS");
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = asked.map_or_else(|| scratch.path().to_owned(), Into::into);
    for target in &TARGETS {
        let own = folder.join(target.name);
        std::fs::create_dir_all(&own).expect("a folder can be made");
        for (number, bytes) in (target.seeds)().iter().enumerate() {
            std::fs::write(own.join(format!("seed-{number}")), bytes).expect("a file can be written");
        }
        assert!(std::fs::read_dir(own).expect("it is there").count() >= 2);
    }
}
