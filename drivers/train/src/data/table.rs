//! Tables: tab-separated lines, comma-separated ones with quotes, and JSON lines, by the ending of the name.
//!
//! A column is named by its number, from 0 on, or by its name in the first line or the object. Where any column is
//! named, the first line is a heading.

use std::path::Path;

use super::error::DataError;
use super::lines::Lines;
use super::{jsonl, labels};

/// One row's wanted columns.
pub type Row = Vec<String>;

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
            wanted.iter().map(cell).collect()
        }))),
        Some("csv") => delimited(path, wanted, b','),
        _ => delimited(path, wanted, b'\t'),
    }
}

fn delimited(path: &Path, wanted: Vec<String>, delimiter: u8) -> Result<Rowwise, DataError> {
    let mut rows = Rows { lines: Lines::open(path, "rows")?, delimiter, wanted: Vec::new(), failed: false };
    let numbers: Option<Vec<usize>> = wanted.iter().map(|column| column.parse().ok()).collect();
    rows.wanted = match numbers {
        Some(numbers) => numbers,
        None => {
            let heading = rows.cells()?.unwrap_or_default();
            let find = |column: &String| {
                heading.iter().position(|name| name == column).ok_or_else(|| {
                    let why = format!("its heading has no column `{column}`; it has {}", heading.join(", "));
                    DataError::line(path, 1, why)
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
    failed: bool,
}

impl Rows {
    /// The cells of the next line that is not blank. A quoted cell of a comma-separated table may hold line ends.
    fn cells(&mut self) -> Result<Option<Vec<String>>, DataError> {
        let mut line = loop {
            match self.lines.read_bare()? {
                Some(line) if line.trim().is_empty() => {}
                Some(line) => break line,
                None => return Ok(None),
            }
        };
        if self.delimiter == b'\t' {
            return Ok(Some(line.split('\t').map(str::to_owned).collect()));
        }
        let begins = self.lines.number();
        loop {
            match quoted_cells(&line) {
                Some(cells) => return Ok(Some(cells)),
                None => match self.lines.read_bare()? {
                    Some(more) => {
                        line.push('\n');
                        line.push_str(&more);
                    }
                    None => {
                        let why = "a quoted cell begins here and never ends; close it with `\"`";
                        return Err(DataError::line(self.lines.path(), begins, why));
                    }
                },
            }
        }
    }

    fn row(&mut self) -> Result<Option<Row>, DataError> {
        let Some(mut cells) = self.cells()? else { return Ok(None) };
        let take = |at: &usize| {
            let count = cells.len();
            cells.get_mut(*at).map(|cell| cell.clone()).ok_or_else(|| {
                let why = format!("the row has {count} columns, and column {at} is wanted, counted from 0");
                DataError::line(self.lines.path(), self.lines.number(), why)
            })
        };
        self.wanted.iter().map(take).collect::<Result<Row, _>>().map(Some)
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

/// The cells of a comma-separated line (RFC 4180), or none if a quoted one goes on.
fn quoted_cells(line: &str) -> Option<Vec<String>> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let cell = cells.last_mut().expect("there is always one");
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if cell.is_empty() => quoted = true,
            ',' if !quoted => cells.push(String::new()),
            _ => cell.push(character),
        }
    }
    (!quoted).then_some(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_commas_and_quotes() {
        assert_eq!(quoted_cells("a,b,,c").map(|cells| cells.len()), Some(4));
        let cells = quoted_cells("1,\"a, \"\"b\"\"\",x").expect("it is closed");
        assert_eq!(cells, ["1", "a, \"b\"", "x"]);
        assert_eq!(quoted_cells("1,\"a"), None);
    }
}
