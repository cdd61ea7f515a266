//! From files of text to files of tokens, once: what was tokenised before is found in the cache.
//!
//! A file of tokens goes by what it is made of: the tokeniser, and path, length and time of change of every file of
//! text. So a text that is edited is tokenised again, and two runs on the same data share one file.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::error::DataError;
use super::limits::{LABELS_MAX, PIECES_AT_ONCE};
use super::record::{Record, Records};
use super::source::{Shape, Source};
use super::tokens::{About, TokenFile, TokenWriter};
use crate::token::{Special, Tokeniser, hex};

/// Part of the digest: another number where the same text becomes other tokens.
const FORMAT: u32 = 1;

/// Tokenises a source, or finds it done.
///
/// # Errors
///
/// A file that cannot be read or is broken, with its line where it has one; a text without tokens.
pub fn prepare(
    source: &Source,
    files: &[PathBuf],
    tokeniser: &Tokeniser,
    cache: &Path,
) -> Result<Arc<TokenFile>, DataError> {
    let digest = digest(source, files, tokeniser)?;
    let path = cache.join("tokens").join(format!("{}.tokens", hex(&digest)));
    if let Ok(file) = TokenFile::open(&path)
        && file.digest() == digest
    {
        return Ok(Arc::new(file));
    }
    let labels = match source.shape() {
        Shape::Labelled => labels(source.records(files)?, &files[0])?,
        _ => Vec::new(),
    };
    let mut writer = TokenWriter::create(&path, tokeniser.size(), digest)?;
    let mut work = Work { tokeniser, labels: &labels, writer: &mut writer, file: &files[0] };
    let mut some = false;
    let mut records = source.records(files)?;
    loop {
        let batch: Vec<Record> = records.by_ref().take(PIECES_AT_ONCE).collect::<Result<_, _>>()?;
        if batch.is_empty() {
            break;
        }
        some = true;
        work.write(batch)?;
    }
    if !some {
        return Err(DataError::Empty { path: files[0].clone(), wanted: "text" });
    }
    writer.finish(&About { labels, sources: files.to_vec() }).map(Arc::new)
}

fn digest(source: &Source, files: &[PathBuf], tokeniser: &Tokeniser) -> Result<[u8; 24], DataError> {
    let mut hash = Sha256::new();
    hash.update(FORMAT.to_le_bytes());
    hash.update(tokeniser.digest());
    hash.update(serde_json::to_vec(source).expect("a source becomes JSON"));
    for file in files {
        let about = std::fs::metadata(file).map_err(DataError::io(file))?;
        let path = std::fs::canonicalize(file).map_err(DataError::io(file))?;
        hash.update(path.as_os_str().as_encoded_bytes());
        hash.update(about.len().to_le_bytes());
        hash.update(about.mtime().to_le_bytes());
        hash.update(about.mtime_nsec().to_le_bytes());
    }
    Ok(hash.finalize()[..24].try_into().expect("24 of 32 bytes"))
}

/// All labels: numbers in their order, otherwise names in theirs.
fn labels(records: Records, file: &Path) -> Result<Vec<String>, DataError> {
    let mut found = BTreeSet::new();
    for record in records {
        if let Record::Labelled { label, .. } = record? {
            found.insert(label);
        }
        if found.len() > LABELS_MAX {
            let why = format!(
                "has more than {LABELS_MAX} different labels, which is the limit; is it the right column?"
            );
            return Err(DataError::file(file, why));
        }
    }
    let mut labels: Vec<String> = found.into_iter().collect();
    if labels.iter().all(|label| label.parse::<i64>().is_ok()) {
        labels.sort_by_key(|label| label.parse::<i64>().ok());
    }
    Ok(labels)
}

struct Work<'a> {
    tokeniser: &'a Tokeniser,
    labels: &'a [String],
    writer: &'a mut TokenWriter,
    file: &'a Path,
}

impl Work<'_> {
    fn write(&mut self, records: Vec<Record>) -> Result<(), DataError> {
        let end = self.tokeniser.find(Special::End);
        let mut texts = Vec::new();
        let mut kinds = Vec::new();
        for record in records {
            kinds.push(match &record {
                Record::Text { ends, .. } => Kind::Text { ends: *ends },
                Record::Pair { .. } => Kind::Pair,
                Record::Labelled { second, label, .. } => {
                    let class = self.labels.iter().position(|known| known == label);
                    Kind::Labelled {
                        two: second.is_some(),
                        class: class.expect("all labels were listed") as u32,
                    }
                }
            });
            texts.extend(record.into_texts());
        }
        let encoded = self.tokeniser.encode_all(&texts);
        let encoded = encoded.map_err(|error| DataError::Token { path: self.file.to_owned(), error })?;
        let mut encoded = encoded.into_iter();
        for kind in kinds {
            let tokens = encoded.next().expect("one for each text");
            self.writer.push(&tokens)?;
            match kind {
                Kind::Text { ends: false } => {}
                Kind::Text { ends: true } => {
                    self.writer.push(end.as_slice())?;
                    self.writer.end(0);
                }
                Kind::Pair => {
                    self.writer.end(0);
                    self.writer.push(&encoded.next().expect("the second of the pair"))?;
                    self.writer.end(0);
                }
                Kind::Labelled { two, class } => {
                    if two {
                        self.writer.push(&[self.tokeniser.need(Special::Separator)?])?;
                        self.writer.push(&encoded.next().expect("the second text"))?;
                    }
                    self.writer.end(class);
                }
            }
        }
        Ok(())
    }
}

enum Kind {
    Text { ends: bool },
    Pair,
    Labelled { two: bool, class: u32 },
}
