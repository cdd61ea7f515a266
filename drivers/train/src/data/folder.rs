//! Data sets as folders, in the layout of hubs: files whose names, or whose folders' names, say which split they are.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::DataError;
use super::limits::SHARDS_MAX;

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Split {
    Train,
    Validation,
    Test,
}

impl Split {
    /// The words that mark it, as the `datasets` library reads them.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Split::Train => &["train", "training"],
            Split::Validation => &["validation", "valid", "val", "dev"],
            Split::Test => &["test", "testing", "eval"],
        }
    }
}

/// Endings of files that hold texts.
const ENDINGS: [&str; 9] = ["parquet", "jsonl", "json", "ndjson", "csv", "tsv", "txt", "raw", "tokens"];

/// The files of a split, in the order of their names.
///
/// They lie in the folder or in one below it. Where a data set comes in several versions, each in a folder of its own,
/// the first that has a training split is taken for all splits.
///
/// # Errors
///
/// The folder cannot be read, or has no such files; the names that would do are given.
pub fn files(folder: &Path, split: Split) -> Result<Vec<PathBuf>, DataError> {
    let places = places(folder)?;
    let whole = places.iter().find(|place| !of_split(place, Split::Train).is_empty());
    let first = whole.into_iter().chain(&places).map(|place| of_split(place, split));
    let found = first.into_iter().find(|files| !files.is_empty()).unwrap_or_default();
    if found.is_empty() {
        let (words, endings) = (split.words().join(", "), ENDINGS.join(", "));
        let why = format!(
            "has no file of this split: its name must have one of the words {words} and one of the endings {endings}"
        );
        return Err(DataError::file(folder, why));
    }
    if found.len() > SHARDS_MAX {
        let why = format!("has {} files of this split; the limit is {SHARDS_MAX}", found.len());
        return Err(DataError::file(folder, why));
    }
    Ok(found)
}

/// The files with texts of a folder, and of each folder below it. Folders of one split count as the folder they lie in.
fn places(folder: &Path) -> Result<Vec<Vec<PathBuf>>, DataError> {
    let mut own = Vec::new();
    let mut below = Vec::new();
    for path in sorted(folder)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') {
            continue;
        }
        if !path.is_dir() {
            own.extend(holds_text(&path).then_some(path));
        } else if all_splits().any(|split| has_word(&name, split)) {
            own.extend(sorted(&path)?.into_iter().filter(|path| holds_text(path)));
        } else {
            below.push(sorted(&path)?.into_iter().filter(|path| holds_text(path)).collect());
        }
    }
    Ok(std::iter::once(own).chain(below).collect())
}

fn all_splits() -> impl Iterator<Item = Split> {
    [Split::Train, Split::Validation, Split::Test].into_iter()
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let entries = std::fs::read_dir(folder).map_err(DataError::io(folder))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort_unstable();
    Ok(paths)
}

fn holds_text(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    path.is_file() && ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

fn of_split(files: &[PathBuf], split: Split) -> Vec<PathBuf> {
    let named = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let folder = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        match all_splits().find(|split| has_word(&name, *split)) {
            Some(found) => found == split,
            None => folder.is_some_and(|folder| has_word(&folder, split)),
        }
    };
    files.iter().filter(|path| named(path)).cloned().collect()
}

/// Whether a name has a word of the split between characters that are no letters.
fn has_word(name: &str, split: Split) -> bool {
    let name = name.to_lowercase();
    name.split(|character: char| !character.is_alphabetic()).any(|word| split.words().contains(&word))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "text").unwrap();
        }
        folder
    }

    fn found(names: &[&str], split: Split) -> Vec<String> {
        let folder = folder(names);
        let relative = |path: PathBuf| path.strip_prefix(folder.path()).unwrap().display().to_string();
        files(folder.path(), split).unwrap().into_iter().map(relative).collect()
    }

    #[test]
    fn splits_are_found_by_words_in_names() {
        let names =
            ["README.md", "train-00001-of-00002.parquet", "train-00000-of-00002.parquet", "dev.jsonl"];
        assert_eq!(found(&names, Split::Train), [names[2], names[1]]);
        assert_eq!(found(&names, Split::Validation), ["dev.jsonl"]);
        // A word within a word is none.
        assert_eq!(found(&["constrained.txt", "train.txt"], Split::Train), ["train.txt"]);
    }

    #[test]
    fn folders_may_be_named_for_splits() {
        let names = ["train/a.txt", "train/b.txt", "test/a.txt"];
        assert_eq!(found(&names, Split::Train), ["train/a.txt", "train/b.txt"]);
        assert_eq!(found(&names, Split::Test), ["test/a.txt"]);
    }

    #[test]
    fn version_with_a_training_split_is_taken_for_all() {
        let names = ["valid.txt", "raw/wiki.valid.raw", "raw/train_first_1MB.txt"];
        assert_eq!(found(&names, Split::Train), ["raw/train_first_1MB.txt"]);
        assert_eq!(found(&names, Split::Validation), ["raw/wiki.valid.raw"]);
    }

    #[test]
    fn split_that_is_missing_is_asked_for_by_name() {
        let folder = folder(&["train.txt"]);
        let error = files(folder.path(), Split::Test).unwrap_err().to_string();
        assert!(error.contains("test") && error.contains("jsonl"), "{error}");
    }
}
