//! Files of tokens: text that was tokenised once, read from disk as it is needed.
//!
//! ```text
//! header    64 bytes: magic, bytes of a token, vocabulary, tokens, records, bytes of what it is about, digest
//! tokens    2 bytes each where the vocabulary has room in them, else 4; little endian
//! padding   to a multiple of 8
//! ends      8 bytes a record: where it ends, in tokens
//! classes   4 bytes a record
//! about     JSON
//! ```
//!
//! The file is mapped, so the system keeps in memory what is used, and gives it back when others need it. It appears
//! under its name when it is whole.

mod write;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

pub use write::TokenWriter;

use super::error::DataError;

const MAGIC: &[u8; 8] = b"LLMTOKS1";
const HEADER_BYTES: usize = 64;

/// What a file of tokens was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The names of classes, by their number.
    pub labels: Vec<String>,
    /// The files.
    pub sources: Vec<PathBuf>,
    /// A digest of tokens, ends and classes. Two files with the same one hold the same, wherever it came from.
    #[serde(default)]
    pub content: String,
}

/// A file of tokens, mapped.
#[derive(Debug)]
pub struct TokenFile {
    map: Mmap,
    wide: bool,
    vocabulary: u32,
    tokens: u64,
    records: u64,
    digest: [u8; 24],
    about: About,
}

impl TokenFile {
    /// Opens a file that [`TokenWriter`] has made.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is damaged.
    pub fn open(path: &Path) -> Result<TokenFile, DataError> {
        let file = File::open(path).map_err(DataError::io(path))?;
        // SAFETY: the file lies in a cache folder of ours, is written under another name and never changed. Who
        // truncates it while it is read ends this program with SIGBUS, and loses steps since the last checkpoint.
        let map = unsafe { Mmap::map(&file) }.map_err(DataError::io(path))?;
        let damaged =
            || DataError::file(path, "is no file of tokens or is damaged; delete it, it is made again");
        if map.len() < HEADER_BYTES || &map[..8] != MAGIC {
            return Err(damaged());
        }
        let u32_at = |at: usize| u32::from_le_bytes(map[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(map[at..at + 8].try_into().expect("eight bytes"));
        let (width, vocabulary, tokens, records) = (u32_at(8), u32_at(12), u64_at(16), u64_at(24));
        let sum = (|| {
            let tokens = tokens.checked_mul(width.into())?.checked_next_multiple_of(8)?;
            let records = records.checked_mul(12)?;
            let about_at = tokens.checked_add(records)?.checked_add(HEADER_BYTES as u64)?;
            Some((about_at, about_at.checked_add(u64_at(32))?))
        })();
        let Some((about_at, end)) = sum.filter(|_| width == 2 || width == 4) else { return Err(damaged()) };
        if end != map.len() as u64 {
            return Err(damaged());
        }
        let about = serde_json::from_slice(&map[about_at as usize..]).map_err(|_| damaged())?;
        let digest = map[40..64].try_into().expect("24 bytes");
        Ok(TokenFile { wide: width == 4, vocabulary, tokens, records, digest, about, map })
    }

    /// All tokens.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// How many records there are.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Ids are below it.
    pub fn vocabulary(&self) -> u32 {
        self.vocabulary
    }

    /// What it is made of, as a digest.
    pub fn digest(&self) -> [u8; 24] {
        self.digest
    }

    /// What it is made of.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Where a record stands, in tokens.
    pub fn record(&self, number: u64) -> Range<u64> {
        assert!(number < self.records, "record {number} of {}", self.records);
        let begin = if number == 0 { 0 } else { self.end(number - 1) };
        begin..self.end(number)
    }

    /// The record that a token is in; behind the last one, their number.
    pub fn record_of(&self, token: u64) -> u64 {
        let (mut low, mut high) = (0, self.records);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.end(middle) <= token { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The class of a record.
    pub fn class(&self, number: u64) -> u32 {
        assert!(number < self.records, "record {number} of {}", self.records);
        let at = self.ends_at() + 8 * self.records as usize + 4 * number as usize;
        u32::from_le_bytes(self.map[at..at + 4].try_into().expect("four bytes"))
    }

    /// Appends the tokens of a range.
    pub fn read(&self, range: Range<u64>, out: &mut Vec<u32>) {
        assert!(range.start <= range.end && range.end <= self.tokens, "{range:?} of {} tokens", self.tokens);
        let width = if self.wide { 4 } else { 2 };
        let bytes =
            &self.map[HEADER_BYTES + range.start as usize * width..HEADER_BYTES + range.end as usize * width];
        match self.wide {
            true => out.extend(bytes.as_chunks().0.iter().map(|x| u32::from_le_bytes(*x))),
            false => out.extend(bytes.as_chunks().0.iter().map(|x| u32::from(u16::from_le_bytes(*x)))),
        }
    }

    fn ends_at(&self) -> usize {
        let width = if self.wide { 4 } else { 2 };
        HEADER_BYTES + (self.tokens as usize * width).next_multiple_of(8)
    }

    fn end(&self, number: u64) -> u64 {
        let at = self.ends_at() + 8 * number as usize;
        u64::from_le_bytes(self.map[at..at + 8].try_into().expect("eight bytes"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn written(folder: &Path, vocabulary: u32) -> TokenFile {
        let mut writer = TokenWriter::create(&folder.join("a.tokens"), vocabulary, [7; 24]).unwrap();
        writer.push(&[1, 2, vocabulary - 1]).unwrap();
        writer.end(5);
        writer.push(&[3]).unwrap();
        writer.push(&[4]).unwrap();
        writer.end(6);
        let about = About { labels: vec!["a".into()], sources: vec!["b".into()], ..About::default() };
        writer.finish(&about).unwrap()
    }

    #[test]
    fn records_come_back_in_both_widths() {
        let folder = tempfile::tempdir().unwrap();
        for vocabulary in [65_536, 65_537] {
            let file = written(folder.path(), vocabulary);
            assert_eq!((file.tokens(), file.records(), file.digest()), (5, 2, [7; 24]));
            let mut tokens = Vec::new();
            file.read(file.record(0), &mut tokens);
            assert_eq!(tokens, [1, 2, vocabulary - 1]);
            file.read(file.record(1), &mut tokens);
            assert_eq!(tokens[3..], [3, 4]);
            assert_eq!((file.class(0), file.class(1)), (5, 6));
            assert_eq!([0, 2, 3, 4, 5].map(|token| file.record_of(token)), [0, 0, 1, 1, 2]);
            assert_eq!(file.about().labels, ["a"]);
            assert_eq!(file.about().content, written(folder.path(), vocabulary).about().content);
        }
    }

    #[test]
    fn file_cut_anywhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 300);
        let whole = std::fs::read(folder.path().join("a.tokens")).unwrap();
        let cut = folder.path().join("cut.tokens");
        for length in 1..whole.len() {
            std::fs::write(&cut, &whole[..length]).unwrap();
            let error = TokenFile::open(&cut).unwrap_err().to_string();
            assert!(error.contains("damaged") && error.contains("cut.tokens"), "{length}: {error}");
        }
    }
}
