//! Folders in the Hugging Face layout.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use candle_core::pickle::PthTensors;
use candle_core::{DType, Tensor};
use serde::Deserialize;

use super::ImportError;
use crate::ModelConfig;
use crate::checkpoint::read_tensors;

/// How weights are stored: the name before a number, the ending, and what reads them. The first that there is is taken.
const FORMS: [Form; 2] = [
    Form { name: "model", ending: "safetensors", read: read_tensors },
    Form { name: "pytorch_model", ending: "bin", read: read_pickled },
];

#[derive(Clone, Copy)]
struct Form {
    name: &'static str,
    ending: &'static str,
    read: fn(&Path) -> io::Result<BTreeMap<String, Tensor>>,
}

/// The file that says which tensor is in which of several files.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// What `config.json` says.
pub(super) fn config(folder: &Path) -> Result<ModelConfig, ImportError> {
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(ImportError::io(&path))?;
    ModelConfig::from_json(&text).map_err(|error| ImportError::file(&path, error))
}

/// The weights, in one file or several.
pub(super) fn weights(folder: &Path) -> Result<BTreeMap<String, Tensor>, ImportError> {
    for form in FORMS {
        let files = form.files(folder)?;
        if files.is_empty() {
            continue;
        }
        let mut tensors = BTreeMap::new();
        for path in files {
            tensors.extend((form.read)(&path).map_err(ImportError::io(&path))?);
        }
        return Ok(tensors.into_iter().map(|(name, tensor)| (present(&name), tensor)).collect());
    }
    Err(ImportError::file(folder, "has no model.safetensors and no pytorch_model.bin"))
}

/// The name that a tensor has today: BERT's first files call the numbers of a norm as its paper does.
fn present(name: &str) -> String {
    let norm = |old: &str, new: &str| Some(format!("{}LayerNorm.{new}", name.strip_suffix(old)?));
    norm("LayerNorm.gamma", "weight")
        .or_else(|| norm("LayerNorm.beta", "bias"))
        .unwrap_or_else(|| name.to_owned())
}

impl Form {
    /// The files of this form: the one, those that the index names, or all that are there and numbered.
    ///
    /// # Errors
    ///
    /// One of several is missing.
    fn files(&self, folder: &Path) -> Result<Vec<PathBuf>, ImportError> {
        let Form { name, ending, .. } = self;
        let one = folder.join(format!("{name}.{ending}"));
        if one.is_file() {
            return Ok(vec![one]);
        }
        let index = folder.join(format!("{name}.{ending}.index.json"));
        let named: BTreeSet<String> = match index.is_file() {
            true => {
                let text = std::fs::read_to_string(&index).map_err(ImportError::io(&index))?;
                let index: Index =
                    serde_json::from_str(&text).map_err(|error| ImportError::file(&index, error))?;
                index.weight_map.into_values().collect()
            }
            false => self.numbered(folder)?,
        };
        let missing = named.iter().find(|file| !folder.join(file).is_file());
        match missing {
            Some(file) => Err(ImportError::file(
                folder,
                format!(
                    "has no {file}, which is one of the {} files of its weights; fetch it, too",
                    named.len()
                ),
            )),
            None => Ok(named.iter().map(|file| folder.join(file)).collect()),
        }
    }

    /// Where no index says which files there must be: all with the ending, and those that their numbers say.
    fn numbered(&self, folder: &Path) -> Result<BTreeSet<String>, ImportError> {
        let entries = std::fs::read_dir(folder).map_err(ImportError::io(folder))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: BTreeSet<String> = names
            .filter(|name| name.strip_suffix(self.ending).is_some_and(|rest| rest.ends_with('.')))
            .collect();
        if self.ending != "safetensors" {
            // Other programs call other things so: states of optimisers, arguments of a run.
            found.retain(|name| name.starts_with(self.name));
        }
        let whole = found.iter().find_map(|name| numbers(name, self.ending));
        if let Some((before, count)) = whole {
            found.extend(
                (1..=count).map(|number| format!("{before}{number:05}-of-{count:05}.{}", self.ending)),
            );
        }
        Ok(found)
    }
}

/// What stands before the number in `model-00001-of-00003.safetensors`, and how many files there are.
fn numbers(name: &str, ending: &str) -> Option<(String, u32)> {
    /// More files than any model has.
    const FILES_MAX: u32 = 10_000;
    let (begin, count) = name.strip_suffix(ending)?.strip_suffix('.')?.rsplit_once("-of-")?;
    let (before, number) = begin.split_at_checked(begin.len().checked_sub(5)?)?;
    let count = count.parse().ok().filter(|count| *count <= FILES_MAX)?;
    number.parse::<u32>().ok().map(|_| (before.to_owned(), count))
}

/// Reads the tensors of a file of PyTorch's. What its pickle says to call is looked at, and never called.
fn read_pickled(path: &Path) -> io::Result<BTreeMap<String, Tensor>> {
    // candle takes it that tuples are as long as PyTorch makes them and that sizes are those of memory, and panics where they
    // are not. All that it has in hand then is what it has read of the file, which goes with it.
    catch_unwind(AssertUnwindSafe(|| tensors_of(path))).unwrap_or_else(|_| {
        let why = "it is damaged: what it says of a tensor is not what PyTorch writes";
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    })
}

fn tensors_of(path: &Path) -> io::Result<BTreeMap<String, Tensor>> {
    let invalid = |error: candle_core::Error| {
        let why = format!("{error}; give a zip file of tensors, as PyTorch writes it since 1.6");
        io::Error::new(io::ErrorKind::InvalidData, why)
    };
    let file = PthTensors::new(path, None).map_err(invalid)?;
    let mut tensors = BTreeMap::new();
    for (name, about) in file.tensor_infos() {
        // Positions and masks, which some programs keep among the weights.
        if !matches!(about.dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16) {
            continue;
        }
        if let Some(tensor) = file.get(name).map_err(invalid)? {
            tensors.insert(name.clone(), tensor);
        }
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::Device;

    use super::*;
    use crate::checkpoint::write_tensors;

    fn put(folder: &Path, file: &str, name: &str) {
        let tensor = Tensor::ones((2, 2), DType::F32, &Device::Cpu).unwrap();
        write_tensors(&folder.join(file), &BTreeMap::from([(name.to_owned(), tensor)])).unwrap();
    }

    fn names(folder: &Path) -> Result<Vec<String>, String> {
        weights(folder).map(|found| found.into_keys().collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn file_of_several_that_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        put(at, "model-00001-of-00002.safetensors", "a");
        let error = names(at).unwrap_err();
        assert!(error.contains("has no model-00002-of-00002.safetensors"), "{error}");
        put(at, "model-00002-of-00002.safetensors", "b.LayerNorm.gamma");
        assert_eq!(names(at).unwrap(), ["a", "b.LayerNorm.weight"]);
        let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "c": "part.safetensors"}}"#;
        std::fs::write(at.join("model.safetensors.index.json"), index).unwrap();
        let error = names(at).unwrap_err();
        assert!(error.contains("has no part.safetensors, which is one of the 2 files"), "{error}");
        put(at, "part.safetensors", "c");
        assert_eq!(names(at).unwrap(), ["a", "c"], "the index says what belongs to it");
    }

    /// `tests/peers/pickled.py` made the file.
    #[test]
    fn tensors_that_pytorch_pickled_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let from = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pytorch_model.bin");
        std::fs::copy(from, folder.path().join("pytorch_model.bin")).unwrap();
        let found = weights(folder.path()).unwrap();
        let numbers = |name: &str| {
            let tensor = found[name].to_dtype(DType::F32).unwrap();
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let upto = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        for name in ["plain", "tied", "half", "brain"] {
            assert_eq!((numbers(name), found[name].dims()), (upto.to_vec(), &[2, 3][..]), "{name}");
        }
        assert_eq!(
            (numbers("turned"), found["turned"].dims()),
            (vec![0.0, 6.0, 2.0, 8.0, 4.0, 10.0], &[3, 2][..])
        );
        assert_eq!(numbers("part"), upto.map(|number| number + 4.0));
        assert_eq!(numbers("a.LayerNorm.weight"), [1.0; 3]);
        assert!(!found.contains_key("positions"));
    }

    #[test]
    fn pickle_with_a_tensor_of_too_few_parts_is_refused_in_a_sentence() {
        use std::io::Write;

        let folder = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(folder.path().join("pytorch_model.bin")).unwrap();
        let mut zip = zip::ZipWriter::new(file);
        let stored =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file("archive/data.pkl", stored).unwrap();
        // {"a": torch._utils._rebuild_tensor_v2()}
        zip.write_all(b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n)Rs.").unwrap();
        zip.finish().unwrap();
        let error = names(folder.path()).unwrap_err();
        assert!(error.contains("pytorch_model.bin: it is damaged"), "{error}");
    }

    #[test]
    fn folder_without_weights_says_what_they_are_called() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("training_args.bin"), "x").unwrap();
        let error = names(folder.path()).unwrap_err();
        assert!(error.contains("no model.safetensors and no pytorch_model.bin"), "{error}");
        std::fs::write(folder.path().join("pytorch_model.bin"), "x").unwrap();
        let error = names(folder.path()).unwrap_err();
        assert!(error.contains("pytorch_model.bin: ") && error.contains("since 1.6"), "{error}");
    }
}
