//! Writes GGUF files, version 3, one tensor after another, so that a file may be larger than main memory.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::header::{Array, Value};
use super::limits::ALIGNMENT_DEFAULT;
use super::tensor::{TensorInfo, TensorType, tensor_bytes};
use crate::whole::replace;

/// Zeros for padding: alignments written here are not larger.
const ZEROS: [u8; ALIGNMENT_DEFAULT as usize] = [0; ALIGNMENT_DEFAULT as usize];

/// What a file will hold: its metadata, and the tensors' names, sizes and types in their order.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    metadata: Vec<(String, Value)>,
    tensors: Vec<TensorInfo>,
    end: u64,
}

impl Plan {
    /// Begins a file of this architecture.
    pub fn new(architecture: &str) -> Plan {
        let mut plan = Plan::default();
        plan.set("general.architecture", Value::Text(architecture.to_owned()));
        plan
    }

    /// Adds an entry of metadata.
    pub fn set(&mut self, key: &str, value: Value) {
        self.metadata.push((key.to_owned(), value));
    }

    /// Adds a tensor, the fastest-moving dimension first.
    ///
    /// # Panics
    ///
    /// Where rows of this length cannot be stored in this type.
    pub fn tensor(&mut self, name: &str, dimensions: &[u64], kind: TensorType) {
        let bytes =
            tensor_bytes(dimensions, kind).unwrap_or_else(|offence| panic!("tensor `{name}` {offence}"));
        let tensor = TensorInfo {
            name: name.to_owned(),
            dimensions: dimensions.to_vec(),
            kind,
            offset: self.end,
            bytes,
        };
        self.end = (self.end + bytes).next_multiple_of(ALIGNMENT_DEFAULT.into());
        self.tensors.push(tensor);
    }

    /// The same model in several files, as llama.cpp's `llama-gguf-split` divides one: the first file says what the model
    /// is, and each has tensors that follow each other.
    pub fn in_parts(&self, count: u16) -> Vec<Plan> {
        let each = self.tensors.len().div_ceil(count.max(1).into()).max(1);
        let mut chunks = self.tensors.chunks(each);
        let part = |number| {
            let mut part = Plan::default();
            if number == 0 {
                part.metadata.clone_from(&self.metadata);
            }
            part.set("split.no", Value::U16(number));
            part.set("split.count", Value::U16(count));
            part.set("split.tensors.count", Value::I32(self.tensors.len() as i32));
            let tensors = chunks.next().unwrap_or_default();
            tensors.iter().for_each(|tensor| part.tensor(&tensor.name, &tensor.dimensions, tensor.kind));
            part
        };
        (0..count).map(part).collect()
    }

    /// The tensors planned so far.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_text(&mut out, key);
            put_value(&mut out, value);
        }
        for tensor in &self.tensors {
            put_text(&mut out, &tensor.name);
            out.extend((tensor.dimensions.len() as u32).to_le_bytes());
            tensor.dimensions.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(tensor.kind.id().to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT_DEFAULT as usize), 0);
        out
    }

    /// Writes the file. `fill` writes the bytes of one tensor after another, in the order of the plan.
    ///
    /// The file appears under its name when it is whole and on the disk; where it cannot be, nothing of it stays.
    ///
    /// # Errors
    ///
    /// Those of the file, and `InvalidData` where `fill` wrote another number of bytes than the plan says.
    pub fn write(
        &self,
        path: &Path,
        fill: impl FnMut(&TensorInfo, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        replace(path, |partial| self.write_to(File::create(partial)?, fill))
    }

    /// Writes to a file that is open, as [`Plan::write`] does; it stays as it is where it cannot be finished.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_to(
        &self,
        file: File,
        mut fill: impl FnMut(&TensorInfo, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut file = Counted { inner: BufWriter::with_capacity(1 << 20, file), written: 0 };
        file.write_all(&self.header())?;
        for tensor in &self.tensors {
            file.written = 0;
            fill(tensor, &mut file)?;
            if file.written != tensor.bytes {
                let message =
                    format!("tensor `{}` got {} of {} bytes", tensor.name, file.written, tensor.bytes);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            let padding = tensor.bytes.next_multiple_of(ZEROS.len() as u64) - tensor.bytes;
            file.write_all(&ZEROS[..padding as usize])?;
        }
        file.inner.into_inner().map_err(|error| error.into_error())?;
        Ok(())
    }
}

/// Counts what is written to a file.
struct Counted {
    inner: BufWriter<File>,
    written: u64,
}

impl Write for Counted {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut put = |kind: u32, bytes: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::U8(x) => put(0, &x.to_le_bytes()),
        Value::I8(x) => put(1, &x.to_le_bytes()),
        Value::U16(x) => put(2, &x.to_le_bytes()),
        Value::I16(x) => put(3, &x.to_le_bytes()),
        Value::U32(x) => put(4, &x.to_le_bytes()),
        Value::I32(x) => put(5, &x.to_le_bytes()),
        Value::F32(x) => put(6, &x.to_le_bytes()),
        Value::Bool(x) => put(7, &[u8::from(*x)]),
        Value::Text(text) => {
            put(8, &[]);
            put_text(out, text);
        }
        Value::Array(array) => {
            put(9, &[]);
            put_array(out, array);
        }
        Value::U64(x) => put(10, &x.to_le_bytes()),
        Value::I64(x) => put(11, &x.to_le_bytes()),
        Value::F64(x) => put(12, &x.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    let kind: u32 = match array {
        Array::U8(_) => 0,
        Array::I8(_) => 1,
        Array::U16(_) => 2,
        Array::I16(_) => 3,
        Array::U32(_) => 4,
        Array::I32(_) => 5,
        Array::F32(_) => 6,
        Array::Bool(_) => 7,
        Array::Text(_) => 8,
        Array::U64(_) => 10,
        Array::I64(_) => 11,
        Array::F64(_) => 12,
    };
    out.extend(kind.to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => out.extend(v),
        Array::I8(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::U16(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::I16(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::U32(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::I32(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::F32(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::Bool(v) => v.iter().for_each(|x| out.push(u8::from(*x))),
        Array::Text(v) => v.iter().for_each(|text| put_text(out, text)),
        Array::U64(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::I64(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::F64(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
    }
}
