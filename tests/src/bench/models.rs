//! Models of random weights, generated where they are not there yet: speed does not depend on what weights say.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use drivers::gguf::TensorType;
use drivers::gguf::random::Shape;

/// The file of a preset with weights of a type, and with other positions than the preset's where they are given.
///
/// # Errors
///
/// There is no such preset or type, or the file cannot be written.
pub fn model_file(folder: &Path, preset: &str, weights: &str, positions: Option<u32>) -> Result<PathBuf> {
    let Some(mut shape) = Shape::preset(preset) else {
        bail!("no preset `{preset}`; there are tiny, 30m and 0.5b");
    };
    shape.kind = kind(weights)?;
    let name = match positions {
        Some(positions) if positions != shape.context => {
            shape.context = positions;
            format!("{preset}-{weights}-{positions}.gguf")
        }
        _ => format!("{preset}-{weights}.gguf"),
    };
    let path = folder.join(name);
    if !path.exists() {
        eprintln!("bench: generating {}", path.display());
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // Under another name until it is whole, so that an interrupted run leaves no half a model.
        let part = path.with_extension("part");
        shape.write(&part).map_err(|e| anyhow!("cannot write {}: {e}", part.display()))?;
        std::fs::rename(&part, &path)?;
    }
    Ok(path.canonicalize()?)
}

fn kind(name: &str) -> Result<TensorType> {
    use TensorType::{BF16, F16, F32, Q4_0, Q8_0};
    let found = [F32, F16, BF16, Q8_0, Q4_0].into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name));
    found.with_context(|| format!("no type `{name}`; there are f32, f16, bf16, q8_0 and q4_0"))
}
