//! Where data come from, as a specification says it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::DataError;
use super::folder::{self, Split};
use super::lines::Lines;
use super::record::{Record, Records};
use super::{jsonl, named, questions, table, tagged, text};

/// Where data come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Source {
    /// Plain text; each file is a document.
    Text(Vec<PathBuf>),
    /// A JSON object on each line, each a document.
    Jsonl {
        files: Vec<PathBuf>,
        #[serde(default = "text_field")]
        field: String,
    },
    /// A folder in the layout of data sets on hubs, or the name of one that is known, such as `wikitext-2`.
    Dataset {
        name: String,
        #[serde(default)]
        split: Option<Split>,
        #[serde(default = "text_field")]
        field: String,
    },
    /// Two text files that are translations of each other, line by line.
    Parallel { source: PathBuf, target: PathBuf },
    /// A table (.tsv, .csv or .jsonl) with a text and its translation; columns by number, from 0 on, or by name.
    Pairs { file: PathBuf, source: String, target: String },
    /// A table with a text, or two, and its class, its classes, or a number.
    Labelled {
        file: PathBuf,
        #[serde(default = "first_column")]
        text: String,
        #[serde(default)]
        second: Option<String>,
        #[serde(default = "second_column")]
        label: String,
    },
    /// Questions whose answers stand in a text: a file in the form of SQuAD, or an object on each line.
    Questions {
        file: PathBuf,
        /// Tokens that neighbouring parts of a long text have in common; half of a part where it is not said.
        #[serde(default)]
        stride: Option<usize>,
    },
    /// Texts whose words have a class each: JSON lines with two lists, or a word and its class on each line.
    Tagged {
        file: PathBuf,
        #[serde(default = "tokens_field")]
        words: String,
        #[serde(default = "tags_field")]
        tags: String,
    },
}

fn tokens_field() -> String {
    "tokens".into()
}

fn tags_field() -> String {
    "tags".into()
}

fn text_field() -> String {
    "text".into()
}

fn first_column() -> String {
    "0".into()
}

fn second_column() -> String {
    "1".into()
}

/// What records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Documents.
    Text,
    /// Texts and their translations.
    Pairs,
    /// Texts and their classes or numbers.
    Labelled,
    /// Questions, texts, and where the answers stand.
    Questions,
    /// Words and their classes.
    Tagged,
}

impl Source {
    /// What its records are.
    pub fn shape(&self) -> Shape {
        match self {
            Source::Text(_) | Source::Jsonl { .. } | Source::Dataset { .. } => Shape::Text,
            Source::Parallel { .. } | Source::Pairs { .. } => Shape::Pairs,
            Source::Labelled { .. } => Shape::Labelled,
            Source::Questions { .. } => Shape::Questions,
            Source::Tagged { .. } => Shape::Tagged,
        }
    }

    /// The files it reads, for `split` where it does not say which. A data set that is not here is fetched.
    ///
    /// # Errors
    ///
    /// There are none, or a named one is nowhere.
    pub fn files(&self, split: Split, search: &named::Search) -> Result<Vec<PathBuf>, DataError> {
        let files = match self {
            Source::Text(files) | Source::Jsonl { files, .. } => files.clone(),
            Source::Dataset { name, split: own, .. } => {
                let folder = named::find(name, search)?;
                folder::files(&folder, own.unwrap_or(split))?
            }
            Source::Parallel { source, target } => vec![source.clone(), target.clone()],
            Source::Pairs { file, .. }
            | Source::Labelled { file, .. }
            | Source::Questions { file, .. }
            | Source::Tagged { file, .. } => vec![file.clone()],
        };
        match files.is_empty() {
            true => Err(DataError::Unfit("the list of files is empty; name at least one".into())),
            false => Ok(files),
        }
    }

    /// The records of files that [`Source::files`] has named.
    ///
    /// # Errors
    ///
    /// A file cannot be opened. What is wrong within one comes as a record.
    pub fn records(&self, files: &[PathBuf]) -> Result<Records, DataError> {
        match self {
            Source::Text(_) => each(files, |path| Ok(Box::new(text::read(path)?))),
            Source::Jsonl { field, .. } => {
                let field = field.clone();
                each(files, move |path| documents(path, &field))
            }
            Source::Dataset { field, .. } => {
                let field = field.clone();
                each(files, move |path| shard(path, &field))
            }
            Source::Parallel { source, target } => parallel(source, target),
            Source::Pairs { file, source, target } => {
                let rows = table::read(file, &[source.clone(), target.clone()])?;
                Ok(Box::new(rows.map(|row| {
                    let (cells, mark) = row?;
                    let [source, target] = cells.try_into().expect("two columns were asked for");
                    Ok(Record::Pair { source, target }.at(mark))
                })))
            }
            Source::Questions { file, .. } => questions::read(file),
            Source::Tagged { file, words, tags } => tagged::read(file, words, tags),
            Source::Labelled { file, text, second, label } => {
                let columns: Vec<String> = [text, label].into_iter().chain(second).cloned().collect();
                let rows = table::read_with_list(file, &columns, label)?;
                Ok(Box::new(rows.map(|row| {
                    let (cells, mark) = row?;
                    let mut cells = cells.into_iter();
                    let mut cell = || cells.next().expect("the columns that were asked for");
                    let (text, label) = (cell(), cell());
                    Ok(Record::Labelled { text, label, second: cells.next() }.at(mark))
                })))
            }
        }
    }
}

/// One file after another. All are opened at once, so that a wrong name shows before hours of reading.
fn each(files: &[PathBuf], open: impl Fn(&Path) -> Result<Records, DataError>) -> Result<Records, DataError> {
    let opened = files.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    Ok(Box::new(opened.into_iter().flatten()))
}

fn documents(path: &Path, field: &str) -> Result<Records, DataError> {
    let field = field.to_owned();
    let objects = jsonl::read(path)?;
    Ok(Box::new(objects.map(move |object| {
        let object = object?;
        Ok(Record::Text { text: object.text(&field)?, ends: true }.at(object.mark))
    })))
}

/// A file of a data set, read as its ending says.
fn shard(path: &Path, field: &str) -> Result<Records, DataError> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("jsonl" | "json" | "ndjson") => documents(path, field),
        Some("csv" | "tsv") => {
            let rows = table::read(path, &[field.to_owned()])?;
            Ok(Box::new(rows.map(|row| {
                let (cells, mark) = row?;
                let [text] = cells.try_into().expect("one column was asked for");
                Ok(Record::Text { text, ends: true }.at(mark))
            })))
        }
        Some("parquet") => super::parquet::read(path, field),
        _ => Ok(Box::new(text::read(path)?)),
    }
}

fn parallel(source: &Path, target: &Path) -> Result<Records, DataError> {
    let mut sources = Lines::open(source, "lines of text")?;
    let mut targets = Lines::open(target, "their translations, line by line")?;
    let mut failed = false;
    let mut pair = move || match (sources.read_bare()?, targets.read_bare()?) {
        (Some(source), Some(target)) => Ok(Some(Record::Pair { source, target }.at(sources.mark()))),
        (None, None) => Ok(None),
        _ => {
            while sources.read_bare()?.is_some() {}
            while targets.read_bare()?.is_some() {}
            Err(DataError::Unparallel {
                source_file: sources.path().to_owned(),
                source_lines: sources.number(),
                target_file: targets.path().to_owned(),
                target_lines: targets.number(),
            })
        }
    };
    Ok(Box::new(std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let record = pair().transpose();
        failed = matches!(record, Some(Err(_)));
        record
    })))
}
