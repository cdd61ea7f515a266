//! Reads a header, believing nothing that it says before it is checked against a limit and the file's length.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use super::error::GgufError;
use super::header::{Header, Value};
use super::limits::{
    ALIGNMENT_DEFAULT, ALIGNMENT_MAX, DIMENSIONS_MAX, KEY_BYTES_MAX, METADATA_MAX, TENSOR_NAME_BYTES_MAX,
    TENSORS_MAX,
};
use super::runnable::check_runnable;
use super::source::Source;
use super::tensor::{TensorInfo, TensorType, tensor_bytes};
use crate::wire::DriverFault;

type Result<T> = std::result::Result<T, GgufError>;

/// Opens a model file, reads its header, and checks that llama.cpp can run it.
///
/// # Errors
///
/// ENOENT, EACCES or EIO where the file cannot be read, ENOEXEC where it is no model that can run. The sentence
/// begins with the path.
pub fn open(path: &Path) -> std::result::Result<Header, DriverFault> {
    let header = read_file(path).map_err(|error| error.into_fault(path))?;
    check_runnable(&header).map_err(|error| error.into_fault(path))?;
    Ok(header)
}

/// Reads the header of a regular file.
fn read_file(path: &Path) -> Result<Header> {
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
    let header = read_header(file, bytes)?;
    match header.architecture.is_empty() {
        true => {
            Err(GgufError::NotRunnable("it does not name its architecture: convert the model again".into()))
        }
        false => Ok(header),
    }
}

/// Reads the header of a file that is open, from its beginning.
pub(crate) fn read_open(mut file: &File) -> Result<Header> {
    file.rewind()?;
    read(file, file.metadata()?.len())
}

/// As [`read_open`], of a part of a model behind the first, which does not say what the first says.
pub(crate) fn read_part(mut file: &File) -> Result<Header> {
    file.rewind()?;
    read_header(file, file.metadata()?.len())
}

/// The architecture is empty where the file does not name one.
fn read_header<R: Read + Seek>(file: R, bytes: u64) -> Result<Header> {
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
        _ => String::new(),
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
