//! Reads a file from front to back within a budget of memory, with a running digest of what was read.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::error::GgufError;
use super::header::{Array, Value};
use super::limits::{ARRAY_ELEMENTS_MAX, HEADER_MEMORY_MAX, STRING_BYTES_MAX};

/// What an entry of a map or list takes beside its text: nodes, capacities, enum tags.
const ENTRY_OVERHEAD: usize = 160;

/// Samples of the weights that go into the fingerprint.
const SAMPLES: u64 = 64;

/// Bytes of each sample.
const SAMPLE_BYTES: u64 = 4096;

/// What the FNV-1a digest begins with.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

type Result<T> = std::result::Result<T, GgufError>;

/// A file that is read from front to back, with its length, the budget that is left, and a running digest.
pub(super) struct Source<R> {
    file: BufReader<R>,
    /// Bytes read so far.
    pub at: u64,
    bytes: u64,
    memory_left: usize,
    digest: u64,
    /// What is being read, for the sentence about a truncated file.
    pub place: String,
}

impl<R: Read + Seek> Source<R> {
    pub fn new(file: R, bytes: u64) -> Self {
        let file = BufReader::with_capacity(64 << 10, file);
        Source {
            file,
            at: 0,
            bytes,
            memory_left: HEADER_MEMORY_MAX,
            digest: FNV_OFFSET,
            place: String::new(),
        }
    }

    /// Promises that so many bytes follow and may be kept, before any of them is allocated.
    fn reserve(&mut self, file_bytes: u64, memory: usize) -> Result<()> {
        if file_bytes > self.bytes - self.at {
            return Err(GgufError::HeaderTruncated { place: self.place.clone(), bytes: self.bytes });
        }
        let left = self.memory_left.checked_sub(memory);
        self.memory_left = left.ok_or(GgufError::OverBudget { limit: HEADER_MEMORY_MAX })?;
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                GgufError::HeaderTruncated { place: self.place.clone(), bytes: self.bytes }
            }
            _ => GgufError::Io(error),
        })?;
        self.at += buffer.len() as u64;
        self.digest = fnv(self.digest, buffer);
        Ok(())
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.reserve(N as u64, 0)?;
        let mut buffer = [0; N];
        self.fill(&mut buffer)?;
        Ok(buffer)
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn count(&mut self, what: &str, limit: u64) -> Result<u64> {
        self.place = what.into();
        let value = self.u64()?;
        if value > limit {
            return Err(GgufError::TooLarge { what: what.into(), value, limit });
        }
        Ok(value)
    }

    pub fn text(&mut self, what: &str, limit: u64) -> Result<String> {
        let bytes = self.text_bytes(what, limit)?;
        String::from_utf8(bytes).map_err(|_| GgufError::NotText { what: what.to_owned() })
    }

    /// A text of metadata. Vocabularies hold pieces of characters now and then, which are replaced.
    fn loose_text(&mut self) -> Result<String> {
        let bytes = self.text_bytes("a metadata text", STRING_BYTES_MAX)?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(error) => self.mend(error.as_bytes()),
        }
    }

    /// Puts replacement characters where bytes are no text, in a buffer of the exact size.
    fn mend(&mut self, bytes: &[u8]) -> Result<String> {
        let width = |chunk: std::str::Utf8Chunk<'_>| {
            let replaced =
                if chunk.invalid().is_empty() { 0 } else { char::REPLACEMENT_CHARACTER.len_utf8() };
            chunk.valid().len() + replaced
        };
        let size = bytes.utf8_chunks().map(width).sum();
        self.reserve(0, size)?;
        let mut text = String::with_capacity(size);
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        Ok(text)
    }

    fn text_bytes(&mut self, what: &str, limit: u64) -> Result<Vec<u8>> {
        let bytes = self.u64()?;
        if bytes > limit {
            return Err(GgufError::TooLarge { what: format!("the length of {what}"), value: bytes, limit });
        }
        self.reserve(bytes, bytes as usize + ENTRY_OVERHEAD)?;
        let mut buffer = vec![0; bytes as usize];
        self.fill(&mut buffer)?;
        Ok(buffer)
    }

    fn bool(&mut self) -> Result<bool> {
        match self.array::<1>()?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(GgufError::Unknown {
                what: format!("a truth value in {}", self.place),
                value: other.into(),
            }),
        }
    }

    pub fn value(&mut self, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::U8(self.array::<1>()?[0]),
            1 => Value::I8(i8::from_le_bytes(self.array()?)),
            2 => Value::U16(u16::from_le_bytes(self.array()?)),
            3 => Value::I16(i16::from_le_bytes(self.array()?)),
            4 => Value::U32(self.u32()?),
            5 => Value::I32(i32::from_le_bytes(self.array()?)),
            6 => Value::F32(f32::from_le_bytes(self.array()?)),
            7 => Value::Bool(self.bool()?),
            8 => Value::Text(self.loose_text()?),
            9 => Value::Array(self.metadata_array()?),
            10 => Value::U64(self.u64()?),
            11 => Value::I64(i64::from_le_bytes(self.array()?)),
            12 => Value::F64(f64::from_le_bytes(self.array()?)),
            other => return Err(self.unknown_kind(other)),
        })
    }

    fn metadata_array(&mut self) -> Result<Array> {
        let kind = self.u32()?;
        let what = format!("the length of the array in {}", self.place);
        let count = self.u64()?;
        if count > ARRAY_ELEMENTS_MAX {
            return Err(GgufError::TooLarge { what, value: count, limit: ARRAY_ELEMENTS_MAX });
        }
        Ok(match kind {
            0 => Array::U8(self.numbers(count, u8::from_le_bytes)?),
            1 => Array::I8(self.numbers(count, i8::from_le_bytes)?),
            2 => Array::U16(self.numbers(count, u16::from_le_bytes)?),
            3 => Array::I16(self.numbers(count, i16::from_le_bytes)?),
            4 => Array::U32(self.numbers(count, u32::from_le_bytes)?),
            5 => Array::I32(self.numbers(count, i32::from_le_bytes)?),
            6 => Array::F32(self.numbers(count, f32::from_le_bytes)?),
            7 => Array::Bool(self.elements(count, 1, Self::bool)?),
            8 => Array::Text(self.elements(count, 8, Self::loose_text)?),
            10 => Array::U64(self.numbers(count, u64::from_le_bytes)?),
            11 => Array::I64(self.numbers(count, i64::from_le_bytes)?),
            12 => Array::F64(self.numbers(count, f64::from_le_bytes)?),
            other => return Err(self.unknown_kind(other)),
        })
    }

    fn unknown_kind(&self, kind: u32) -> GgufError {
        GgufError::Unknown { what: format!("the type of {}", self.place), value: kind.into() }
    }

    fn numbers<T, const N: usize>(&mut self, count: u64, decode: fn([u8; N]) -> T) -> Result<Vec<T>> {
        self.elements(count, N as u64, |source| Ok(decode(source.array()?)))
    }

    /// Reads elements of at least `least` bytes each.
    fn elements<T>(
        &mut self,
        count: u64,
        least: u64,
        each: impl Fn(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.reserve(count * least, count as usize * size_of::<T>())?;
        let mut elements = Vec::with_capacity(count as usize);
        for _ in 0..count {
            elements.push(each(self)?);
        }
        Ok(elements)
    }

    /// The digest of what was read so far, of the length, and of samples from there on.
    pub fn fingerprint(mut self, data_offset: u64) -> Result<u64> {
        let mut digest = fnv(self.digest, &self.bytes.to_le_bytes());
        let stride = (self.bytes.saturating_sub(data_offset) / SAMPLES).max(SAMPLE_BYTES);
        let mut sample = Vec::with_capacity(SAMPLE_BYTES as usize);
        let mut at = data_offset;
        while at < self.bytes {
            sample.clear();
            self.file.seek(SeekFrom::Start(at))?;
            self.file.by_ref().take(SAMPLE_BYTES).read_to_end(&mut sample)?;
            digest = fnv(digest, &sample);
            at += stride;
        }
        Ok(digest)
    }
}

/// The FNV-1a digest, continued.
fn fnv(digest: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(digest, |digest, byte| (digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
