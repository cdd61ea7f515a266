//! What a GGUF header says, with typed access to its metadata.

use std::collections::BTreeMap;

use super::tensor::TensorInfo;

/// A value of metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    U64(u64),
    I64(i64),
    F64(f64),
    Array(Array),
}

/// An array of metadata. Arrays of arrays are refused: no model uses them.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    Text(Vec<String>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl Array {
    /// How many elements it has.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(v) => v.len(),
            Array::I8(v) => v.len(),
            Array::U16(v) => v.len(),
            Array::I16(v) => v.len(),
            Array::U32(v) => v.len(),
            Array::I32(v) => v.len(),
            Array::F32(v) => v.len(),
            Array::Bool(v) => v.len(),
            Array::Text(v) => v.len(),
            Array::U64(v) => v.len(),
            Array::I64(v) => v.len(),
            Array::F64(v) => v.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as counts, where they are integers without a sign, or with one and not below 0.
    pub fn counts(&self) -> Option<Vec<u64>> {
        let signed = |v: &mut dyn Iterator<Item = i64>| v.map(|x| u64::try_from(x).ok()).collect();
        match self {
            Array::U8(v) => Some(v.iter().map(|x| u64::from(*x)).collect()),
            Array::U16(v) => Some(v.iter().map(|x| u64::from(*x)).collect()),
            Array::U32(v) => Some(v.iter().map(|x| u64::from(*x)).collect()),
            Array::U64(v) => Some(v.clone()),
            Array::I8(v) => signed(&mut v.iter().map(|x| i64::from(*x))),
            Array::I16(v) => signed(&mut v.iter().map(|x| i64::from(*x))),
            Array::I32(v) => signed(&mut v.iter().map(|x| i64::from(*x))),
            Array::I64(v) => signed(&mut v.iter().copied()),
            _ => None,
        }
    }
}

impl Value {
    /// The value as a count, where it is an integer and not below 0.
    pub fn count(&self) -> Option<u64> {
        match self {
            Value::U8(x) => Some((*x).into()),
            Value::U16(x) => Some((*x).into()),
            Value::U32(x) => Some((*x).into()),
            Value::U64(x) => Some(*x),
            Value::I8(x) => u64::try_from(*x).ok(),
            Value::I16(x) => u64::try_from(*x).ok(),
            Value::I32(x) => u64::try_from(*x).ok(),
            Value::I64(x) => u64::try_from(*x).ok(),
            _ => None,
        }
    }
}

/// A header that was read and checked.
#[derive(Clone, Debug)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// The model family: `llama`, `qwen2`, `bert`, ….
    pub architecture: String,
    /// Everything else that it says of itself.
    pub metadata: BTreeMap<String, Value>,
    /// The weights, in the file's order.
    pub tensors: Vec<TensorInfo>,
    /// Where the weights begin.
    pub data_offset: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// A digest of the header, the length and samples of the weights. Two files with the same are taken for the
    /// same model.
    pub fingerprint: u64,
}

impl Header {
    /// A text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// An integer of any width, not below 0.
    pub fn count(&self, key: &str) -> Option<u64> {
        self.metadata.get(key)?.count()
    }

    /// An integer under the architecture's own prefix: `own_count("block_count")` reads `llama.block_count`.
    pub fn own_count(&self, key: &str) -> Option<u64> {
        self.count(&self.own_key(key))
    }

    /// The full key of an entry under the architecture's prefix.
    pub fn own_key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// Yes or no.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key) {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        }
    }

    /// An array.
    pub fn array(&self, key: &str) -> Option<&Array> {
        match self.metadata.get(key) {
            Some(Value::Array(array)) => Some(array),
            _ => None,
        }
    }

    /// An array of texts.
    pub fn texts(&self, key: &str) -> Option<&[String]> {
        match self.array(key) {
            Some(Array::Text(texts)) => Some(texts),
            _ => None,
        }
    }

    /// A tensor by its name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Weights of all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(TensorInfo::elements).fold(0, u64::saturating_add)
    }

    /// The model's chat template.
    pub fn chat_template(&self) -> Option<&str> {
        self.text("tokenizer.chat_template")
    }
}
