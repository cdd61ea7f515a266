//! PyTorch's format: a zip that is not compressed, with a pickle of the dictionary and a file for each storage.
//!
//! It holds what `torch.load(…, weights_only=True)` allows and nothing else. The configuration and the vocabulary lie
//! beside, where PyTorch does not look, so that one file is a whole model.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use candle_core::{DType, Tensor};
use drivers::whole::replace;
use zip::result::ZipError;
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

use super::pickle::Pickle;
use super::{ExportError, Exported};
use crate::checkpoint::bytes_of;

/// What PyTorch aligns storages to, so that they can be mapped.
const ALIGNMENT: u16 = 64;

/// Writes the file.
pub(super) fn write(model: &Exported<'_>, to: &Path) -> Result<(), ExportError> {
    let texts = [
        ("extra/config.json", model.config.to_json()?),
        ("extra/tokenizer.json", model.tokeniser.to_json()?),
    ];
    replace(to, |partial| archive(model, &texts, partial)).map_err(ExportError::io(to))
}

fn archive(model: &Exported<'_>, texts: &[(&str, String)], to: &Path) -> io::Result<()> {
    let mut zip = ZipWriter::new(BufWriter::with_capacity(1 << 20, File::create(to)?));
    // The same model gives the same bytes, whenever it is written.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .with_alignment(ALIGNMENT)
        .large_file(true);
    let mut put = |name: &str, bytes: &[u8]| {
        zip.start_file(format!("archive/{name}"), options).map_err(of_file)?;
        zip.write_all(bytes)
    };
    put("data.pkl", &dictionary(model))?;
    put("byteorder", b"little")?;
    for (number, tensor) in model.weights.values().enumerate() {
        put(&format!("data/{number}"), &bytes_of(tensor).map_err(io::Error::other)?)?;
    }
    put("version", b"3\n")?;
    texts.iter().try_for_each(|(name, text)| put(name, text.as_bytes()))?;
    let file = zip.finish().map_err(of_file)?;
    file.into_inner().map(drop).map_err(|error| error.into_error())
}

/// What the file answered.
fn of_file(error: ZipError) -> io::Error {
    match error {
        ZipError::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

fn dictionary(model: &Exported<'_>) -> Vec<u8> {
    let mut pickle = Pickle::new();
    pickle.dictionary(|items| {
        for (number, (name, tensor)) in model.weights.iter().enumerate() {
            items.text(name);
            put_tensor(items, number, tensor);
        }
    });
    pickle.finish()
}

/// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks)`
fn put_tensor(pickle: &mut Pickle, number: usize, tensor: &Tensor) {
    let storage = if tensor.dtype() == DType::F64 { "DoubleStorage" } else { "FloatStorage" };
    pickle.call("torch._utils", "_rebuild_tensor_v2", |arguments| {
        arguments.persistent(|about| {
            about.tuple(|about| {
                about.text("storage");
                about.global("torch", storage);
                about.text(&number.to_string());
                about.text("cpu");
                about.number(tensor.elem_count());
            });
        });
        arguments.number(0);
        arguments.tuple(|sizes| tensor.dims().iter().for_each(|size| sizes.number(*size)));
        let mut stride = tensor.elem_count();
        arguments.tuple(|strides| {
            for size in tensor.dims() {
                stride /= (*size).max(1);
                strides.number(stride);
            }
        });
        arguments.no();
        arguments.call("collections", "OrderedDict", |_| {});
    });
}
