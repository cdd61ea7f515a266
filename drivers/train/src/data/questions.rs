//! Questions whose answers stand in a text, in the forms of SQuAD: its own file, or an object on each line.
//!
//! ```text
//! {"data": [{"paragraphs": [{"context": "…", "qas": [{"question": "…", "answers": [{"text": "…", "answer_start": 7}]}]}]}]}
//! {"context": "…", "question": "…", "answers": {"text": ["…"], "answer_start": [7]}}
//! ```
//!
//! Of several answers the first is learned. A question without one has its answer nowhere in the text.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::DataError;
use super::jsonl;
use super::limits::QUESTIONS_BYTES_MAX;
use super::lines::BYTE_ORDER_MARK;
use super::record::{Mark, Record, Records};

/// SQuAD's own file, as far as it is read. Questions stay as they are written, which says on which line they stand.
#[derive(Deserialize)]
struct Whole<'t> {
    #[serde(borrow)]
    data: Vec<Article<'t>>,
}

#[derive(Deserialize)]
struct Article<'t> {
    #[serde(borrow, default)]
    paragraphs: Vec<Paragraph<'t>>,
}

#[derive(Deserialize)]
struct Paragraph<'t> {
    context: Option<String>,
    #[serde(borrow, default)]
    qas: Vec<&'t RawValue>,
}

/// Reads the questions of a file.
pub fn read(path: &Path) -> Result<Records, DataError> {
    if let Some(text) = one_object(path)? {
        return nested(path, &text);
    }
    Ok(Box::new(jsonl::read(path)?.map(move |object| {
        let object = object?;
        let (question, context) = (object.text("question")?, object.text("context")?);
        let answer = answer(&object.fields, &context).map_err(|why| object.mark.error(why))?;
        Ok(Record::Question { question, context, answer }.at(object.mark))
    })))
}

/// The text of a file that is one object with `data`.
fn one_object(path: &Path) -> Result<Option<String>, DataError> {
    let bytes = std::fs::metadata(path).map_err(DataError::io(path))?.len();
    if path.extension().is_none_or(|ending| ending != "json") {
        return Ok(None);
    }
    if bytes > QUESTIONS_BYTES_MAX {
        let why = format!(
            "has {bytes} bytes, and such a file may have {QUESTIONS_BYTES_MAX}; write an object on each line of a .jsonl"
        );
        return Err(DataError::file(path, why));
    }
    #[derive(Deserialize)]
    struct Top<'t> {
        #[serde(borrow, rename = "data")]
        _data: &'t RawValue,
    }
    let mut text = std::fs::read(path).map_err(DataError::io(path))?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len());
    }
    // What is no single object is read line by line, which says where it is broken.
    let text = String::from_utf8(text).ok();
    Ok(text.filter(|text| serde_json::from_str::<Top<'_>>(text).is_ok()))
}

fn nested(path: &Path, text: &str) -> Result<Records, DataError> {
    let whole: Whole<'_> = serde_json::from_str(text)
        .map_err(|error| DataError::line(path, error.line() as u64, error.to_string()))?;
    let file: Arc<Path> = path.into();
    let (mut found, mut line, mut before) = (Vec::new(), 1, 0);
    for paragraph in whole.data.iter().flat_map(|article| &article.paragraphs) {
        for asked in &paragraph.qas {
            let at = asked.get().as_ptr() as usize - text.as_ptr() as usize;
            line += text.as_bytes()[before..at].iter().filter(|byte| **byte == b'\n').count() as u64;
            before = at;
            let mark = Mark::line(&file, line);
            let record =
                question(asked.get(), paragraph.context.as_deref()).map_err(|why| mark.error(why))?;
            found.push(Ok(record.at(mark)));
        }
    }
    Ok(Box::new(found.into_iter()))
}

/// One question of SQuAD's own file; what is wrong with it is told with its id.
fn question(text: &str, context: Option<&str>) -> Result<Record, String> {
    let fields: Map<String, Value> = serde_json::from_str(text).map_err(|_| "a question is no object")?;
    let name = fields.get("id").and_then(Value::as_str).map_or_else(String::new, |id| format!(" {id}"));
    let asked = fields.get("question").and_then(Value::as_str);
    let (Some(question), Some(context)) = (asked, context) else {
        return Err(format!("question{name}: it has no `question`, or its paragraph no `context`"));
    };
    let answer = answer(&fields, context).map_err(|why| format!("question{name}: {why}"))?;
    Ok(Record::Question { question: question.into(), context: context.into(), answer })
}

/// Where the first answer stands in the text, in bytes.
fn answer(fields: &Map<String, Value>, context: &str) -> Result<Option<Range<usize>>, String> {
    if fields.get("is_impossible") == Some(&Value::Bool(true)) {
        return Ok(None);
    }
    let first = match fields.get("answers") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(answers)) => {
            answers.first().map(|answer| (&answer["text"], &answer["answer_start"]))
        }
        Some(answers @ Value::Object(_)) => {
            let texts = answers["text"].as_array();
            texts.filter(|texts| !texts.is_empty()).map(|texts| (&texts[0], &answers["answer_start"][0]))
        }
        Some(_) => return Err("its `answers` are neither a list nor an object".into()),
    };
    let Some((text, start)) = first else { return Ok(None) };
    let (Some(text), Some(start)) = (text.as_str(), start.as_u64()) else {
        return Err("an answer needs `text` and, in characters, `answer_start`".into());
    };
    let place = context.char_indices().map(|(at, _)| at).nth(start as usize);
    match place.filter(|at| !text.is_empty() && context[*at..].starts_with(text)) {
        Some(at) => Ok(Some(at..at + text.len())),
        None => Err(format!("its answer {text:?} does not stand in the context at character {start}")),
    }
}
