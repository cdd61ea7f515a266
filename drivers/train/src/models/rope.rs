//! How positions turn heads beyond the lengths that a model was first trained with, by Hugging Face's names.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

use crate::ops::rope::Rotation;
use crate::{Error, Result};

/// `rope_scaling` of a configuration. What a kind has no use for is passed over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RopeScaling {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_type: Option<String>,
    /// The same in older files.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_max_position_embeddings: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low_freq_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high_freq_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_fast: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_slow: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mscale: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mscale_all_dim: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<bool>,
}

impl RopeScaling {
    /// What kind it is.
    pub fn kind(&self) -> &str {
        self.rope_type.as_deref().or(self.kind.as_deref()).unwrap_or("default")
    }

    fn need(&self, name: &str, value: Option<f64>) -> Result<f64> {
        value.filter(|value| *value > 0.0 && value.is_finite()).ok_or_else(|| {
            Error::Config(format!(
                "llama: positions that are scaled by `{}` need `{name}` above 0",
                self.kind()
            ))
        })
    }

    /// How heads of `size` numbers turn around `base`, in a model of so many positions.
    ///
    /// # Errors
    /// A kind that is not known, or lacks a number.
    pub fn rotation(&self, size: usize, base: f64, positions: usize) -> Result<Rotation> {
        let plain = Rotation::plain(size, base);
        match self.kind() {
            "default" => Ok(plain),
            "linear" => {
                let factor = self.need("factor", self.factor)?;
                let frequencies = plain.frequencies.iter().map(|f| f / factor).collect();
                Ok(Rotation { frequencies, scale: 1.0 })
            }
            "llama3" => self.by_wavelength(&plain),
            "yarn" => self.yarn(&plain, size, base, positions),
            other => Err(Error::Config(format!(
                "llama: positions that are scaled by `{other}` are not known; there is linear, llama3 and yarn"
            ))),
        }
    }

    /// Llama 3.1: long waves are stretched, short ones stay, and those between are between.
    fn by_wavelength(&self, plain: &Rotation) -> Result<Rotation> {
        let factor = self.need("factor", self.factor)?;
        let low = self.need("low_freq_factor", self.low_freq_factor)?;
        let high = self.need("high_freq_factor", self.high_freq_factor)?;
        let original = self.original_max_position_embeddings.map(|positions| positions as f64);
        let original = self.need("original_max_position_embeddings", original)?;
        let scaled = |&frequency: &f64| {
            let wave = TAU / frequency;
            if wave < original / high {
                frequency
            } else if wave > original / low {
                frequency / factor
            } else {
                let smooth = (original / wave - low) / (high - low);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        };
        Ok(Rotation { frequencies: plain.frequencies.iter().map(scaled).collect(), scale: 1.0 })
    }

    /// YaRN (Peng et al., 2023): as with wavelengths, by how often a pair turns within the first length; and longer heads.
    fn yarn(&self, plain: &Rotation, size: usize, base: f64, positions: usize) -> Result<Rotation> {
        const BETA_FAST: f64 = 32.0;
        const BETA_SLOW: f64 = 1.0;
        let original = self.original_max_position_embeddings.unwrap_or(positions) as f64;
        let factor = match self.factor {
            None => positions as f64 / original,
            some => self.need("factor", some)?,
        };
        // The pair that turns so often.
        let pair = |turns: f64| size as f64 * (original / (turns * TAU)).ln() / (2.0 * base.ln());
        let (mut first, mut last) =
            (pair(self.beta_fast.unwrap_or(BETA_FAST)), pair(self.beta_slow.unwrap_or(BETA_SLOW)));
        if self.truncate.unwrap_or(true) {
            (first, last) = (first.floor(), last.ceil());
        }
        let (first, mut last) = (first.max(0.0), last.min(size as f64 - 1.0));
        if first == last {
            last += 0.001;
        }
        let scaled = |(number, frequency): (usize, &f64)| {
            let stretched = ((number as f64 - first) / (last - first)).clamp(0.0, 1.0);
            frequency / factor * stretched + frequency * (1.0 - stretched)
        };
        let frequencies = plain.frequencies.iter().enumerate().map(scaled).collect();
        let longer = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
        let scale = match (self.attention_factor, self.mscale, self.mscale_all_dim) {
            (Some(factor), _, _) => factor,
            (None, Some(one), Some(all)) if one != 0.0 && all != 0.0 => longer(one) / longer(all),
            _ => longer(1.0),
        };
        Ok(Rotation { frequencies, scale })
    }
}
