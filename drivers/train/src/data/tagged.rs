//! Texts whose words have a class each: JSON lines with two lists, or a word and its class on each line with an empty line
//! between texts, as in CoNLL's files (the word is the first column, and its class the last).

use std::path::Path;

use super::error::DataError;
use super::jsonl::{self, Object};
use super::lines::Lines;
use super::record::{Marked, Record, Records};

/// What stands in the place of a word where a document begins.
const DOCUMENT: &str = "-DOCSTART-";

/// Reads the texts of a file; the names are those of the lists in JSON.
pub fn read(path: &Path, words: &str, tags: &str) -> Result<Records, DataError> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("jsonl" | "json" | "ndjson") => {
            let (words, tags) = (words.to_owned(), tags.to_owned());
            Ok(Box::new(jsonl::read(path)?.map(move |object| {
                let object = object?;
                let (words, tags) = (list(&object, &words)?, list(&object, &tags)?);
                match words.len() == tags.len() {
                    true => Ok(Record::Tagged { words, tags }.at(object.mark)),
                    false => {
                        let why = format!("has {} words and {} classes", words.len(), tags.len());
                        Err(object.mark.error(why))
                    }
                }
            })))
        }
        _ => {
            let mut texts = Texts { lines: Lines::open(path, "a word and its class on each line")? };
            let mut failed = false;
            Ok(Box::new(std::iter::from_fn(move || {
                let text = if failed { None } else { texts.text().transpose() };
                failed = matches!(text, Some(Err(_)));
                text
            })))
        }
    }
}

/// A list of texts in an object. Classes may be numbers.
fn list(object: &Object, field: &str) -> Result<Vec<String>, DataError> {
    let bad = || {
        let names: Vec<&str> = object.fields.keys().map(String::as_str).collect();
        let why = format!("has no list of texts `{field}`; it has {}", names.join(", "));
        object.mark.error(why)
    };
    object.list(field).ok_or_else(bad)
}

struct Texts {
    lines: Lines,
}

impl Texts {
    /// The next text, at the line of its first word.
    fn text(&mut self) -> Result<Option<Marked>, DataError> {
        let (mut words, mut tags, mut mark) = (Vec::new(), Vec::new(), None);
        while let Some(line) = self.lines.read_bare()? {
            let mut columns = line.split_whitespace();
            match (columns.next(), columns.next_back()) {
                (None, _) if words.is_empty() => {}
                (None, _) => break,
                (Some(DOCUMENT), _) => {}
                (Some(word), Some(tag)) => {
                    mark.get_or_insert_with(|| self.lines.mark());
                    words.push(word.to_owned());
                    tags.push(tag.to_owned());
                }
                (Some(word), None) => {
                    let why = format!("the word {word:?} has no class behind it");
                    return Err(self.lines.mark().error(why));
                }
            }
        }
        Ok(mark.map(|mark| Record::Tagged { words, tags }.at(mark)))
    }
}
