//! Whether a specification can be meant: ranges, and parts that go together.

use super::error::SpecError;
use super::{DeviceSpec, PrecisionSpec, TrainSpec, ValidationSpec};
use crate::data::{Packing, Shape, Task};
use crate::token::Family;

/// Tokens of the shortest rows that questions are asked in: three are around, and a question and a text need some.
const QUESTION_LENGTH_MIN: usize = 8;

/// Tokens of the shortest rows: what stands around a text, and some of it.
const LENGTH_MIN: usize = 4;

/// Tokens of a text that is written while a model learns: more than any is read of.
const SAMPLE_TOKENS_MAX: usize = 1 << 16;

impl TrainSpec {
    /// Whether all values are in their ranges and go together.
    ///
    /// # Errors
    ///
    /// The first that is not, with its range.
    pub fn check(&self) -> Result<(), SpecError> {
        const BATCH_MAX: usize = 65_536;
        let between = |field, value: f64, least: f64, most: f64| match (least..=most).contains(&value) {
            true => Ok(()),
            false => {
                let range = format!("within {least} and {most}");
                Err(SpecError::Range { field, value: value.to_string(), range })
            }
        };
        between("batch", self.batch as f64, 1.0, BATCH_MAX as f64)?;
        between("accumulate", self.accumulate as f64, 1.0, BATCH_MAX as f64)?;
        between("clip", self.clip, 0.0, f64::MAX)?;
        between("label_smoothing", self.label_smoothing, 0.0, 0.999)?;
        between("masked", self.masked, 0.001, 0.999)?;
        between("evaluation.every", self.evaluation.every as f64, 1.0, f64::MAX)?;
        between("checkpoint.every", self.checkpoint.every as f64, 1.0, f64::MAX)?;
        between("checkpoint.keep", self.checkpoint.keep as f64, 1.0, 1000.0)?;
        between("samples.temperature", self.samples.temperature, 0.0, 100.0)?;
        between("samples.tokens", self.samples.tokens as f64, 1.0, SAMPLE_TOKENS_MAX as f64)?;
        between("evaluation.batches", self.evaluation.batches.unwrap_or(1) as f64, 1.0, f64::MAX)?;
        between("evaluation.patience", self.evaluation.patience.unwrap_or(1).into(), 1.0, f64::MAX)?;
        if let ValidationSpec::Share(share) = self.data.validation {
            between("data.validation.Share", share, 0.0001, 0.9)?;
        }
        match (self.steps, self.epochs) {
            (Some(steps), None) => between("steps", steps as f64, 1.0, 1e15)?,
            (None, Some(epochs)) => between("epochs", epochs, 1e-6, 1e9)?,
            (None, None) => {
                return Err(SpecError::Unfit(
                    "it does not say how long to train; give `steps` or `epochs`".into(),
                ));
            }
            (Some(_), Some(_)) => {
                return Err(SpecError::Unfit("it has both `steps` and `epochs`; give one of them".into()));
            }
        }
        if matches!((self.device, self.precision), (DeviceSpec::Metal(_), PrecisionSpec::F64)) {
            return Err(SpecError::Unfit(
                "`precision` is F64, and Metal has no such numbers; set it to F32 or Bf16, or `device` to Cpu".into(),
            ));
        }
        self.model.check()?;
        self.loss.check()?;
        self.tune.check()?;
        self.ranks.check()?;
        self.schedule.check()?;
        self.optimiser.check()
    }

    /// What the model learns from the data.
    ///
    /// # Errors
    ///
    /// The data are not for this model.
    pub fn task(&self) -> Result<Task, SpecError> {
        let length = self.row_length()?;
        let task = self.task_of(length)?;
        if let ValidationSpec::From(source) = &self.data.validation
            && source.shape() != self.data.train.shape()
        {
            let [train, other] = [&self.data.train, source].map(|source| said(source.shape()));
            return Err(SpecError::Unfit(format!(
                "`data.validation` has {other}, and `data.train` has {train}; evaluate on {train}, too"
            )));
        }
        match (self.data.packing, &task) {
            (Packing::Together, _) | (_, Task::NextToken { .. } | Task::Masked { .. }) => Ok(task),
            _ => Err(SpecError::Unfit(
                "`data.packing: Apart` is for texts that a decoder or an encoder reads; leave it out".into(),
            )),
        }
    }

    /// Tokens of a row.
    fn row_length(&self) -> Result<usize, SpecError> {
        let most = self.model.positions()?;
        let (field, length) = match self.context {
            Some(length) => ("context", length),
            None => ("model.context", self.model.context()?),
        };
        if (LENGTH_MIN..=most).contains(&length) {
            return Ok(length);
        }
        let range = match most < length {
            true => format!("within {LENGTH_MIN} and {most}, the tokens that the model has places for"),
            false => format!("{LENGTH_MIN} at least"),
        };
        Err(SpecError::Range { field, value: length.to_string(), range })
    }

    fn task_of(&self, length: usize) -> Result<Task, SpecError> {
        let (family, shape) = (self.model.family()?, self.data.train.shape());
        let task = self.task_of_both(length, family, shape)?;
        self.loss.check_for(family, shape)?;
        Ok(task)
    }

    fn task_of_both(&self, length: usize, family: Family, shape: Shape) -> Result<Task, SpecError> {
        match (family, shape) {
            (Family::Decoder, Shape::Text) => Ok(Task::NextToken { length }),
            (Family::Encoder, Shape::Text) => Ok(Task::Masked { length, share: self.masked }),
            (Family::Encoder, Shape::Labelled) => Ok(self.loss.of_labels(length)),
            (Family::Encoder, Shape::Tagged) => Ok(Task::Tag { length }),
            (Family::Encoder, Shape::Questions) if length < QUESTION_LENGTH_MIN => Err(SpecError::Range {
                field: "model.context",
                value: length.to_string(),
                range: format!("{QUESTION_LENGTH_MIN} at least for a question and a part of a text"),
            }),
            (Family::Encoder, Shape::Questions) => Ok(Task::Answer { length }),
            (Family::Encoder, Shape::Pairs) if self.batch < 2 => Err(SpecError::Range {
                field: "batch",
                value: self.batch.to_string(),
                range: "2 at least: pairs of texts are compared with the others of their batch".into(),
            }),
            (Family::Encoder, Shape::Pairs) => Ok(Task::Similar { length }),
            (Family::EncoderDecoder, Shape::Pairs) => Ok(Task::Translate { length }),
            (Family::EncoderDecoder, Shape::Text) => Ok(Task::Continue { length }),
            (family, shape) => {
                let model = match family {
                    Family::Decoder => "a decoder learns from texts",
                    Family::Encoder => {
                        "an encoder learns from texts, labelled or tagged texts, questions or pairs"
                    }
                    Family::EncoderDecoder => "an encoder-decoder learns from pairs of texts or from texts",
                };
                Err(SpecError::Unfit(format!("{model}, and `data.train` has {}", said(shape))))
            }
        }
    }
}

/// What records are, in a sentence.
fn said(shape: Shape) -> &'static str {
    match shape {
        Shape::Text => "texts",
        Shape::Pairs => "pairs",
        Shape::Labelled => "labelled texts",
        Shape::Questions => "questions",
        Shape::Tagged => "tagged texts",
    }
}
