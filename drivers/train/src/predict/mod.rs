//! What trained models are for: text, hidden tokens, classes, answers in a text, and vectors of texts.
//!
//! A question and its answer are JSON objects. llama.cpp runs decoders and sentence encoders faster; what it does not
//! run is computed here: encoder-decoders, and the heads of encoders.

mod encoder;
mod span;
#[cfg(test)]
mod tests;
mod text;

use serde::{Deserialize, Serialize};

use crate::run::{RunError, Turn};
use crate::token::Tokeniser;
use crate::trained::Trained;
use crate::{Model, ModelConfig};

/// A question to a model.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// Goes on after a text, or after each of several, which are computed together; an encoder-decoder answers it.
    Generate {
        text: Prompts,
        #[serde(default = "max_tokens")]
        max_tokens: usize,
        /// 0 takes the likeliest token always.
        #[serde(default)]
        temperature: f64,
        /// 0 for all.
        #[serde(default)]
        top_k: usize,
        #[serde(default = "one")]
        top_p: f64,
        /// Of several texts the next has one more.
        #[serde(default)]
        seed: u64,
    },
    /// Guesses the hidden tokens of a text.
    FillMask {
        text: String,
        #[serde(default = "choices")]
        top_k: usize,
    },
    /// Tells the class of a text, or of two.
    Classify {
        text: String,
        #[serde(default)]
        second: Option<String>,
    },
    /// Tells the class of each word of a text.
    Tag { text: String },
    /// Finds the answer to a question in a text, or that it has none.
    Answer {
        question: String,
        context: String,
        /// Whether the text has the answer: then the best one is given, however unlikely it is.
        #[serde(default)]
        answerable: bool,
    },
    /// Turns texts into vectors of length 1.
    Embed { texts: Vec<String> },
}

/// One text, or several.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "`text` is neither a text nor a list of texts")]
pub enum Prompts {
    One(String),
    Many(Vec<String>),
}

fn max_tokens() -> usize {
    128
}

fn one() -> f64 {
    1.0
}

fn choices() -> usize {
    5
}

/// What a model answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    Text(Written),
    Texts {
        texts: Vec<Written>,
    },
    /// For each hidden token, the likeliest ones.
    Masks {
        masks: Vec<Vec<Choice>>,
    },
    /// All classes, the likeliest first. The score of a model that learned numbers is the number.
    Labels {
        labels: Vec<Label>,
    },
    /// All words in their order.
    Words {
        words: Vec<Word>,
    },
    /// Where the answer stands in the text, in characters; an empty one at 0 says that the text has none.
    Span {
        answer: String,
        start: usize,
        end: usize,
        score: f64,
    },
    Vectors {
        vectors: Vec<Vec<f32>>,
    },
}

/// A text that a model has written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    pub text: String,
    pub tokens: usize,
    pub finish: Finish,
}

/// Why a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model has ended it.
    End,
    /// It has as many tokens as were asked for, or as the model has places for.
    Length,
}

/// A token that may stand in a hidden place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    pub token: String,
    /// The whole text with it.
    pub text: String,
    pub score: f64,
}

/// A class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Label {
    pub label: String,
    pub score: f64,
}

/// A word with its likeliest class, and where it stands in the text, in characters.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Word {
    pub word: String,
    pub label: String,
    pub score: f64,
    pub start: usize,
    pub end: usize,
}

/// A model that answers.
pub struct Predictor {
    trained: Trained,
    model: Box<dyn Model>,
    /// The same layers without a head, once vectors were asked for.
    vectors: Option<Box<dyn Model>>,
}

impl Predictor {
    /// With a trained model.
    ///
    /// # Errors
    ///
    /// Weights that are not those of the configuration.
    pub fn new(trained: Trained) -> Result<Predictor, RunError> {
        Ok(Predictor { model: trained.model()?, trained, vectors: None })
    }

    /// Answers a question. `turn` is asked before every pass.
    ///
    /// # Errors
    ///
    /// The model is not one for this task, or the text does not fit.
    pub fn answer(&mut self, question: &Question, turn: &mut dyn Turn) -> Result<Answer, RunError> {
        match question {
            Question::Generate { .. } => text::generate(self, question, turn),
            Question::FillMask { text, top_k } => encoder::fill_mask(self, text, *top_k, turn),
            Question::Classify { text, second } => encoder::classify(self, text, second.as_deref(), turn),
            Question::Tag { text } => encoder::tag(self, text, turn),
            Question::Answer { question, context, answerable } => {
                span::answer(self, [question, context], *answerable, turn)
            }
            Question::Embed { texts } => encoder::embed(self, texts, turn),
        }
    }

    fn tokeniser(&self) -> &Tokeniser {
        &self.trained.tokeniser
    }

    /// Checks that the model has the head for a task.
    fn need_head(&self, head: &str, task: &str) -> Result<(), RunError> {
        let ModelConfig::Bert(config) = &self.trained.config else {
            return Err(RunError::Unfit(format!("{task} takes a BERT; {} is none", self.trained.name)));
        };
        let has = config.architecture();
        match has == head || (head == "BertForMaskedLM" && config.guesses()) {
            true => Ok(()),
            false => Err(RunError::Unfit(format!(
                "{task} takes a {head}; {} is a {has}. Train it for this task",
                self.trained.name
            ))),
        }
    }
}
