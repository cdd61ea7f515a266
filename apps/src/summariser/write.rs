//! The summary that a model writes. A text that is longer than the model's context is summarised in parts, and
//! then the summaries are, until what is left fits.

use std::io::{self, IsTerminal};

use super::PROGRAM;
use crate::program::Failure;
use crate::prompt::{Prompter, user};
use crate::terminal::output::Output;
use crate::text::chunk::{Count, chunks};
use crate::text::document::Document;
use crate::text::language::Language;
use crate::text::script::count_words;

/// Tokens that a summary may take, and the share of the context that is kept for it.
const ANSWER_MAX: u32 = 1024;
const ANSWER_SHARE: u32 = 4;

/// Words of the summary of a part.
const PART_WORDS: usize = 120;

/// Below this many tokens no text worth a summary has room beside the instructions.
const ROOM_MIN: u32 = 64;

/// Prints a summary of the documents of about `words` words. `told` says that the user chose the number.
pub fn write(
    prompter: &mut Prompter,
    documents: &[Document],
    words: usize,
    told: bool,
) -> Result<(), Failure> {
    let texts: Vec<&str> = documents.iter().map(|d| d.text.trim()).collect();
    let mut text = texts.join("\n\n");
    let language = Language::guess(&text);
    let context = prompter.model().context_tokens;
    let instructions = prompter.prompt_tokens(vec![user(whole(language, words, ""))])?;
    let kept = ANSWER_MAX.min(context / ANSWER_SHARE);
    let room = context.saturating_sub(instructions + kept);
    if room < ROOM_MIN {
        return Err(Failure::Message(format!(
            "the context of model `{}` is {context} tokens, which leaves no room for text; mount it with a larger --context",
            prompter.model().name
        )));
    }
    loop {
        let parts = chunks(&text, room as usize, prompter)?;
        if parts.len() <= 1 {
            break;
        }
        let parts: Vec<&str> = parts.into_iter().map(|range| &text[range]).collect();
        text = in_parts(prompter, &parts, language, kept)?;
    }
    print(prompter, &text, language, words, told, kept)
}

/// Summarises each part, and gives the summaries as one text.
fn in_parts(
    prompter: &mut Prompter,
    parts: &[&str],
    language: Option<Language>,
    kept: u32,
) -> Result<String, Failure> {
    let mut summaries = Vec::with_capacity(parts.len());
    let mut tokens = (0, 0);
    for (at, text) in parts.iter().enumerate() {
        if io::stderr().is_terminal() {
            note!("{PROGRAM}: part {} of {}", at + 1, parts.len());
        }
        let summary = prompter.ask(vec![user(part(language, text))], kept, &mut |_| Ok(()))?;
        if summary.is_empty() {
            // The summary of the others would say nothing of this part, and of nothing a model makes something up.
            return Err(wrote_nothing(prompter));
        }
        tokens.0 += prompter.count(text)?;
        tokens.1 += prompter.count(&summary)?;
        summaries.push(summary);
    }
    // Each round must come nearer to the end, or there is none.
    if tokens.1 * 2 > tokens.0 {
        return Err(Failure::Message(format!(
            "model `{}` made {} tokens of text no shorter than {}; try another model, a larger --context, or --extract",
            prompter.model().name,
            tokens.0,
            tokens.1
        )));
    }
    Ok(summaries.join("\n\n"))
}

fn print(
    prompter: &mut Prompter,
    text: &str,
    language: Option<Language>,
    words: usize,
    told: bool,
    kept: u32,
) -> Result<(), Failure> {
    let mut output = Output::stdout();
    let summary =
        prompter.ask(vec![user(whole(language, words, text))], kept, &mut |piece| output.write(piece))?;
    output.write("\n")?;
    if summary.is_empty() {
        return Err(wrote_nothing(prompter));
    }
    let written = count_words(&summary);
    if told && written > words {
        note!("{PROGRAM}: the model wrote {written} words, more than --words {words}");
    }
    Ok(())
}

fn wrote_nothing(prompter: &Prompter) -> Failure {
    let name = &prompter.model().name;
    Failure::Message(format!("model `{name}` wrote nothing; try another model or --extract"))
}

fn whole(language: Option<Language>, words: usize, text: &str) -> String {
    format!(
        "Summarise the following text{} in at most {words} words. Say only what the text says. Reply with the \
         summary alone.\n\n{text}",
        in_language(language)
    )
}

fn part(language: Option<Language>, text: &str) -> String {
    format!(
        "The following is a part of a longer text. Summarise the part{} in at most {PART_WORDS} words. Keep names, \
         numbers and results. Reply with the summary alone.\n\n{text}",
        in_language(language)
    )
}

fn in_language(language: Option<Language>) -> String {
    language.map(|l| format!(" in {l}")).unwrap_or_default()
}
