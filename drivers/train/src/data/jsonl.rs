//! JSON lines: an object on each line.

use std::path::Path;

use serde_json::{Map, Value};

use super::error::DataError;
use super::lines::Lines;
use super::record::Mark;

/// An object with the place where it stands.
pub struct Object {
    pub mark: Mark,
    pub fields: Map<String, Value>,
}

impl Object {
    /// A field that holds text. Numbers and booleans count as the text that they are written as.
    ///
    /// # Errors
    ///
    /// There is none of this name, or it holds something else; with the names that there are.
    pub fn text(&self, field: &str) -> Result<String, DataError> {
        match self.fields.get(field) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
            Some(_) => Err(self.bad(format!("its field `{field}` is no text"))),
            None => {
                let names: Vec<&str> = self.fields.keys().map(String::as_str).collect();
                Err(self.bad(format!("has no field `{field}`; it has {}", names.join(", "))))
            }
        }
    }

    /// A field that holds a list of texts. Numbers count as the text that they are written as.
    pub fn list(&self, field: &str) -> Option<Vec<String>> {
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        self.fields.get(field)?.as_array()?.iter().map(text).collect()
    }

    fn bad(&self, why: String) -> DataError {
        self.mark.error(why)
    }
}

/// Reads the objects of a file.
pub fn read(path: &Path) -> Result<impl Iterator<Item = Result<Object, DataError>> + use<>, DataError> {
    Ok(Objects { lines: Lines::open(path, "a JSON object on each line")?, failed: false })
}

struct Objects {
    lines: Lines,
    failed: bool,
}

impl Objects {
    fn object(&mut self) -> Result<Option<Object>, DataError> {
        loop {
            let Some(line) = self.lines.read_bare()? else { return Ok(None) };
            if line.trim().is_empty() {
                continue;
            }
            let mark = self.lines.mark();
            let value = serde_json::from_str(&line).map_err(|error| {
                mark.error(format!("broken JSON at column {}: {}", error.column(), without_place(&error)))
            })?;
            return match value {
                Value::Object(fields) => Ok(Some(Object { mark, fields })),
                _ => Err(mark.error("it is JSON but no object; begin it with `{`")),
            };
        }
    }
}

/// The sentence of a JSON error without its own line, which is always 1 here.
fn without_place(error: &serde_json::Error) -> String {
    let sentence = error.to_string();
    sentence.split(" at line ").next().unwrap_or(&sentence).to_owned()
}

impl Iterator for Objects {
    type Item = Result<Object, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let object = self.object().transpose();
        self.failed = matches!(object, Some(Err(_)));
        object
    }
}
