//! `translator`: translates texts, sentence by whole sentence, however long they are.
//!
//! Paragraphs are translated one after another, so the layout of the text is that of the source and not what a
//! model makes of it. A long paragraph goes in chunks of whole sentences; each chunk sees the end of the one
//! before it, with its translation, so that names and forms of address stay the same.

use std::path::PathBuf;

use clap::Parser;
use syscalls::call::{Class, Message};

use crate::model::{INSTRUCTED, Mounted};
use crate::program::{Failure, ModelArgs};
use crate::prompt::{Prompter, assistant, user};
use crate::terminal::output::Output;
use crate::text::chunk::chunks;
use crate::text::document::{Document, read_all};
use crate::text::language::Language;
use crate::text::layout::paragraphs;
use crate::text::sentence::sentences;

/// Translates texts with a model that follows instructions
///
/// The text comes from the files, or from standard input; the translation goes to standard output as it comes.
/// Long texts go to the model in parts of whole sentences, and nothing is left out.
#[derive(Debug, Parser)]
#[command(name = "translator", version, after_help = EXAMPLES)]
pub struct Args {
    /// The language of the text [default: the model sees for itself]
    #[arg(long, short, value_name = "LANGUAGE", value_parser = Language::named)]
    pub from: Option<Language>,
    /// The language to translate to: a code (de, zh-Hant), an English name, or its own name (Deutsch, 中文)
    #[arg(long, short, value_name = "LANGUAGE", value_parser = Language::named)]
    pub to: Language,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Texts; - is standard input
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  translator --to de letter.txt
  translator --from Chinese --to English < article.txt > article.en.txt
  summariser article.txt | translator --to français";

const PROGRAM: &str = "translator";

/// The most tokens of one chunk. Models translate a page well and a chapter badly, whatever their context.
const CHUNK_TOKENS_MAX: u32 = 512;

/// Below this a chunk is no sentence any more.
const CHUNK_TOKENS_MIN: u32 = 16;

/// A chunk's share of the room in a context: beside the chunk itself there are its translation, which may take
/// twice as many tokens in another script, and the end of the previous chunk with its translation.
const CHUNK_SHARE: u32 = 5;

/// Tokens of an answer for each of its chunk, and beyond, before it counts as endless. Models that think aloud
/// first need many.
const ANSWER_PER_TOKEN: u32 = 8;
const ANSWER_BEYOND: u32 = 1024;

/// Runs the program.
///
/// # Errors
///
/// No model can translate, an input is no text, or the daemon or SIGINT ends it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.model.connect(PROGRAM, Class::Normal)?;
    let model = Mounted::list(&mut client)?
        .instructed(args.model.model.as_deref())
        .map_err(|unfit| Failure::Message(format!("{unfit}; translating needs {INSTRUCTED}")))?;
    let documents = read_all(&args.files, PROGRAM)?;
    let prompter = Prompter::new(PROGRAM, client, model, &args.model, 0.0)?;
    let mut translator = Translator::new(prompter, args.from, args.to)?;
    for (at, document) in documents.iter().enumerate() {
        if at > 0 && !documents[at - 1].text.ends_with('\n') {
            translator.output.write("\n")?;
        }
        translator.document(document)?;
    }
    Ok(translator.output.end()?)
}

struct Translator {
    prompter: Prompter,
    from: Option<Language>,
    to: Language,
    output: Output,
    /// The most tokens of a chunk.
    chunk_tokens: u32,
    /// The end of the previous chunk and its translation.
    previous: Option<(String, String)>,
}

impl Translator {
    fn new(mut prompter: Prompter, from: Option<Language>, to: Language) -> Result<Translator, Failure> {
        let instructions = prompter.prompt_tokens(vec![user(instruction(from, to))])?;
        let context = prompter.model().context_tokens;
        let chunk_tokens = (context.saturating_sub(instructions) / CHUNK_SHARE).min(CHUNK_TOKENS_MAX);
        if chunk_tokens < CHUNK_TOKENS_MIN {
            return Err(Failure::Message(format!(
                "the context of model `{}` is {context} tokens, which leaves no room for text; mount it with a larger --context",
                prompter.model().name
            )));
        }
        Ok(Translator { prompter, from, to, output: Output::stdout(), chunk_tokens, previous: None })
    }

    fn document(&mut self, document: &Document) -> Result<(), Failure> {
        self.previous = None;
        let text = &document.text;
        if self.from.is_none() && Language::guess(text).is_some_and(|l| l.is_same_as(self.to)) {
            note!("{PROGRAM}: {} seems to be {} already; --from says what it is", document.name, self.to);
        }
        for range in paragraphs(text) {
            self.paragraph(&text[range])?;
        }
        Ok(())
    }

    fn paragraph(&mut self, paragraph: &str) -> Result<(), Failure> {
        for range in chunks(paragraph, self.chunk_tokens as usize, &mut self.prompter)? {
            let is_last = range.end == paragraph.len();
            let chunk = &paragraph[range];
            let trailing = &chunk[chunk.trim_end().len()..];
            self.chunk(chunk.trim_end())?;
            let space = if is_last { trailing } else { space_between(trailing, self.to) };
            self.output.write(space)?;
        }
        Ok(())
    }

    /// Translates a chunk and leaves the space before it as it is.
    fn chunk(&mut self, chunk: &str) -> Result<(), Failure> {
        let text = chunk.trim_start();
        self.output.write(&chunk[..chunk.len() - text.len()])?;
        if text.contains(char::is_alphabetic) { self.translate(text) } else { Ok(self.output.write(text)?) }
    }

    fn translate(&mut self, text: &str) -> Result<(), Failure> {
        let tokens = self.chunk_tokens;
        let messages = self.messages(text);
        let output = &mut self.output;
        let answer_max = tokens * ANSWER_PER_TOKEN + ANSWER_BEYOND;
        let translation = self.prompter.ask(messages, answer_max, &mut |piece| output.write(piece))?;
        if translation.is_empty() {
            let begin: String = text.chars().take(40).collect();
            return Err(Failure::Message(format!(
                "model `{}` gave no translation of the part that begins `{begin}`; try another model",
                self.prompter.model().name
            )));
        }
        self.previous = last_pair(text, &translation);
        Ok(())
    }

    fn messages(&self, text: &str) -> Vec<Message> {
        let ask = |text: &str| user(format!("{}\n\n{text}", instruction(self.from, self.to)));
        let previous =
            self.previous.iter().flat_map(|(source, translation)| [ask(source), assistant(translation)]);
        previous.chain([ask(text)]).collect()
    }
}

/// The space between two sentences, as the target language has it: a Chinese full stop has none behind it, an
/// English one has.
fn space_between(space: &str, to: Language) -> &str {
    match (space.contains('\n'), to.joins_words()) {
        (true, _) => space,
        (false, true) => "",
        (false, false) if space.is_empty() => " ",
        (false, false) => space,
    }
}

fn instruction(from: Option<Language>, to: Language) -> String {
    let from = from.map(|l| format!(" from {l}")).unwrap_or_default();
    format!(
        "Translate the following text{from} into {to}. Reply with the translation alone, without notes or \
         quotation marks around it. Keep names, numbers and line breaks."
    )
}

/// The last sentences of a text and its translation, where they correspond: both have as many.
fn last_pair(text: &str, translation: &str) -> Option<(String, String)> {
    let (source, target) = (sentences(text), sentences(translation));
    if source.len() != target.len() {
        return None;
    }
    let last = |text: &str, ranges: &[std::ops::Range<usize>]| {
        ranges.last().map(|range| text[range.clone()].trim().to_owned())
    };
    Some((last(text, &source)?, last(translation, &target)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_languages_in_any_way() {
        let args = Args::try_parse_from(["translator", "--to", "Deutsch"]).expect("a language");
        assert_eq!((args.to.code(), args.from), ("de", None));
        let error = Args::try_parse_from(["translator", "--to", "Germn"]).expect_err("no language");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("did you mean `German`?"), "{error}");
    }

    #[test]
    fn instruction_names_both_languages() {
        let language = |name| Language::named(name).expect("a language");
        let shown = instruction(Some(language("zh-TW")), language("de"));
        assert!(
            shown.starts_with("Translate the following text from Traditional Chinese into German."),
            "{shown}"
        );
    }

    #[test]
    fn space_between_sentences_is_that_of_the_target() {
        let language = |name| Language::named(name).expect("a language");
        assert_eq!(space_between("", language("en")), " ");
        assert_eq!(space_between(" ", language("zh")), "");
        assert_eq!(space_between("\n", language("zh")), "\n");
    }

    #[test]
    fn last_sentences_pair_where_both_texts_have_as_many() {
        assert_eq!(last_pair("One. Two.", "Eins. Zwei."), Some(("Two.".into(), "Zwei.".into())));
        assert_eq!(last_pair("One. Two.", "Eins und zwei."), None);
    }
}
