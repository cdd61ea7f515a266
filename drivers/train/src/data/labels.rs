//! What stands beside a text: the name of a class, several of them, or a number.

use serde::Serialize;
use std::collections::BTreeSet;

use super::error::DataError;
use super::limits::LABELS_MAX;
use super::record::{Mark, Record, Records};

/// The label that counts for nothing where the specification names none, as in PyTorch and Hugging Face.
const IGNORED: &str = "-100";

/// Stands behind each label of a list, so that labels may have commas in them.
const BEHIND: char = '\u{1f}';

/// What the labels of texts are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Targets {
    /// One class each.
    #[default]
    Class,
    /// Any number of classes each.
    Classes,
    /// A number each.
    Number,
    /// A number for two texts, which are rows of their own.
    Nearness,
}

/// How records become tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// Tokens of a row; texts with questions are cut into parts for it.
    pub length: usize,
    pub targets: Targets,
    /// A label that counts for nothing.
    pub ignore: Option<String>,
    /// Classes that there are already, in their order: those of a model that was trained before, or of the training data.
    /// Data that have no others have these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<String>,
}

impl Reading {
    /// With rows of so many tokens, and a class for each text.
    pub fn of(length: usize) -> Reading {
        Reading { length, ..Reading::default() }
    }

    /// Whether a label counts for nothing.
    pub fn ignores(&self, label: &str) -> bool {
        label == self.ignore.as_deref().unwrap_or(IGNORED)
    }

    /// All classes: those that are known, where there are no others; else numbers in their order, or names in theirs. None
    /// where labels are numbers to come near to.
    pub fn labels(&self, records: Records) -> Result<Vec<String>, DataError> {
        if matches!(self.targets, Targets::Number | Targets::Nearness) {
            return Ok(Vec::new());
        }
        let mut found = BTreeSet::new();
        for marked in records {
            let marked = marked?;
            let mut add = |label: &str| {
                if !self.ignores(label) && !found.contains(label) {
                    found.insert(label.to_owned());
                }
            };
            match marked.record {
                Record::Labelled { label, .. } if self.targets == Targets::Classes => {
                    split(&label).for_each(add)
                }
                Record::Labelled { label, .. } if label.contains(BEHIND) => {
                    let why =
                        "has a list of classes for a text; `loss: BinaryCrossEntropy` learns from these";
                    return Err(marked.mark.error(why));
                }
                Record::Labelled { label, .. } => add(&label),
                Record::Tagged { tags, .. } => tags.iter().for_each(|tag| add(tag)),
                _ => {}
            }
            if found.len() > LABELS_MAX {
                let why = format!(
                    "there are more than {LABELS_MAX} different labels, which is the limit; is it the right column?"
                );
                return Err(marked.mark.error(why));
            }
        }
        if !self.known.is_empty() && found.is_subset(&self.known.iter().cloned().collect()) {
            return Ok(self.known.clone());
        }
        let mut labels: Vec<String> = found.into_iter().collect();
        if labels.iter().all(|label| label.parse::<i64>().is_ok()) {
            labels.sort_by_key(|label| label.parse::<i64>().ok());
        }
        Ok(labels)
    }
}

/// Writes a list of labels as one.
pub(super) fn join<'a>(labels: impl IntoIterator<Item = &'a str>) -> String {
    // An empty list is not an empty label.
    let joined: String = labels.into_iter().flat_map(|label| label.chars().chain([BEHIND])).collect();
    if joined.is_empty() { BEHIND.into() } else { joined }
}

/// The labels of a list, or of text in which they have commas between them.
pub(super) fn split(label: &str) -> impl Iterator<Item = &str> {
    let between = if label.contains(BEHIND) { BEHIND } else { ',' };
    label.split(between).map(str::trim).filter(|label| !label.is_empty())
}

/// The number that a label is.
pub(super) fn number(label: &str, mark: &Mark) -> Result<f32, DataError> {
    let number = label.trim().parse::<f32>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| {
        let why = format!(
            "has the label {label:?} where a number is to be learned; give numbers, or learn classes"
        );
        mark.error(why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_labels_come_back_as_they_were() {
        for list in [vec![], vec!["a"], vec!["a, b", "c"]] {
            assert_eq!(split(&join(list.iter().copied())).collect::<Vec<_>>(), list);
        }
        assert_eq!(split("a, b,").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(split("").count(), 0);
    }
}
