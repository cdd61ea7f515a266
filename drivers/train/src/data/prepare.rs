//! From files of text to files of tokens, once: what was tokenised before is found in the cache.
//!
//! A file of tokens goes by what it is made of: the tokeniser, and path, length and time of change of every file of
//! text. So a text that is edited is tokenised again, and two runs on the same data share one file.

use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::error::DataError;
use super::labels::{self, Reading, Targets};
use super::limits::PIECES_AT_ONCE;
use super::record::{Mark, Marked, Record};
use super::source::{Shape, Source};
use super::tokens::{About, TokenFile, TokenWriter};
use super::windows::{QUESTION_TOKENS_MAX, covering, stride_default, windows};
use crate::token::{Frame, Special, Tokeniser, hex};

/// Part of the digest: another number where the same text becomes other tokens.
const FORMAT: u32 = 3;

/// The class of a text whose label is ignored.
pub(super) const NO_CLASS: u32 = u32::MAX;

/// Tokenises a source, or finds it done.
///
/// # Errors
///
/// A file that cannot be read or is broken, with its line where it has one; a text without tokens.
pub fn prepare(
    source: &Source,
    files: &[PathBuf],
    tokeniser: &Tokeniser,
    reading: &Reading,
    cache: &Path,
) -> Result<Arc<TokenFile>, DataError> {
    let digest = digest(source, files, tokeniser, reading)?;
    let path = cache.join("tokens").join(format!("{}.tokens", hex(&digest)));
    if let Ok(file) = TokenFile::open(&path)
        && file.digest() == digest
    {
        return Ok(Arc::new(file));
    }
    let labels = match source.shape() {
        Shape::Labelled | Shape::Tagged => reading.labels(source.records(files)?)?,
        _ => Vec::new(),
    };
    let mut writer = TokenWriter::create(&path, tokeniser.size(), digest)?;
    let stride = if let Source::Questions { stride, .. } = source { *stride } else { None };
    let mut work = Work { tokeniser, labels: &labels, writer: &mut writer, file: &files[0], reading, stride };
    let mut some = false;
    let mut records = source.records(files)?;
    loop {
        let batch: Vec<Marked> = records.by_ref().take(PIECES_AT_ONCE).collect::<Result<_, _>>()?;
        if batch.is_empty() {
            break;
        }
        some = true;
        work.write(batch)?;
    }
    if !some {
        return Err(DataError::Empty { path: files[0].clone(), wanted: "text" });
    }
    writer.finish(&About { labels, sources: files.to_vec(), ..About::default() }).map(Arc::new)
}

fn digest(
    source: &Source,
    files: &[PathBuf],
    tokeniser: &Tokeniser,
    reading: &Reading,
) -> Result<[u8; 24], DataError> {
    let mut hash = Sha256::new();
    hash.update(FORMAT.to_le_bytes());
    hash.update(tokeniser.digest());
    hash.update(serde_json::to_vec(source).expect("a source becomes JSON"));
    // Texts alone are the same tokens for rows of any length.
    if !matches!(source.shape(), Shape::Text | Shape::Pairs) {
        hash.update(serde_json::to_vec(reading).expect("how to read becomes JSON"));
    }
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

struct Work<'a> {
    tokeniser: &'a Tokeniser,
    labels: &'a [String],
    writer: &'a mut TokenWriter,
    file: &'a Path,
    reading: &'a Reading,
    /// Tokens that parts of a text have in common.
    stride: Option<usize>,
}

impl Work<'_> {
    fn write(&mut self, records: Vec<Marked>) -> Result<(), DataError> {
        let end = self.tokeniser.find(Special::End);
        let (mut texts, mut marks, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        for Marked { record, mark } in records {
            let record = match record {
                Record::Question { question, context, answer } => {
                    self.question([&question, &context], answer.as_ref(), &mark)?;
                    continue;
                }
                Record::Tagged { words, tags } => {
                    self.tagged(&words, &tags, &mark)?;
                    continue;
                }
                other => other,
            };
            kinds.push(match &record {
                Record::Text { ends, .. } => Kind::Text { ends: *ends },
                Record::Pair { .. } => Kind::Pair,
                Record::Labelled { second, label, .. } => self.labelled(second.is_some(), label, &mark)?,
                Record::Question { .. } | Record::Tagged { .. } => unreachable!("they were written"),
            });
            for text in record.into_texts() {
                texts.push(text);
                marks.push(mark.clone());
            }
        }
        let mut encoded = self.encoded(&texts, &marks)?.into_iter();
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
                Kind::Near { value } => {
                    self.writer.end(value);
                    self.writer.push(&encoded.next().expect("the second text"))?;
                    self.writer.end(value);
                }
                Kind::Labelled { two, class, classes } => {
                    if two {
                        self.writer.push(&[self.tokeniser.need(Special::Separator)?])?;
                        self.writer.push(&encoded.next().expect("the second text"))?;
                    }
                    self.writer.end(class);
                    if let Some(classes) = classes {
                        self.writer.push(&classes)?;
                        self.writer.end(0);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Work<'_> {
    /// What is written of a label: the number of its class, or the bits of the number that it is.
    fn labelled(&self, two: bool, label: &str, mark: &Mark) -> Result<Kind, DataError> {
        let number = |label| labels::number(label, mark).map(f32::to_bits);
        Ok(match self.reading.targets {
            Targets::Nearness if !two => {
                let why = "has one text in a record, and how near two are is to be learned; name the column `second`";
                return Err(mark.error(why));
            }
            Targets::Nearness => Kind::Near { value: number(label)? },
            Targets::Number => Kind::Labelled { two, class: number(label)?, classes: None },
            Targets::Class => {
                Kind::Labelled { two, class: self.class(label).unwrap_or(NO_CLASS), classes: None }
            }
            Targets::Classes => {
                self.check_vocabulary()?;
                let classes = labels::split(label).filter_map(|label| self.class(label)).collect();
                Kind::Labelled { two, class: 0, classes: Some(classes) }
            }
        })
    }

    /// The number of a class; none of one that is ignored.
    fn class(&self, label: &str) -> Option<u32> {
        if self.reading.ignores(label) {
            return None;
        }
        let place = self.labels.iter().position(|known| known == label);
        Some(place.expect("all labels were listed") as u32)
    }

    /// Numbers of classes that are written as tokens must be some.
    fn check_vocabulary(&self) -> Result<(), DataError> {
        let (most, found) = (self.tokeniser.size() as usize, self.labels.len());
        match found < most {
            true => Ok(()),
            false => {
                let why = format!("has {found} different classes, and the vocabulary {most} tokens");
                Err(DataError::file(self.file, why))
            }
        }
    }

    /// The tokens of texts, of which each stands where its mark says.
    fn encoded(&self, texts: &[String], marks: &[Mark]) -> Result<Vec<Vec<u32>>, DataError> {
        let error = match self.tokeniser.encode_all(texts) {
            Ok(encoded) => return Ok(encoded),
            Err(error) => error,
        };
        // All of them together do not say which one it was.
        let each = texts.iter().zip(marks).map(|(text, mark)| {
            self.tokeniser.encode(text).map_err(|error| mark.token_error(text, &error)).map(drop)
        });
        each.collect::<Result<(), _>>().and(Err(DataError::Tokeniser(error)))
    }

    /// Writes a question and a part of its text, for each part; their classes are the first and the last token of the
    /// answer in a row, which both are those of the row's first token in a part that has not all of the answer.
    fn question(
        &mut self,
        [question, context]: [&str; 2],
        answer: Option<&Range<usize>>,
        mark: &Mark,
    ) -> Result<(), DataError> {
        let asked = self.tokeniser.encode(question);
        let mut asked = asked.map_err(|error| mark.token_error(question, &error))?;
        asked.truncate(QUESTION_TOKENS_MAX.min((self.reading.length - Frame::AROUND_TWO) / 2));
        let room = self.reading.length - Frame::AROUND_TWO - asked.len();
        let placed = self.tokeniser.encode_with_places(context);
        let (tokens, places) = placed.map_err(|error| mark.token_error(context, &error))?;
        let answer = answer.and_then(|answer| covering(&places, answer));
        for part in windows(tokens.len(), room, self.stride.unwrap_or_else(|| stride_default(room))) {
            let inside = answer.as_ref().filter(|it| it.start >= part.start && it.end <= part.end);
            // [CLS] question [SEP] stand before the part.
            let place = |token: usize| (token - part.start + asked.len() + 2) as u32;
            let (first, last) = inside.map_or((0, 0), |it| (place(it.start), place(it.end - 1)));
            self.writer.push(&asked)?;
            self.writer.end(first);
            self.writer.push(&tokens[part])?;
            self.writer.end(last);
        }
        Ok(())
    }

    /// Writes the tokens of words, and behind them one more than the class of each word at its first token, and 0 at
    /// the others.
    fn tagged(&mut self, words: &[String], tags: &[String], mark: &Mark) -> Result<(), DataError> {
        self.check_vocabulary()?;
        let pieces = self.encoded(words, &vec![mark.clone(); words.len()])?;
        let mut classes = Vec::new();
        for (pieces, tag) in pieces.iter().zip(tags) {
            let first = self.class(tag).map_or(0, |class| class + 1);
            classes.extend((0..pieces.len()).map(|piece| if piece == 0 { first } else { 0 }));
        }
        for tokens in [pieces.concat(), classes] {
            self.writer.push(&tokens)?;
            self.writer.end(0);
        }
        Ok(())
    }
}

enum Kind {
    Text { ends: bool },
    Pair,
    Near { value: u32 },
    Labelled { two: bool, class: u32, classes: Option<Vec<u32>> },
}
