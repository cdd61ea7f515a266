//! Weights out of GGUF, under the names and in the order of Hugging Face's files.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use candle_core::{Device, Tensor};
use drivers::gguf::{Header, TensorInfo, TensorType};
use half::{bf16, f16};

use super::ImportError;
use crate::ModelConfig;
use crate::export::names::{DIVISORS, Turn, origin};

/// A bias by distance that old files of T5 have in attention with the source, where no program uses it.
const UNUSED: &str = "cross_attn_rel_b";

/// All weights.
pub(super) fn weights(
    path: &Path,
    header: &Header,
    config: &ModelConfig,
) -> Result<BTreeMap<String, Tensor>, ImportError> {
    let fail = |why: String| ImportError::file(path, why);
    if header.count("split.count").is_some_and(|count| count > 1) {
        return Err(fail(
            "it is one of several files of a model; join them with llama-gguf-split --merge".into(),
        ));
    }
    // The output layer of a tied T5 is the tokens' table once more.
    let twice = matches!(config, ModelConfig::T5(c) if c.tie_word_embeddings);
    let file = File::open(path).map_err(ImportError::io(path))?;
    let mut found = BTreeMap::new();
    for tensor in &header.tensors {
        let elsewhere = tensor.name == DIVISORS || (twice && tensor.name == "output.weight");
        if elsewhere || tensor.name.contains(UNUSED) {
            continue;
        }
        let origin = origin(config, &tensor.name).map_err(|error| fail(error.to_string()))?;
        let (name, turn) = origin.ok_or_else(|| {
            fail(format!("it has a tensor `{}`, which a {} has not", tensor.name, header.architecture))
        })?;
        let numbers = read(path, &file, header, tensor)?;
        let shape: Vec<usize> = tensor.dimensions.iter().rev().map(|size| *size as usize).collect();
        let tensor = Tensor::from_vec(numbers, shape, &Device::Cpu).and_then(|tensor| back(&tensor, turn));
        found.insert(name, tensor.map_err(|error| fail(error.to_string()))?);
    }
    Ok(found)
}

/// Whether the second of two tensors is the first, multiplied.
pub(super) fn is_scaled(
    path: &Path,
    header: &Header,
    names: [&str; 2],
    factor: f64,
) -> Result<bool, ImportError> {
    let file = File::open(path).map_err(ImportError::io(path))?;
    let [first, second] = names.map(|name| header.tensor(name));
    let (Some(first), Some(second)) = (first, second) else { return Ok(false) };
    let (first, second) = (read(path, &file, header, first)?, read(path, &file, header, second)?);
    // As the writer multiplies, in the type of the numbers.
    let factor = factor as f32;
    Ok(first.len() == second.len() && first.iter().zip(&second).all(|(a, b)| a * factor == *b))
}

/// The numbers of the tensor of this name; none where there is no such tensor.
pub(super) fn read_named(path: &Path, header: &Header, name: &str) -> Result<Vec<f32>, ImportError> {
    let file = File::open(path).map_err(ImportError::io(path))?;
    header.tensor(name).map_or(Ok(Vec::new()), |tensor| read(path, &file, header, tensor))
}

/// The numbers of a tensor, which must not be quantised.
fn read(path: &Path, file: &File, header: &Header, tensor: &TensorInfo) -> Result<Vec<f32>, ImportError> {
    let kind = tensor.kind;
    if !matches!(kind, TensorType::F32 | TensorType::F16 | TensorType::BF16 | TensorType::F64) {
        let why = format!(
            "tensor `{}` is quantised, {}, and quantised weights cannot be trained; give the model's F32, F16 or BF16 file",
            tensor.name,
            kind.name()
        );
        return Err(ImportError::file(path, why));
    }
    let mut bytes = vec![0; tensor.bytes as usize];
    file.read_exact_at(&mut bytes, header.data_offset + tensor.offset).map_err(ImportError::io(path))?;
    Ok(match kind {
        TensorType::F16 => bytes.as_chunks().0.iter().map(|x| f16::from_le_bytes(*x).to_f32()).collect(),
        TensorType::BF16 => bytes.as_chunks().0.iter().map(|x| bf16::from_le_bytes(*x).to_f32()).collect(),
        TensorType::F64 => bytes.as_chunks().0.iter().map(|x| f64::from_le_bytes(*x) as f32).collect(),
        _ => bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect(),
    })
}

/// Turns a tensor back.
fn back(tensor: &Tensor, turn: Turn) -> candle_core::Result<Tensor> {
    match turn {
        Turn::Same => Ok(tensor.clone()),
        Turn::Transposed => tensor.t()?.contiguous(),
        Turn::Scaled(factor) => tensor.affine(factor.recip(), 0.0),
        Turn::Interleaved { heads } => {
            let shape = tensor.dims().to_vec();
            let half = shape[0] / heads / 2;
            let rest: usize = shape[1..].iter().product();
            tensor.reshape((heads, half, 2, rest))?.transpose(1, 2)?.contiguous()?.reshape(shape)
        }
    }
}
