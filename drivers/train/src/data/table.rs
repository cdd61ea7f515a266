//! Tables: tab-separated lines, comma-separated ones with quotes, and JSON lines, by the ending of the name.
//!
//! A column is named by its number, from 0 on, or by its name in the first line or the object. Where any column is
//! named, the first line is a heading.

use std::path::Path;

use super::error::DataError;
use super::limits::ROW_BYTES_MAX;
use super::lines::Lines;
use super::record::Mark;
use super::{jsonl, labels};

/// One row's wanted columns, and where the row stands.
pub type Row = (Vec<String>, Mark);

/// Reads the wanted columns of a table.
pub fn read(path: &Path, columns: &[String]) -> Result<Rowwise, DataError> {
    read_with_list(path, columns, "")
}

/// Rows as they come from a table.
pub type Rowwise = Box<dyn Iterator<Item = Result<Row, DataError>> + Send>;

/// The same, where column `list` of JSON lines may hold lists, which become [one text](super::labels::split) each.
pub fn read_with_list(path: &Path, columns: &[String], list: &str) -> Result<Rowwise, DataError> {
    let (wanted, list) = (columns.to_vec(), list.to_owned());
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("jsonl" | "json" | "ndjson") => Ok(Box::new(jsonl::read(path)?.map(move |object| {
            let object = object?;
            let cell = |column: &String| match object.list(column).filter(|_| *column == list) {
                Some(items) => Ok(labels::join(items.iter().map(String::as_str))),
                None => object.text(column),
            };
            let cells = wanted.iter().map(cell).collect::<Result<_, _>>()?;
            Ok((cells, object.mark))
        }))),
        Some("csv") => delimited(path, wanted, b','),
        _ => delimited(path, wanted, b'\t'),
    }
}

fn delimited(path: &Path, wanted: Vec<String>, delimiter: u8) -> Result<Rowwise, DataError> {
    let mut rows = Rows {
        lines: Lines::open(path, "rows")?,
        delimiter,
        wanted: Vec::new(),
        bytes_max: ROW_BYTES_MAX,
        failed: false,
    };
    let numbers: Option<Vec<usize>> = wanted.iter().map(|column| column.parse().ok()).collect();
    rows.wanted = match numbers {
        Some(numbers) => numbers,
        None => {
            let Some((heading, mark)) = rows.cells()? else {
                return Err(DataError::file(path, "has no heading and no rows"));
            };
            let find = |column: &String| {
                heading.iter().position(|name| name == column).ok_or_else(|| {
                    mark.error(format!("its heading has no column `{column}`; it has {}", heading.join(", ")))
                })
            };
            wanted.iter().map(find).collect::<Result<_, _>>()?
        }
    };
    Ok(Box::new(rows))
}

struct Rows {
    lines: Lines,
    delimiter: u8,
    wanted: Vec<usize>,
    bytes_max: usize,
    failed: bool,
}

impl Rows {
    /// The cells of the next line that is not blank. A quoted cell of a comma-separated table may hold line ends.
    fn cells(&mut self) -> Result<Option<Row>, DataError> {
        let line = loop {
            match self.lines.read_bare()? {
                Some(line) if line.trim().is_empty() => {}
                Some(line) => break line,
                None => return Ok(None),
            }
        };
        let mark = self.lines.mark();
        if self.delimiter == b'\t' {
            return Ok(Some((line.split('\t').map(str::to_owned).collect(), mark)));
        }
        let (mut cells, mut bytes, mut quoted_since) = (Cells::default(), line.len(), mark.clone());
        cells.read(&line);
        while cells.quoted {
            if bytes > self.bytes_max {
                let most = self.bytes_max;
                let why = format!(
                    "a quoted cell begins here and goes on for more than {most} bytes, which is the limit of a row; close \
                     it with `\"`"
                );
                return Err(quoted_since.error(why));
            }
            let Some(more) = self.lines.read_bare()? else {
                return Err(
                    quoted_since.error("a quoted cell begins here and never ends; close it with `\"`")
                );
            };
            bytes += 1 + more.len();
            cells.put('\n');
            let ended = cells.read(&more);
            if ended {
                quoted_since = self.lines.mark();
            }
        }
        Ok(Some((cells.done, mark)))
    }

    fn row(&mut self) -> Result<Option<Row>, DataError> {
        let Some((cells, mark)) = self.cells()? else { return Ok(None) };
        let take = |at: &usize| {
            cells.get(*at).cloned().ok_or_else(|| {
                let count = cells.len();
                mark.error(format!("the row has {count} columns, and column {at} is wanted, counted from 0"))
            })
        };
        let row = self.wanted.iter().map(take).collect::<Result<Vec<_>, _>>()?;
        Ok(Some((row, mark)))
    }
}

impl Iterator for Rows {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.row().transpose();
        self.failed = matches!(row, Some(Err(_)));
        row
    }
}

/// The cells of a comma-separated row (RFC 4180), which is read line by line.
struct Cells {
    done: Vec<String>,
    /// Whether the last cell is quoted, and goes on.
    quoted: bool,
}

impl Default for Cells {
    fn default() -> Cells {
        Cells { done: vec![String::new()], quoted: false }
    }
}

impl Cells {
    fn put(&mut self, character: char) {
        self.done.last_mut().expect("there is always one").push(character);
    }

    /// Reads a line, and says whether a quoted cell ended in it.
    fn read(&mut self, line: &str) -> bool {
        let mut ended = false;
        let mut characters = line.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '"' if self.quoted && characters.peek() == Some(&'"') => {
                    characters.next();
                    self.put('"');
                }
                '"' if self.quoted => (self.quoted, ended) = (false, true),
                '"' if self.done.last().is_some_and(String::is_empty) => self.quoted = true,
                ',' if !self.quoted => self.done.push(String::new()),
                _ => self.put(character),
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cells(lines: &[&str]) -> (Vec<String>, bool) {
        let mut cells = Cells::default();
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                cells.put('\n');
            }
            cells.read(line);
        }
        (cells.done, cells.quoted)
    }

    #[test]
    fn quotes_hold_commas_quotes_and_line_ends() {
        assert_eq!(cells(&["a,b,,c"]).0.len(), 4);
        assert_eq!(cells(&["1,\"a, \"\"b\"\"\",x"]).0, ["1", "a, \"b\"", "x"]);
        assert_eq!(cells(&["1,\"a"]), (vec!["1".into(), "a".into()], true));
        assert_eq!(cells(&["1,\"a", "", "b\",c"]), (vec!["1".into(), "a\n\nb".into(), "c".into()], false));
    }

    fn table(text: &str, bytes_max: usize) -> Result<Vec<Row>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, text).unwrap();
        let lines = Lines::open(&path, "rows").unwrap();
        Rows { lines, delimiter: b',', wanted: vec![0, 1], bytes_max, failed: false }.collect()
    }

    #[test]
    fn quote_that_is_never_closed_is_read_once_and_named_by_its_line() {
        let stray = |lines: usize| format!("a,b\nc,\"d\n{}", "e,f\n".repeat(lines));
        // Where each line would read all before it again, this would not end for hours.
        let error = table(&stray(1 << 20), ROW_BYTES_MAX).unwrap_err().to_string();
        assert!(error.contains("a.csv:2: a quoted cell begins here and never ends"), "{error}");
        let error = table(&stray(1000), 100).unwrap_err().to_string();
        assert!(error.contains("a.csv:2: ") && error.contains("more than 100 bytes"), "{error}");
        let error = table("a,\"b\nc\",\"d\ne,f\n", ROW_BYTES_MAX).unwrap_err().to_string();
        assert!(error.contains("a.csv:2: a quoted cell begins here"), "{error}");
    }

    #[test]
    fn row_stands_at_its_first_line() {
        let rows = table("a,\"b\nc\"\n\nd,e\n", ROW_BYTES_MAX).unwrap();
        let lines: Vec<String> = rows.iter().map(|(_, mark)| mark.error("").to_string()).collect();
        assert!(lines[0].ends_with("a.csv:1: ") && lines[1].ends_with("a.csv:4: "), "{lines:?}");
        assert_eq!(rows[0].0, ["a", "b\nc"]);
    }
}
