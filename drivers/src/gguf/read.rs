//! Reads a header, believing nothing that it says before it is checked against a limit and the file's length.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::error::GgufError;
use super::header::{Array, Header, Value};
use super::limits::{
    ALIGNMENT_DEFAULT, ALIGNMENT_MAX, ARRAY_ELEMENTS_MAX, DIMENSIONS_MAX, HEADER_MEMORY_MAX, KEY_BYTES_MAX,
    METADATA_MAX, STRING_BYTES_MAX, TENSOR_NAME_BYTES_MAX, TENSORS_MAX,
};
use super::runnable::check_runnable;
use super::tensor::{TensorInfo, TensorType, tensor_bytes};
use crate::wire::DriverFault;

/// What an entry of a map or list takes beside its text: nodes, capacities, enum tags.
const ENTRY_OVERHEAD: usize = 160;

/// Samples of the weights that go into the fingerprint.
const SAMPLES: u64 = 64;

/// Bytes of each sample.
const SAMPLE_BYTES: u64 = 4096;

type Result<T> = std::result::Result<T, GgufError>;

/// Opens a model file, reads its header, and checks that llama.cpp can run it.
///
/// # Errors
///
/// ENOENT, EACCES or EIO where the file cannot be read, ENOEXEC where it is no model that can run. The sentence
/// begins with the path.
pub fn open(path: &Path) -> std::result::Result<Header, DriverFault> {
    let header = open_file(path).map_err(|error| error.into_fault(path))?;
    check_runnable(&header).map_err(|error| error.into_fault(path))?;
    Ok(header)
}

fn open_file(path: &Path) -> Result<Header> {
    let about = std::fs::metadata(path)?;
    if !about.is_file() {
        let kind = if about.is_dir() { "a directory" } else { "no regular file" };
        return Err(GgufError::NotRunnable(format!("it is {kind}; give a .gguf file")));
    }
    read(File::open(path)?, about.len())
}

/// Reads the header of a file of `bytes` bytes and checks everything but whether the model can run.
///
/// # Errors
///
/// The first offence that the file commits.
pub fn read<R: Read + Seek>(file: R, bytes: u64) -> Result<Header> {
    let mut source = Source::new(file, bytes);
    let version = read_version(&mut source)?;
    let tensor_count = source.count("the number of tensors", TENSORS_MAX)?;
    let entry_count = source.count("the number of metadata entries", METADATA_MAX)?;
    let metadata = read_metadata(&mut source, entry_count)?;
    let alignment = alignment(&metadata)?;
    let tensors = read_tensors(&mut source, tensor_count, alignment)?;
    let data_offset = source.at.next_multiple_of(alignment);
    check_within_file(&tensors, data_offset, bytes)?;
    let architecture = match metadata.get("general.architecture") {
        Some(Value::Text(name)) => name.clone(),
        _ => {
            return Err(GgufError::NotRunnable(
                "it does not name its architecture: convert the model again".into(),
            ));
        }
    };
    let fingerprint = source.fingerprint(data_offset)?;
    Ok(Header { version, architecture, metadata, tensors, data_offset, bytes, fingerprint })
}

fn read_version<R: Read + Seek>(source: &mut Source<R>) -> Result<u32> {
    source.place = "the magic number".into();
    let magic = source.array::<4>().map_err(|error| match error {
        GgufError::HeaderTruncated { bytes, .. } => {
            GgufError::Magic { found: format!("{bytes} bytes in all") }
        }
        other => other,
    })?;
    if &magic != b"GGUF" {
        return Err(GgufError::Magic { found: format!("\"{}\"", magic.escape_ascii()) });
    }
    source.place = "the version".into();
    match u32::from_le_bytes(source.array()?) {
        version @ 2..=3 => Ok(version),
        version if version & 0xffff == 0 && version != 0 => Err(GgufError::BigEndian),
        version => Err(GgufError::Version { version }),
    }
}

fn read_metadata<R: Read + Seek>(source: &mut Source<R>, count: u64) -> Result<BTreeMap<String, Value>> {
    let mut metadata = BTreeMap::new();
    for number in 0..count {
        source.place = format!("metadata entry {number}");
        let key = source.text("a metadata key", KEY_BYTES_MAX)?;
        source.place = format!("metadata entry `{key}`");
        let kind = source.u32()?;
        let value = source.value(kind)?;
        if metadata.contains_key(&key) {
            return Err(GgufError::Duplicate { what: "metadata entry", name: key });
        }
        metadata.insert(key, value);
    }
    Ok(metadata)
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64> {
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT_DEFAULT,
        Some(Value::U32(alignment)) => *alignment,
        Some(_) => return Err(GgufError::NotRunnable("its `general.alignment` is no 32-bit number".into())),
    };
    if !alignment.is_power_of_two() || alignment > ALIGNMENT_MAX {
        return Err(GgufError::Unknown { what: "its alignment".into(), value: alignment.into() });
    }
    Ok(alignment.into())
}

fn read_tensors<R: Read + Seek>(
    source: &mut Source<R>,
    count: u64,
    alignment: u64,
) -> Result<Vec<TensorInfo>> {
    let mut tensors = Vec::new();
    let mut expected = 0u64;
    for number in 0..count {
        source.place = format!("the entry of tensor {number}");
        let tensor = read_tensor(source)?;
        if tensor.offset != expected {
            let offence =
                format!("begins at byte {} of the weights, where {expected} must stand", tensor.offset);
            return Err(GgufError::Tensor { tensor: tensor.name, offence });
        }
        let end = expected.checked_add(tensor.bytes).and_then(|end| end.checked_next_multiple_of(alignment));
        expected = end.ok_or_else(|| GgufError::Tensor {
            tensor: tensor.name.clone(),
            offence: "ends beyond what a file can hold".into(),
        })?;
        tensors.push(tensor);
    }
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(GgufError::Duplicate { what: "tensor", name: pair[0].to_owned() }),
        None => Ok(tensors),
    }
}

fn read_tensor<R: Read + Seek>(source: &mut Source<R>) -> Result<TensorInfo> {
    let name = source.text("a tensor's name", TENSOR_NAME_BYTES_MAX)?;
    source.place = format!("the entry of tensor `{name}`");
    let count = source.u32()?;
    if count > DIMENSIONS_MAX {
        return Err(GgufError::TooLarge {
            what: format!("the number of dimensions of tensor `{name}`"),
            value: count.into(),
            limit: DIMENSIONS_MAX.into(),
        });
    }
    let dimensions = (0..count).map(|_| source.u64()).collect::<Result<Vec<_>>>()?;
    let id = source.u32()?;
    let kind = TensorType::from_id(id).ok_or_else(|| GgufError::Unknown {
        what: format!("the type of tensor `{name}`"),
        value: id.into(),
    })?;
    let offset = source.u64()?;
    match tensor_bytes(&dimensions, kind) {
        Ok(bytes) => Ok(TensorInfo { name, dimensions, kind, offset, bytes }),
        Err(offence) => Err(GgufError::Tensor { tensor: name, offence }),
    }
}

fn check_within_file(tensors: &[TensorInfo], data_offset: u64, bytes: u64) -> Result<()> {
    for tensor in tensors {
        let from = data_offset.saturating_add(tensor.offset);
        let to = from.saturating_add(tensor.bytes);
        if to > bytes {
            return Err(GgufError::DataTruncated { tensor: tensor.name.clone(), from, to, bytes });
        }
    }
    Ok(())
}

/// A file that is read from front to back, with its length, the budget that is left, and a running digest.
struct Source<R> {
    file: BufReader<R>,
    at: u64,
    bytes: u64,
    memory_left: usize,
    digest: u64,
    /// What is being read, for the sentence about a truncated file.
    place: String,
}

impl<R: Read + Seek> Source<R> {
    fn new(file: R, bytes: u64) -> Self {
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

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.reserve(N as u64, 0)?;
        let mut buffer = [0; N];
        self.fill(&mut buffer)?;
        Ok(buffer)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn count(&mut self, what: &str, limit: u64) -> Result<u64> {
        self.place = what.into();
        let value = self.u64()?;
        if value > limit {
            return Err(GgufError::TooLarge { what: what.into(), value, limit });
        }
        Ok(value)
    }

    fn text(&mut self, what: &str, limit: u64) -> Result<String> {
        let bytes = self.text_bytes(what, limit)?;
        String::from_utf8(bytes).map_err(|_| GgufError::NotText { what: what.to_owned() })
    }

    /// A text of metadata. Vocabularies hold pieces of characters now and then, which are replaced.
    fn loose_text(&mut self) -> Result<String> {
        let bytes = self.text_bytes("a metadata text", STRING_BYTES_MAX)?;
        String::from_utf8(bytes).or_else(|error| {
            // A replacement character takes three bytes for one.
            self.reserve(0, 2 * error.as_bytes().len())?;
            Ok(String::from_utf8_lossy(error.as_bytes()).into_owned())
        })
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

    fn value(&mut self, kind: u32) -> Result<Value> {
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
    fn fingerprint(mut self, data_offset: u64) -> Result<u64> {
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

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// The FNV-1a digest, continued.
fn fnv(digest: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(digest, |digest, byte| (digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
