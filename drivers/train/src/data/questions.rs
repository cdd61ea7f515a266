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

use serde_json::{Map, Value};

use super::error::DataError;
use super::jsonl;
use super::limits::QUESTIONS_BYTES_MAX;
use super::record::{Record, Records};

/// Reads the questions of a file.
pub fn read(path: &Path) -> Result<Records, DataError> {
    if let Some(tree) = whole(path)? {
        return nested(path, &tree);
    }
    let file = path.to_owned();
    Ok(Box::new(jsonl::read(path)?.map(move |object| {
        let object = object?;
        let (question, context) = (object.text("question")?, object.text("context")?);
        let answer = answer(&object.fields, &context);
        let answer = answer.map_err(|why| DataError::line(&file, object.line, why))?;
        Ok(Record::Question { question, context, answer })
    })))
}

/// The file as one object with `data`, where it is one.
fn whole(path: &Path) -> Result<Option<Value>, DataError> {
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
    let text = std::fs::read(path).map_err(DataError::io(path))?;
    // What is no single object is read line by line, which says where it is broken.
    Ok(serde_json::from_slice::<Value>(&text).ok().filter(|tree| tree["data"].is_array()))
}

fn nested(path: &Path, tree: &Value) -> Result<Records, DataError> {
    fn list(value: &Value) -> &[Value] {
        value.as_array().map_or(&[], Vec::as_slice)
    }
    let mut found = Vec::new();
    for paragraph in list(&tree["data"]).iter().flat_map(|article| list(&article["paragraphs"])) {
        for asked in list(&paragraph["qas"]) {
            let name = asked["id"].as_str().map_or_else(|| format!("number {}", found.len()), str::to_owned);
            let bad = |why: &str| DataError::file(path, format!("question {name}: {why}"));
            let (Some(question), Some(context), Some(fields)) =
                (asked["question"].as_str(), paragraph["context"].as_str(), asked.as_object())
            else {
                return Err(bad("it has no `question`, or its paragraph no `context`"));
            };
            let answer = answer(fields, context).map_err(|why| bad(&why))?;
            found.push(Ok(Record::Question { question: question.into(), context: context.into(), answer }));
        }
    }
    Ok(Box::new(found.into_iter()))
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
