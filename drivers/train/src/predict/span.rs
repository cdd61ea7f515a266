//! Answers in a text: the first and the last token that are likeliest together (Devlin et al., 2019).
//!
//! Where a text has no answer, both are the row's first token, which is what is learned of such questions. A long text has
//! none where no part of it has one.

use super::encoder::{frame, rows, softmax};
use super::{Answer, Predictor};
use crate::data::{QUESTION_TOKENS_MAX, stride_default, windows};
use crate::run::{RunError, Turn};
use crate::token::Frame;

/// Tokens of the longest answer, as BERT's own program has it.
const ANSWER_TOKENS_MAX: usize = 30;

/// The best answer of one part of the text.
struct Best {
    logit: f64,
    score: f64,
    /// Its bytes in the text.
    place: (usize, usize),
    /// The same of there being none.
    none: [f64; 2],
}

/// Finds the answer, or, unless the text is `answerable`, that there is none. A text that is longer than the model reads
/// is looked at in parts that overlap by half.
pub(super) fn answer(
    predictor: &Predictor,
    [question, context]: [&str; 2],
    answerable: bool,
    turn: &mut dyn Turn,
) -> Result<Answer, RunError> {
    predictor.need_head("BertForQuestionAnswering", "answer")?;
    let tokeniser = predictor.tokeniser();
    let mut question = tokeniser.encode(question)?;
    let (ids, places) = tokeniser.encode_with_places(context)?;
    let positions = predictor.model.config().positions();
    // As it was trained.
    question.truncate(QUESTION_TOKENS_MAX);
    let around = question.len() + Frame::AROUND_TWO;
    let Some(room) = positions.checked_sub(around).filter(|room| *room > 0) else {
        let tokens = question.len();
        return Err(RunError::Unfit(format!(
            "the question has {tokens} tokens, and the model reads {positions} with the text; ask a shorter one"
        )));
    };
    if ids.is_empty() {
        return Err(RunError::Unfit("the text is empty; give one that may have the answer".into()));
    }
    let (mut best, mut none): (Option<Best>, _) = (None, [f64::INFINITY, 0.0]);
    for part in windows(ids.len(), room, stride_default(room)) {
        let side = frame(tokeniser, &question, Some(&ids[part.clone()]))?;
        let logits = rows(predictor.model.as_ref(), side, turn)?;
        // The part stands behind [CLS], the question and [SEP].
        let places_of = around - 1..around - 1 + part.len();
        let found = best_of(&logits, places_of, |at| places[part.start + at]);
        if found.none[0] < none[0] {
            none = found.none;
        }
        if best.as_ref().is_none_or(|best| best.logit < found.logit) {
            best = Some(found);
        }
    }
    let Best { logit, score, place: (start, end), .. } = best.expect("there is one part at least");
    if !answerable && none[0] > logit {
        return Ok(Answer::Span { answer: String::new(), start: 0, end: 0, score: none[1] });
    }
    let characters = |bytes: usize| context[..bytes].chars().count();
    let (first, last) = (characters(start), characters(end));
    Ok(Answer::Span { answer: context[start..end].into(), start: first, end: last, score })
}

fn best_of(
    logits: &[Vec<f64>],
    text: std::ops::Range<usize>,
    place: impl Fn(usize) -> (usize, usize),
) -> Best {
    let column = |column: usize| logits.iter().map(|row| row[column]).collect::<Vec<f64>>();
    let (starts, ends) = (column(0), column(1));
    let (mut logit, mut span) = (f64::NEG_INFINITY, (text.start, text.start));
    for (first, start) in starts.iter().enumerate().take(text.end).skip(text.start) {
        let most = text.end.min(first + ANSWER_TOKENS_MAX);
        for (last, end) in ends.iter().enumerate().take(most).skip(first) {
            if start + end > logit {
                (logit, span) = (start + end, (first, last));
            }
        }
    }
    let (likely_starts, likely_ends) = (softmax(&starts), softmax(&ends));
    let score = |first: usize, last: usize| likely_starts[first] * likely_ends[last];
    Best {
        logit,
        score: score(span.0, span.1),
        place: (place(span.0 - text.start).0, place(span.1 - text.start).1),
        none: [starts[0] + ends[0], score(0, 0)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_span_begins_before_it_ends_within_the_text_and_is_not_too_long() {
        let place = |at: usize| (10 * at, 10 * at + 5);
        // The likeliest start is behind the likeliest end, and the best of all lies outside of the text.
        let logits = [[9.0, 9.0], [1.0, 4.0], [5.0, 0.0], [0.0, 3.0]].map(Vec::from);
        let best = best_of(&logits, 1..4, place);
        assert_eq!((best.place, best.none[0]), ((10, 25), 18.0));
        let mut long = vec![vec![0.0, 0.0]; 80];
        (long[0][0], long[70][1], long[29][1]) = (9.0, 9.0, 1.0);
        assert_eq!(best_of(&long, 0..80, place).place, (0, 295));
    }
}
