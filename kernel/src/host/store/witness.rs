//! What a store must hold, written down beside it: sled takes damage near the end of its log for a write that was not
//! through, drops it without a word, and with it what was acknowledged.
//!
//! A witness is a sum over all keys and values. Before a change, the sum that it leads to is appended to a file,
//! durably, and after a flush once more, as one that was flushed. So when a store is opened, its own sum is the last that
//! was flushed or one behind it, whatever moment it was killed at; if it is none of them, something is missing or
//! changed, and the store is damaged. The line after a flush is not waited for: where the power fails, the very last
//! change stands as one that may not have been made.
//!
//! A file that is itself damaged proves nothing: then what the store has is taken, and the log says so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Store, StoreError};

/// Lines of the file before it is begun again with one.
const LINES_MAX: u64 = 4096;

/// A store that knows what it must hold.
pub struct Witnessed<S> {
    store: S,
    path: PathBuf,
    /// Where sums are appended; none until the file says what the store holds now.
    file: Option<File>,
    lines: u64,
    last: Line,
}

/// What a line of the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Line {
    /// Counts changes.
    number: u64,
    /// The last change that was flushed when this was written.
    flushed: u64,
    /// Over all keys and values, when this change is made.
    sum: u64,
}

impl<S: Store> Witnessed<S> {
    /// Takes a store, if it holds what the file says.
    ///
    /// # Errors
    ///
    /// It does not, or cannot be read.
    pub fn open(store: S, path: PathBuf) -> Result<Self, StoreError> {
        let mut sum = 0_u64;
        store.walk("", &mut |key, value| sum = sum.wrapping_add(sum_of(key, value)))?;
        if let Some(lines) = read(&path)? {
            let flushed = lines.last().map_or(0, |last| last.flushed);
            if !lines.iter().any(|line| line.number >= flushed && line.sum == sum) {
                return Err(StoreError::Damaged("something that was written is missing or changed".into()));
            }
        }
        let last = Line { number: 0, flushed: 0, sum };
        let mut witnessed = Witnessed { store, path, file: None, lines: 0, last };
        // Where the disk is full, what is there can still be read.
        let _ = witnessed.begin();
        Ok(witnessed)
    }

    /// The store itself.
    pub(super) fn store(&self) -> &S {
        &self.store
    }

    /// Begins the file with what the store holds now.
    fn begin(&mut self) -> io::Result<()> {
        self.last = Line { number: 0, flushed: 0, sum: self.last.sum };
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(self.last.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        self.lines = 1;
        Ok(())
    }

    /// Notes what a change leads to, durably, before it is made.
    fn note(&mut self, sum: u64) -> Result<(), StoreError> {
        if self.file.is_none() || (self.lines >= LINES_MAX && self.last.flushed == self.last.number) {
            self.begin().map_err(StoreError::System)?;
        }
        let line = Line { number: self.last.number + 1, flushed: self.last.flushed, sum };
        self.append(line, true).map_err(StoreError::System)
    }

    fn append(&mut self, line: Line, durably: bool) -> io::Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        // Where this fails, half a line may be there, and the file is begun again.
        file.write_all(line.to_string().as_bytes())?;
        if durably {
            file.sync_data()?;
        }
        self.file = Some(file);
        self.lines += 1;
        self.last = line;
        Ok(())
    }

    fn sum_without(&self, key: &str) -> Result<u64, StoreError> {
        let before = self.store.get(key)?.map_or(0, |value| sum_of(key, &value));
        Ok(self.last.sum.wrapping_sub(before))
    }
}

impl<S: Store> Store for Witnessed<S> {
    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let sum = self.sum_without(key)?.wrapping_add(sum_of(key, value));
        self.note(sum)?;
        self.store.put(key, value)
    }

    fn delete(&mut self, key: &str) -> Result<(), StoreError> {
        let sum = self.sum_without(key)?;
        self.note(sum)?;
        self.store.delete(key)
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }

    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str, &[u8])) -> Result<(), StoreError> {
        self.store.walk(prefix, each)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.store.flush()?;
        self.last.flushed = self.last.number;
        self.append(self.last, false).map_err(StoreError::System)
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = format!("{:016x} {:016x} {:016x}", self.number, self.flushed, self.sum);
        writeln!(f, "{words} {:016x}", fnv(words.as_bytes(), FNV_BASIS))
    }
}

impl Line {
    /// Reads a line; nothing where it is not as it was written.
    fn read(text: &str) -> Option<Line> {
        let (words, check) = text.rsplit_once(' ')?;
        let number = |word: Option<&str>| u64::from_str_radix(word?, 16).ok();
        if number(Some(check))? != fnv(words.as_bytes(), FNV_BASIS) {
            return None;
        }
        let mut words = words.split(' ');
        Some(Line {
            number: number(words.next())?,
            flushed: number(words.next())?,
            sum: number(words.next())?,
        })
    }
}

/// The lines of a file; nothing where it is not there, or proves nothing.
fn read(path: &Path) -> Result<Option<Vec<Line>>, StoreError> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(StoreError::System)?,
    };
    let text = String::from_utf8_lossy(&bytes);
    // A last line without an end was not through when the daemon was killed, and its change was not made.
    let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let lines: Option<Vec<Line>> = whole.map(Line::read).collect();
    match lines.filter(|lines| !lines.is_empty()) {
        Some(lines) => Ok(Some(lines)),
        None => {
            let path = path.display();
            tracing::warn!(
                "{path} is damaged, so nobody can tell whether the database beside it is whole; using what it has"
            );
            Ok(None)
        }
    }
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a, by Fowler, Noll and Vo: against accidents, not against enemies.
fn fnv(bytes: &[u8], basis: u64) -> u64 {
    bytes.iter().fold(basis, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

fn sum_of(key: &str, value: &[u8]) -> u64 {
    fnv(value, fnv(&[0], fnv(key.as_bytes(), FNV_BASIS)))
}
