//! Text from a pipeline: for each token the row so far goes through all stages, whose last one has the logits and tells the
//! others, so that all of them choose the same. No rank needs room for the whole model, and none keeps keys and values: it
//! is for samples, which are short.

use candle_core::{DType, Device};

use super::pipeline::Stage;
use crate::models::{Sampling, go_on};
use crate::{Batch, ModelConfig, Result, Side};

/// Goes on after a prompt; an encoder-decoder reads `source` first. All stages return the text.
pub(super) fn generate(
    stage: &Stage<'_>,
    prompt: &[u32],
    source: Option<&[u32]>,
    sampling: &Sampling,
) -> Result<Vec<u32>> {
    let config = stage.model.config();
    if matches!(config, ModelConfig::Bert(_)) {
        // It says why it writes none.
        stage.model.begin(None, &[0])?;
    }
    let source = source.map(|source| Side::of_rows(&[source.to_vec()]));
    let mut row = Vec::new();
    let texts = go_on(config.positions(), &[prompt.to_vec()], sampling, |next| {
        row.extend_from_slice(next);
        let input = Side::new(row.clone(), row.len());
        Ok(vec![next_logits(stage, &Batch { input, source: source.clone(), ..Batch::default() })?])
    })?;
    Ok(texts.concat())
}

/// The logits of what comes after the one row of a batch, on all stages.
fn next_logits(stage: &Stage<'_>, batch: &Batch) -> Result<Vec<f64>> {
    let mut bytes = Vec::new();
    if let Some(logits) = stage.logits(batch)? {
        let last = logits.narrow(1, batch.input.length - 1, 1)?.flatten_all()?;
        let numbers = last.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        bytes.extend(numbers.into_iter().flat_map(f64::to_le_bytes));
    }
    stage.group.broadcast(&mut bytes, stage.group.size() - 1)?;
    let (numbers, _) = bytes.as_chunks();
    Ok(numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
}
