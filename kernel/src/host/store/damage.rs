//! Five hundred damaged databases: whatever happens to the files, opening ends with all that was acknowledged, or with
//! the damaged one kept aside; never with a panic, never with less and not a word.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Store, sled};

const DAMAGES: usize = 500;

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 33) as usize) * n) >> 31
    }
}

/// Writes what a daemon would, flushing after each change, and tells what was acknowledged.
fn fill(folder: &Path, chance: &mut Chance) -> BTreeMap<String, Vec<u8>> {
    let mut store = sled::open_or_set_aside(folder).expect("opens");
    let mut acknowledged = BTreeMap::new();
    for _ in 0..5 + chance.below(20) {
        let key = format!("key/{}", chance.below(12));
        if chance.below(5) == 0 {
            store.delete(&key).expect("deletes");
            acknowledged.remove(&key);
        } else {
            let value = vec![b'a' + chance.below(26) as u8; 1 + chance.below(3000)];
            store.put(&key, &value).expect("puts");
            acknowledged.insert(key, value);
        }
        store.flush().expect("flushes");
    }
    acknowledged
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("reads").map(|entry| entry.expect("reads").path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// Does one kind of harm to one file.
fn damage(folder: &Path, chance: &mut Chance) -> &'static str {
    let files = files_of(folder);
    let file = &files[chance.below(files.len())];
    let mut bytes = fs::read(file).expect("reads");
    let length = bytes.len().max(1);
    bytes.resize(length, 0);
    let at = chance.below(length);
    let kind = match chance.below(6) {
        0 => {
            bytes[at] ^= 1 << chance.below(8);
            "one bit flipped"
        }
        1 => {
            bytes.truncate(at);
            "truncated"
        }
        2 => {
            let end = (at + 512).min(length);
            bytes[at..end].fill(0);
            "a sector zeroed"
        }
        3 => {
            // Flipped where something stands: most of the log is empty.
            let used: Vec<usize> = (0..length).filter(|i| bytes[*i] != 0).collect();
            if let Some(at) = used.get(chance.below(used.len().max(1))) {
                bytes[*at] ^= 1 << chance.below(8);
            }
            "one used bit flipped"
        }
        4 => {
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            let from = used.saturating_sub(chance.below(64));
            bytes[from..].fill(0);
            "the last write torn"
        }
        _ => {
            fs::write(folder.join("snap.0000000000000fff.generating"), b"half").expect("writes");
            "a half snapshot left"
        }
    };
    fs::write(file, bytes).expect("writes");
    kind
}

#[test]
fn databases_damaged_five_hundred_times_lose_nothing_silently() {
    let mut outcomes: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for seed in 0..DAMAGES as u64 {
        let mut chance = Chance(seed);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store");
        let acknowledged = fill(&path, &mut chance);
        let kind = damage(&path, &mut chance);
        let mut store = sled::open_or_set_aside(&path).unwrap_or_else(|e| panic!("seed {seed}, {kind}: {e}"));
        let aside = folder.path().join("store.damaged-1").exists();
        let found: BTreeMap<String, Vec<u8>> = store.scan().expect("reads").into_iter().collect();
        if !aside {
            assert!(
                found == acknowledged,
                "seed {seed}, {kind}: {:?} of {:?}",
                found.len(),
                acknowledged.len()
            );
        }
        store.put("after", b"works").and_then(|()| store.flush()).expect("it can be written");
        drop(store);
        let store = sled::open_or_set_aside(&path).expect("opens");
        assert_eq!(store.get("after").expect("reads").as_deref(), Some(&b"works"[..]), "seed {seed}, {kind}");
        *outcomes.entry((kind, if aside { "set aside" } else { "whole" })).or_default() += 1;
    }
    let aside: usize = outcomes.iter().filter(|((_, what), _)| *what == "set aside").map(|(_, n)| n).sum();
    println!("figure: damaged stores: {DAMAGES}, {aside} set aside, the others whole, nothing lost silently");
    for ((kind, outcome), times) in outcomes {
        println!("{times:4}  {kind}: {outcome}");
    }
}
