//! Encoders: hidden tokens, classes, vectors.

use candle_core::DType;

use super::{Answer, Choice, Label, Predictor, Word};
use crate::batch::{Batch, Side};
use crate::models::build;
use crate::models::config::Problem;
use crate::run::{MicroStep, RunError, Turn};
use crate::token::{Frame, Framed, Special, Tokeniser};
use crate::{Model, ModelConfig, Pass};

/// Guesses the hidden tokens of a text.
pub(super) fn fill_mask(
    predictor: &Predictor,
    text: &str,
    top_k: usize,
    turn: &mut dyn Turn,
) -> Result<Answer, RunError> {
    predictor.need_head("BertForMaskedLM", "fill_mask")?;
    let tokeniser = predictor.tokeniser();
    let mask = tokeniser.need(Special::Mask)?;
    let framed = framed(predictor, text, None)?;
    let hidden: Vec<usize> = (0..framed.length).filter(|at| framed.tokens[*at] == mask).collect();
    if hidden.is_empty() {
        let name = tokeniser.token(mask).unwrap_or_default();
        return Err(RunError::Unfit(format!(
            "the text hides no token; write {name} where one is to be guessed"
        )));
    }
    let rows = rows(predictor.model.as_ref(), framed.clone(), turn)?;
    let guess = |at: usize| -> Result<Vec<Choice>, RunError> {
        let scores = softmax(&rows[at]);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
        let choice = |id: usize| -> Result<Choice, RunError> {
            let mut tokens = framed.tokens.clone();
            tokens[at] = id as u32;
            let token = tokeniser.token(id as u32).unwrap_or_default();
            Ok(Choice { token, text: tokeniser.decode(&tokens)?, score: scores[id] })
        };
        order.into_iter().take(top_k).map(choice).collect()
    };
    Ok(Answer::Masks { masks: hidden.into_iter().map(guess).collect::<Result<_, _>>()? })
}

/// Tells the class of a text, or how likely each of its classes is by itself, or the number of it.
pub(super) fn classify(
    predictor: &Predictor,
    text: &str,
    second: Option<&str>,
    turn: &mut dyn Turn,
) -> Result<Answer, RunError> {
    predictor.need_head("BertForSequenceClassification", "classify")?;
    let batch = Batch { input: framed(predictor, text, second)?, ..Batch::default() };
    turn.take(MicroStep { step: 0, number: 0, tokens: batch.input.length });
    let logits = predictor.model.logits(&batch, &Pass::evaluation())?;
    let logits = logits.to_dtype(DType::F64).and_then(|logits| logits.to_vec2::<f64>());
    let logits = logits.map_err(crate::Error::from)?.swap_remove(0);
    let problem = match &predictor.trained.config {
        ModelConfig::Bert(config) => config.problem_type,
        _ => None,
    };
    let scores = match problem {
        Some(Problem::Number) => logits,
        Some(Problem::Classes) => logits.into_iter().map(|logit| (1.0 + (-logit).exp()).recip()).collect(),
        Some(Problem::Class) | None => softmax(&logits),
    };
    let mut labels: Vec<Label> = scores
        .iter()
        .enumerate()
        .map(|(number, &score)| Label { label: label(predictor, number), score })
        .collect();
    labels.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(Answer::Labels { labels })
}

/// Tells the class of each word of a text, by its first token.
pub(super) fn tag(predictor: &Predictor, text: &str, turn: &mut dyn Turn) -> Result<Answer, RunError> {
    predictor.need_head("BertForTokenClassification", "tag")?;
    let encoding = predictor.tokeniser().encoding(text)?;
    let side = framed_ids(predictor, encoding.get_ids(), None)?;
    let logits = rows(predictor.model.as_ref(), side, turn)?;
    let mut words: Vec<(u32, usize, (usize, usize))> = Vec::new();
    let pieces = encoding.get_word_ids().iter().zip(encoding.get_offsets()).enumerate();
    for (at, (word, place)) in pieces.filter_map(|(at, (word, place))| Some((at, ((*word)?, *place)))) {
        match words.last_mut() {
            Some((last, _, whole)) if *last == word => whole.1 = place.1,
            _ => words.push((word, at, place)),
        }
    }
    let characters = |bytes: usize| text[..bytes].chars().count();
    let told = words.into_iter().map(|(_, at, (start, end))| {
        // [CLS] stands before the text.
        let scores = softmax(&logits[at + 1]);
        let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap_or(0);
        Word {
            word: text[start..end].to_owned(),
            label: label(predictor, best),
            score: scores[best],
            start: characters(start),
            end: characters(end),
        }
    });
    Ok(Answer::Words { words: told.collect() })
}

/// The name of a class.
fn label(predictor: &Predictor, number: usize) -> String {
    let known = match &predictor.trained.config {
        ModelConfig::Bert(config) => config.id2label.as_ref().and_then(|names| names.get(&(number as u32))),
        _ => None,
    };
    known.cloned().unwrap_or_else(|| format!("LABEL_{number}"))
}

/// Turns texts into vectors: the mean over the tokens, of length 1.
pub(super) fn embed(
    predictor: &mut Predictor,
    texts: &[String],
    turn: &mut dyn Turn,
) -> Result<Answer, RunError> {
    if predictor.vectors.is_none() {
        predictor.vectors = Some(without_head(predictor)?);
    }
    let model = predictor.vectors.as_deref().expect("it was just made");
    let mut vectors = Vec::with_capacity(texts.len());
    for text in texts {
        let batch = Batch { input: framed(predictor, text, None)?, ..Batch::default() };
        turn.take(MicroStep { step: 0, number: vectors.len(), tokens: batch.input.length });
        let logits = model.logits(&batch, &Pass::evaluation())?;
        let rows = logits.to_dtype(DType::F32).and_then(|rows| rows.to_vec2::<f32>());
        vectors.extend(rows.map_err(crate::Error::from)?);
    }
    Ok(Answer::Vectors { vectors })
}

fn without_head(predictor: &Predictor) -> Result<Box<dyn Model>, RunError> {
    let ModelConfig::Bert(config) = &predictor.trained.config else {
        let name = &predictor.trained.name;
        return Err(RunError::Unfit(format!(
            "embed takes a BERT; {name} is none. Mount it, and use `embed` there"
        )));
    };
    let mut config = config.clone();
    config.architectures = vec!["BertModel".into()];
    let model = build(&ModelConfig::Bert(config), DType::F32, 0)?;
    model.parameters().load(&predictor.trained.weights)?;
    Ok(model)
}

/// A text, or two, as BERT reads them.
pub(super) fn framed(predictor: &Predictor, text: &str, second: Option<&str>) -> Result<Side, RunError> {
    let tokeniser = predictor.tokeniser();
    let second = second.map(|second| tokeniser.encode(second)).transpose()?;
    framed_ids(predictor, &tokeniser.encode(text)?, second.as_deref())
}

/// The same of their tokens.
fn framed_ids(predictor: &Predictor, first: &[u32], second: Option<&[u32]>) -> Result<Side, RunError> {
    let side = frame(predictor.tokeniser(), first, second)?;
    let most = predictor.model.config().positions();
    match side.length > most {
        true => Err(RunError::Unfit(format!(
            "the text has {} tokens with those around it, and the model reads {most}; give less",
            side.length
        ))),
        false => Ok(side),
    }
}

/// One or two texts as a row.
pub(super) fn frame(tokeniser: &Tokeniser, first: &[u32], second: Option<&[u32]>) -> Result<Side, RunError> {
    let Framed { tokens, types } = Frame::of(tokeniser)?.around(first, second);
    let length = tokens.len();
    Ok(Side { types, ..Side::new(tokens, length) })
}

/// What comes out of one row, token by token.
pub(super) fn rows(model: &dyn Model, input: Side, turn: &mut dyn Turn) -> Result<Vec<Vec<f64>>, RunError> {
    turn.take(MicroStep { step: 0, number: 0, tokens: input.length });
    let batch = Batch { input, ..Batch::default() };
    let logits = model.logits(&batch, &Pass::evaluation())?;
    let rows = logits.to_dtype(DType::F64).and_then(|rows| rows.to_vec3::<f64>());
    Ok(rows.map_err(crate::Error::from)?.swap_remove(0))
}

/// Probabilities of logits.
pub(super) fn softmax(logits: &[f64]) -> Vec<f64> {
    let greatest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|logit| (logit - greatest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}
