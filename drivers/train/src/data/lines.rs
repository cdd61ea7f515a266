//! Lines of a file, counted, with a bound on their length, and checked to be UTF-8.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use super::error::DataError;
use super::limits::LINE_BYTES_MAX;
use super::record::Mark;

/// What some programs put before UTF-8 to say that it is that; no part of the text.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads lines with their ends.
pub struct Lines {
    path: Arc<Path>,
    file: BufReader<File>,
    line: u64,
}

impl Lines {
    /// Opens a file that must hold something.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is empty.
    pub fn open(path: &Path, wanted: &'static str) -> Result<Lines, DataError> {
        let file = File::open(path).map_err(DataError::io(path))?;
        let about = file.metadata().map_err(DataError::io(path))?;
        if about.is_dir() {
            return Err(DataError::file(path, "is a folder; give a file"));
        }
        if about.is_file() && about.len() == 0 {
            return Err(DataError::Empty { path: path.to_owned(), wanted });
        }
        Ok(Lines { path: path.into(), file: BufReader::with_capacity(1 << 20, file), line: 0 })
    }

    /// The number of the line that was read last, counted from 1.
    pub fn number(&self) -> u64 {
        self.line
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line that was read last.
    pub fn mark(&self) -> Mark {
        Mark::line(&self.path, self.line)
    }

    /// The next line with its end, or none at the end of the file.
    ///
    /// # Errors
    ///
    /// It cannot be read, is too long, or is not UTF-8; with the number of the line and of the byte in it.
    pub fn read(&mut self) -> Result<Option<String>, DataError> {
        let mut bytes = Vec::new();
        let mut bounded = (&mut self.file).take(LINE_BYTES_MAX as u64 + 1);
        let count = bounded.read_until(b'\n', &mut bytes).map_err(DataError::io(&self.path))?;
        if count == 0 {
            return Ok(None);
        }
        self.line += 1;
        if count > LINE_BYTES_MAX {
            let why =
                format!("the line has more than {LINE_BYTES_MAX} bytes, which is the limit; break it up");
            return Err(DataError::line(&self.path, self.line, why));
        }
        if self.line == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        String::from_utf8(bytes).map(Some).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let byte = error.as_bytes()[at];
            let why =
                format!("byte {} of the line, {byte:#04x}, is not UTF-8; convert the file to UTF-8", at + 1);
            DataError::line(&self.path, self.line, why)
        })
    }

    /// The next line without its end.
    ///
    /// # Errors
    ///
    /// Those of [`Lines::read`].
    pub fn read_bare(&mut self) -> Result<Option<String>, DataError> {
        Ok(self.read()?.map(|mut line| {
            if line.ends_with('\n') {
                line.pop();
                if line.ends_with('\r') {
                    line.pop();
                }
            }
            line
        }))
    }
}
