//! Prompts and grammars from standard input and files: whole, UTF-8, and not longer than a request may be.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use syscalls::limits::LINE_BYTES_MAX;

use super::super::failure::{Failure, unreadable};

/// The text itself, or all of standard input where the text is `-`.
///
/// # Errors
///
/// Standard input cannot be read, is not UTF-8, or is longer than a request may be.
pub fn read(text: &str) -> Result<String, Failure> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let mut bytes = Vec::new();
    bounded(&mut io::stdin().lock(), LINE_BYTES_MAX, &mut bytes)
        .map_err(|error| unreadable(Path::new("standard input"), &error))?;
    decode("standard input", bytes, LINE_BYTES_MAX)
}

/// A file of at most so many bytes.
///
/// # Errors
///
/// The file cannot be read, is not UTF-8, or is longer.
pub fn read_bounded(path: &Path, bytes_max: usize) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| bounded(&mut file, bytes_max, &mut bytes))
        .map_err(|error| unreadable(path, &error))?;
    decode(&path.display().to_string(), bytes, bytes_max)
}

/// Reads one byte more than is allowed, so that too long a file is seen and no file fills the memory.
fn bounded(from: &mut impl Read, bytes_max: usize, into: &mut Vec<u8>) -> io::Result<()> {
    from.take(bytes_max as u64 + 1).read_to_end(into).map(drop)
}

fn decode(name: &str, bytes: Vec<u8>, bytes_max: usize) -> Result<String, Failure> {
    if bytes.len() > bytes_max {
        return Err(Failure::Message(format!("{name} is longer than {bytes_max} bytes; give a part of it")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::Message(format!("{name} is not UTF-8 from byte {at} on; convert it first, as with iconv"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_too_long_names_the_limit() {
        let mut bytes = Vec::new();
        bounded(&mut io::repeat(b'a'), 9, &mut bytes).expect("memory can be read");
        let error = decode("x", bytes, 9).expect_err("10 bytes are one too many");
        assert_eq!(error.to_string(), "x is longer than 9 bytes; give a part of it");
    }

    #[test]
    fn text_not_utf8_names_the_byte() {
        let error = decode("x", b"ab\xff".to_vec(), 9).expect_err("0xff is never UTF-8");
        assert!(error.to_string().contains("byte 2"), "{error}");
    }
}
