//! Tensors in files, in the safetensors format, as they stand in memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors, View};

/// Writes tensors by name. Programs of the Hugging Face family look for the `format` in the file.
///
/// # Errors
///
/// Those of the file, and tensors of a type that is not trained.
pub fn write_tensors(path: &Path, tensors: &BTreeMap<String, Tensor>) -> io::Result<()> {
    let views = tensors.iter().map(|(name, tensor)| Ok((name.as_str(), Bytes::of(tensor)?)));
    let views = views.collect::<io::Result<Vec<_>>>()?;
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(about), path).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    })
}

/// Reads the tensors of a file. Those of whole numbers are none that could be trained, and are passed over.
///
/// # Errors
///
/// Those of the file; `InvalidData` where it has no tensors, or some of another type.
pub fn read_tensors(path: &Path) -> io::Result<BTreeMap<String, Tensor>> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let bytes = std::fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| invalid(error.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let kind = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            // Positions and masks, which some programs keep among the weights.
            Dtype::I64 | Dtype::I32 | Dtype::U8 | Dtype::BOOL => continue,
            other => return Err(invalid(format!("tensor `{name}` is {other:?}; use F32, F64, F16 or BF16"))),
        };
        let tensor = Tensor::from_raw_buffer(view.data(), kind, view.shape(), &Device::Cpu);
        tensors.insert(name, tensor.map_err(|error| invalid(error.to_string()))?);
    }
    Ok(tensors)
}

/// The bytes of a tensor, little endian.
pub(crate) fn bytes_of(tensor: &Tensor) -> candle_core::Result<Vec<u8>> {
    let flat = tensor.flatten_all()?;
    Ok(match tensor.dtype() {
        DType::F64 => flat.to_vec1::<f64>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        _ => flat.to_dtype(DType::F32)?.to_vec1::<f32>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
    })
}

/// A tensor as the format's library wants to see it. Bytes are made when they are written, one tensor at a time.
struct Bytes {
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Bytes {
    fn of(tensor: &Tensor) -> io::Result<Bytes> {
        let dtype = match tensor.dtype() {
            DType::F32 => Dtype::F32,
            DType::F64 => Dtype::F64,
            other => return Err(io::Error::other(format!("tensors of {other:?} are not trained"))),
        };
        Ok(Bytes { tensor: tensor.clone(), dtype, shape: tensor.dims().to_vec() })
    }
}

impl View for Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(bytes_of(&self.tensor).expect("tensors of parameters lie in main memory"))
    }

    fn data_len(&self) -> usize {
        self.tensor.elem_count() * self.tensor.dtype().size_in_bytes()
    }
}
