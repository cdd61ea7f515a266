//! Numbers of bytes as people write them.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// Units and their sizes: those of memory in powers of two, those of disks in powers of ten.
const UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A number of bytes, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Reads `8GiB`, `1.5 GiB`, `500 MB` or a plain number.
    ///
    /// # Errors
    ///
    /// A sentence that names what was given.
    pub fn parse(text: &str) -> Result<Bytes, String> {
        let wrong =
            || format!("`{text}` is no size; give a number with KiB, MiB, GiB, TiB, MB, GB or TB, as 8GiB");
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = (&text[..end], text[end..].trim());
        let (_, size) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?;
        let bytes = match number.parse::<u64>() {
            Ok(whole) => whole.checked_mul(*size).ok_or_else(wrong)?,
            // A float is exact enough for what has a decimal point.
            Err(_) => (number.parse::<f64>().map_err(|_| wrong())? * *size as f64) as u64,
        };
        if bytes == 0 { Err(wrong()) } else { Ok(Bytes(bytes)) }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// Takes a number, or a text with a unit.
struct Reader;

impl Visitor<'_> for Reader {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a size, such as \"8GiB\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
        Bytes::parse(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Bytes, E> {
        Bytes::parse(&bytes.to_string()).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        let read = |text: &str| Bytes::parse(text).map(|b| b.0);
        assert_eq!(read("4096"), Ok(4096));
        assert_eq!(read("8GiB"), Ok(8 << 30));
        assert_eq!(read("1.5 gib"), Ok(3 << 29));
        assert_eq!(read("2 MB"), Ok(2_000_000));
        for wrong in ["", "0", "GiB", "8 G", "-1", "1e99 TiB", "99999999999 TiB", "1.2.3"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
