//! Texts from files and standard input, whole and checked: an application works on UTF-8 text or says what is
//! wrong with the input.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

/// The largest input, in bytes: some 20 times War and Peace.
pub const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

/// A text and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The file as it was named, or `standard input`.
    pub name: String,
    /// The text, without a byte order mark.
    pub text: String,
}

/// Why an input is no text to work on.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It cannot be read.
    #[error("{name}: {}", reason(.error))]
    Unreadable {
        /// The input.
        name: String,
        /// The system's reason.
        error: io::Error,
    },
    /// It is a folder.
    #[error("{0} is a folder; name the files in it")]
    Folder(String),
    /// Nothing is in it.
    #[error("{0} is empty; give a text")]
    Empty(String),
    /// It is longer than [`DOCUMENT_BYTES_MAX`].
    #[error("{0} is longer than {DOCUMENT_BYTES_MAX} bytes; split it into several")]
    TooLong(String),
    /// It has bytes that no text has.
    #[error("{name} is no text: byte {offset} is zero; convert it to plain text first")]
    Binary {
        /// The input.
        name: String,
        /// Where the first such byte stands.
        offset: usize,
    },
    /// It is text in another encoding.
    #[error("{0} is in UTF-16; convert it with `iconv -f utf-16 -t utf-8`")]
    Utf16(String),
    /// It is no UTF-8.
    #[error(
        "{name} is not UTF-8 from byte {offset} on (line {line}); convert it, for example with `iconv -f latin1 -t utf-8`"
    )]
    NotUtf8 {
        /// The input.
        name: String,
        /// Where the first wrong byte stands, from 0.
        offset: usize,
        /// The line that it stands in, from 1.
        line: usize,
    },
}

/// Reads the files in their order; standard input where none is named, or for `-`.
///
/// # Errors
///
/// The first input that is no text.
pub fn read_all(files: &[PathBuf], program: &str) -> Result<Vec<Document>, DocumentError> {
    if files.is_empty() {
        return Ok(vec![read_stdin(program)?]);
    }
    files
        .iter()
        .map(|file| if file.as_os_str() == "-" { read_stdin(program) } else { read_file(file) })
        .collect()
}

fn read_stdin(program: &str) -> Result<Document, DocumentError> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        note!("{program}: reading from the keyboard; end the text with Ctrl-D on a line of its own");
    }
    read("standard input", stdin.lock())
}

/// Reads one file.
///
/// # Errors
///
/// It is no text.
pub fn read_file(path: &Path) -> Result<Document, DocumentError> {
    let name = path.display().to_string();
    let unreadable = |error| DocumentError::Unreadable { name: name.clone(), error };
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(DocumentError::Folder(name));
    }
    read(&name, file)
}

fn read(name: &str, source: impl Read) -> Result<Document, DocumentError> {
    let mut bytes = Vec::new();
    source
        .take(DOCUMENT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| DocumentError::Unreadable { name: name.into(), error })?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(DocumentError::TooLong(name.into()));
    }
    Ok(Document { name: name.into(), text: decode(name, bytes)? })
}

fn decode(name: &str, bytes: Vec<u8>) -> Result<String, DocumentError> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(DocumentError::Utf16(name.into()));
    }
    if let Some(offset) = bytes.iter().position(|&b| b == 0) {
        return Err(DocumentError::Binary { name: name.into(), offset });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..offset].iter().filter(|&&b| b == b'\n').count();
        DocumentError::NotUtf8 { name: name.into(), offset, line }
    })?;
    let text = match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    };
    if text.trim().is_empty() {
        return Err(DocumentError::Empty(name.into()));
    }
    Ok(text)
}

/// The system's reason without the number that Rust adds.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => "this user may not read it".into(),
        io::ErrorKind::IsADirectory => "is a folder; name the files in it".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expect: &str) {
        let shown = match read("in.txt", bytes) {
            Ok(document) => document.text,
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(shown, expect);
    }

    #[test]
    fn text_is_read_without_its_byte_order_mark() {
        check("Grüße\n".as_bytes(), "Grüße\n");
        check("\u{feff}Grüße".as_bytes(), "Grüße");
    }

    #[test]
    fn input_that_is_no_text_is_named_with_the_offset() {
        check(
            b"one\ntwo \xe4rger",
            "error: in.txt is not UTF-8 from byte 8 on (line 2); convert it, for example with `iconv -f latin1 -t utf-8`",
        );
        check(b"GGUF\x03\0", "error: in.txt is no text: byte 5 is zero; convert it to plain text first");
        check(b"\xff\xfea\0", "error: in.txt is in UTF-16; convert it with `iconv -f utf-16 -t utf-8`");
    }

    #[test]
    fn input_of_nothing_is_empty() {
        check(b"", "error: in.txt is empty; give a text");
        check(b" \n\t\n", "error: in.txt is empty; give a text");
        check("\u{feff}".as_bytes(), "error: in.txt is empty; give a text");
    }

    #[test]
    fn input_too_long_names_the_limit() {
        let endless = io::repeat(b'a');
        let error = read("big", endless).expect_err("too long").to_string();
        assert_eq!(error, "big is longer than 67108864 bytes; split it into several");
    }

    #[test]
    fn folders_and_missing_files_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = read_file(folder.path()).expect_err("a folder").to_string();
        assert!(error.ends_with("is a folder; name the files in it"), "{error}");
        let error = read_file(&folder.path().join("none")).expect_err("nothing").to_string();
        assert!(error.ends_with("none: there is no such file"), "{error}");
    }
}
