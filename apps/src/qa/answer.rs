//! The answer that a model writes from passages of the documents.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Material, PROGRAM, not_answered};
use crate::program::Failure;
use crate::prompt::{Prompter, user};
use crate::terminal::output::Output;
use crate::text::chunk::Count;
use crate::text::passage::paragraph_of;

/// What the model is to say where the passages do not answer.
const NOT_FOUND: &str = "NOT FOUND";

/// Tokens that an answer may take, and the share of the context that is kept for it.
const ANSWER_MAX: u32 = 1024;
const ANSWER_SHARE: u32 = 4;

/// Sentences on each side of one that was found that go with it.
const AROUND: usize = 2;

/// Tokens that the number of a passage and the breaks around it take.
const PASSAGE_MARKS: usize = 8;

/// Asks the model and prints its answer, with its sources.
pub fn answer(
    prompter: &mut Prompter,
    material: &Material,
    question: &str,
    cite: bool,
) -> Result<(), Failure> {
    let context = prompter.model().context_tokens;
    let around = prompter.prompt_tokens(vec![user(prompt("", question))])?;
    let kept = ANSWER_MAX.min(context / ANSWER_SHARE);
    let Some(room) = context.checked_sub(around + kept) else {
        return Err(Failure::Message(format!(
            "the question takes {around} tokens of the {context} that model `{}` has; ask a shorter one, or mount it with a larger --context",
            prompter.model().name
        )));
    };
    let passages = choose(prompter, material, question, room as usize)?;
    if passages.is_empty() {
        return Err(not_answered());
    }
    let shown: String =
        passages.iter().zip(1..).map(|(range, n)| format!("[{n}] {}\n\n", text(material, range))).collect();
    let mut gate = Gate { output: Output::stdout(), held: String::new(), open: false };
    let answered =
        prompter.ask(vec![user(prompt(&shown, question))], ANSWER_MAX, &mut |piece| gate.write(piece))?;
    gate.end()?;
    if !gate.open {
        return Err(not_answered());
    }
    gate.output.write("\n")?;
    for n in cited(&answered, passages.len()) {
        let place = material.place(passages[n - 1].start);
        if cite {
            gate.output.write(&format!("[{n}] {place}\n"))?;
        } else {
            note!("{PROGRAM}: [{n}] {place}");
        }
    }
    Ok(())
}

fn prompt(passages: &str, question: &str) -> String {
    format!(
        "Answer the question from the passages alone, in the language of the question, as briefly as it allows. \
         Name the passages that you used by their numbers, like [1]. If the passages do not answer the question, \
         reply with exactly {NOT_FOUND}.\n\n{passages}Question: {question}"
    )
}

/// The passages that fit the question best and together have room, in the order of the documents.
fn choose(
    prompter: &mut Prompter,
    material: &Material,
    question: &str,
    mut room: usize,
) -> Result<Vec<Range<usize>>, Failure> {
    let mut taken = BTreeSet::new();
    for found in material.retriever.search(question) {
        let paragraph = paragraph_of(material.sentences, found.sentence);
        let from = found.sentence.saturating_sub(AROUND).max(paragraph.start);
        let to = (found.sentence + AROUND + 1).min(paragraph.end);
        let new: Vec<usize> = (from..to).filter(|n| !taken.contains(n)).collect();
        let mut cost = PASSAGE_MARKS;
        for &n in &new {
            cost += prompter.count(material.sentences[n].text)? + 1;
        }
        if cost > room {
            break;
        }
        room -= cost;
        taken.extend(new);
    }
    Ok(runs(material, &taken))
}

/// Neighbours in one paragraph make one passage.
fn runs(material: &Material, taken: &BTreeSet<usize>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for &n in taken {
        match runs.last_mut() {
            Some(run)
                if run.end == n && material.sentences[n - 1].paragraph == material.sentences[n].paragraph =>
            {
                run.end = n + 1;
            }
            _ => runs.push(n..n + 1),
        }
    }
    runs
}

fn text(material: &Material, range: &Range<usize>) -> String {
    let texts: Vec<&str> = material.sentences[range.clone()].iter().map(|s| s.text).collect();
    texts.join(" ")
}

/// The numbers of passages that an answer names.
fn cited(answer: &str, passages: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = answer
        .split('[')
        .skip(1)
        .filter_map(|rest| rest.split_once(']'))
        .flat_map(|(inside, _)| inside.split([',', ' ', ';']))
        .filter_map(|number| number.parse().ok())
        .filter(|number| (1..=passages).contains(number))
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Lets an answer through as soon as it is clear that it is one.
struct Gate {
    output: Output,
    held: String,
    open: bool,
}

impl Gate {
    fn write(&mut self, piece: &str) -> std::io::Result<()> {
        if self.open {
            return self.output.write(piece);
        }
        self.held.push_str(piece);
        if is_beginning_of_not_found(&self.held) {
            return Ok(());
        }
        self.open = true;
        self.output.write(&std::mem::take(&mut self.held))
    }

    /// Nothing more comes: what is held is an answer unless it is the whole mark.
    fn end(&mut self) -> std::io::Result<()> {
        if !self.open && !self.held.is_empty() && !self.held.starts_with(NOT_FOUND) {
            self.open = true;
            self.output.write(&std::mem::take(&mut self.held))?;
        }
        Ok(())
    }
}

/// Whether a text is the mark, or could become it, with or without a full stop.
fn is_beginning_of_not_found(text: &str) -> bool {
    let text = text.trim_end_matches(['.', '。']);
    NOT_FOUND.starts_with(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_named_in_an_answer_are_its_sources() {
        assert_eq!(cited("In 1990 [2], or so [1, 2]. See [9] and [x].", 3), [1, 2]);
        assert_eq!(cited("No idea.", 3), [0; 0]);
    }

    #[test]
    fn mark_is_told_from_an_answer() {
        for held in ["N", "NOT F", "NOT FOUND", "NOT FOUND."] {
            assert!(is_beginning_of_not_found(held), "{held}");
        }
        for answer in ["Nobody", "NOT FOUNDED", "no"] {
            assert!(!is_beginning_of_not_found(answer), "{answer}");
        }
    }
}
