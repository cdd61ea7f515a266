//! Texts as vectors of meaning, by a mounted encoder. A text that is longer than the encoder's context becomes
//! the mean of its parts, so that no part goes unseen.

use syscalls::Fault;
use syscalls::client::blocking::Client;
use syscalls::reply::ModelInfo;

use crate::text::chunk::{self, Count};

/// Texts in one call. Small, so that other processes get the model in between.
const TEXTS_PER_CALL: usize = 64;

/// Tokens that encoders put around a text.
const MARKS: usize = 8;

/// A connection that embeds with one model.
pub struct Encoder<'a> {
    client: &'a mut Client,
    model: &'a ModelInfo,
}

impl<'a> Encoder<'a> {
    /// Will embed with `model`.
    pub fn new(client: &'a mut Client, model: &'a ModelInfo) -> Encoder<'a> {
        Encoder { client, model }
    }

    /// The vectors of the texts, of length 1 each.
    ///
    /// # Errors
    ///
    /// Those of the calls.
    pub fn vectors(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Fault> {
        let mut parts = Vec::new();
        let mut parts_of = Vec::with_capacity(texts.len());
        for text in texts {
            let before = parts.len();
            self.split(text, &mut parts)?;
            parts_of.push(before..parts.len());
        }
        let mut vectors = Vec::with_capacity(parts.len());
        for batch in parts.chunks(TEXTS_PER_CALL) {
            vectors.extend(self.client.embed(Some(&self.model.name), batch.to_vec())?);
        }
        Ok(parts_of.into_iter().map(|range| mean(&vectors[range])).collect())
    }

    /// Adds a text, in parts where it is too long. A token has at least one byte, so most need no counting.
    fn split(&mut self, text: &str, parts: &mut Vec<String>) -> Result<(), Fault> {
        let room = (self.model.context_tokens as usize).saturating_sub(MARKS).max(1);
        if text.len() <= room {
            parts.push(text.to_owned());
            return Ok(());
        }
        let ranges = chunk::chunks(text, room, self)?;
        parts.extend(ranges.into_iter().map(|range| text[range].to_owned()));
        Ok(())
    }
}

impl Count for Encoder<'_> {
    type Error = Fault;

    fn count(&mut self, text: &str) -> Result<usize, Fault> {
        Ok(self.client.tokenize(Some(&self.model.name), text)?.len())
    }
}

/// The direction between several vectors.
fn mean(vectors: &[Vec<f32>]) -> Vec<f32> {
    let [first, rest @ ..] = vectors else { return Vec::new() };
    let mut sum = first.clone();
    for vector in rest {
        sum.iter_mut().zip(vector).for_each(|(s, v)| *s += v);
    }
    let length = sum.iter().map(|v| v * v).sum::<f32>().sqrt();
    if length > 0.0 {
        sum.iter_mut().for_each(|v| *v /= length);
    }
    sum
}

/// The cosine of two vectors of length 1.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_of_vectors_has_length_one() {
        let vector = mean(&[vec![1.0, 0.0], vec![0.0, 1.0]]);
        assert!((cosine(&vector, &vector) - 1.0).abs() < 1e-6, "{vector:?}");
        assert_eq!(mean(&[vec![1.0, 0.0]]), [1.0, 0.0]);
        assert_eq!(mean(&[vec![0.0]]), [0.0]);
    }
}
