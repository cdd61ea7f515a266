//! `summariser`: shortens texts to what matters.
//!
//! A model that follows instructions writes the summary; without one, the sentences that say most are printed as
//! they stand. Several files are one text.

use std::path::PathBuf;

use clap::Parser;

use crate::program::{Failure, ModelArgs};
use crate::terminal::output::Output;
use crate::text::document::{Document, read_all};
use crate::text::layout::one_line;
use crate::text::passage::{Sentence, collect};
use crate::text::script::count_words;
use crate::way::{Extractor, Way};
use extract::{ByMeaning, ByTerms, choose};

pub mod extract;
mod write;

/// Shortens texts to what matters
///
/// A model that follows instructions writes the summary. Without one, or with --extract, the sentences that say
/// most are printed as they stand, in the order of the text.
#[derive(Debug, Parser)]
#[command(name = "summariser", version, after_help = EXAMPLES)]
pub struct Args {
    /// The most words [default: a fifth of the text, at most 150]. In Chinese and Japanese, characters count
    #[arg(long, short, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub words: Option<u32>,
    /// Prints sentences of the text and asks no model to write; at least one, however few words are allowed
    #[arg(long, short)]
    pub extract: bool,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Texts, which make one summary; - is standard input
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  summariser --words 50 article.txt
  summariser chapter-*.txt
  summariser --extract < article.txt | translator --to de";

const PROGRAM: &str = "summariser";

/// Words of a summary where none are asked for: a share of the text, within bounds.
const SHARE: usize = 5;
const WORDS_MIN: usize = 25;
const WORDS_MAX: usize = 150;

/// The most sentences that an encoder ranks: some 20 pages, and seconds of its time. Longer texts are ranked by
/// their terms, which tell the more the longer a text is.
const ENCODED_MAX: usize = 512;

/// Runs the program.
///
/// # Errors
///
/// An input is no text, or the daemon or SIGINT ends it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let documents = read_all(&args.files, PROGRAM)?;
    let words = words_max(args, &documents);
    match Way::choose(PROGRAM, &args.model, args.extract)? {
        Way::Generate(mut prompter) => write::write(&mut prompter, &documents, words, args.words.is_some()),
        Way::Extract(mut extractor) => extract(&mut extractor, &documents, words),
    }
}

fn words_max(args: &Args, documents: &[Document]) -> usize {
    match args.words {
        Some(words) => words as usize,
        None => {
            let all: usize = documents.iter().map(|d| count_words(&d.text)).sum();
            (all / SHARE).clamp(WORDS_MIN, WORDS_MAX)
        }
    }
}

/// Prints the sentences that say most: paragraphs stay apart, sentences of one stay together.
fn extract(extractor: &mut Extractor, documents: &[Document], words: usize) -> Result<(), Failure> {
    let sentences = prose(collect(documents));
    let texts: Vec<&str> = sentences.iter().map(|s| s.text).collect();
    let short = texts.len() <= ENCODED_MAX;
    let vectors = if short { extractor.with_encoder(|encoder| encoder.vectors(&texts)) } else { None };
    let chosen = match vectors {
        Some(vectors) => choose(&sentences, &ByMeaning::new(vectors), words),
        None => choose(&sentences, &ByTerms::new(&sentences), words),
    };
    let mut output = Output::stdout();
    output.write(&page(&sentences, &chosen))?;
    Ok(())
}

/// The sentences alone, without the headings, tables, rules and fences of Markdown; all there is where a text has
/// nothing else.
fn prose(sentences: Vec<Sentence>) -> Vec<Sentence> {
    let marks = ["#", "|", "=", "---", "```"];
    let is_prose = |s: &&Sentence| !marks.iter().any(|mark| s.text.starts_with(mark));
    let kept: Vec<Sentence> = sentences.iter().filter(is_prose).cloned().collect();
    if kept.is_empty() { sentences } else { kept }
}

fn page(sentences: &[Sentence], chosen: &[usize]) -> String {
    let mut page = String::new();
    let mut before: Option<&Sentence> = None;
    for sentence in chosen.iter().map(|&at| &sentences[at]) {
        let text = one_line(sentence.text);
        match before {
            Some(before) if before.paragraph != sentence.paragraph => page.push('\n'),
            Some(_) if text.starts_with(crate::text::script::joins_words) => {}
            Some(_) => page.push(' '),
            None => {}
        }
        page.push_str(&text);
        before = Some(sentence);
    }
    page.push('\n');
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document { name: "a".into(), text: text.into() }
    }

    #[test]
    fn words_are_a_share_of_the_text_within_bounds() {
        let words = |args: &[&str], text: &str| {
            words_max(&Args::try_parse_from(args).expect("valid"), &[document(text)])
        };
        assert_eq!(words(&["summariser"], "one two"), 25);
        assert_eq!(words(&["summariser"], &"word ".repeat(500)), 100);
        assert_eq!(words(&["summariser"], &"word ".repeat(5000)), 150);
        assert_eq!(words(&["summariser", "--words", "7"], "one two"), 7);
    }

    #[test]
    fn markup_is_no_prose_where_there_is_any() {
        let texts = |text: &str| {
            let documents = [document(text)];
            prose(collect(&documents)).iter().map(|s| s.text.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(texts("# Head\n\nOne. Two.\n\n| a | b |\n| --- | --- |\n"), ["One.", "Two."]);
        assert_eq!(texts("# Head\n"), ["# Head"]);
    }

    #[test]
    fn page_keeps_paragraphs_apart() {
        let documents = [document("One\nis here. Two.\n\nThree.")];
        assert_eq!(page(&collect(&documents), &[0, 1, 2]), "One is here. Two.\nThree.\n");
        let documents = [document("一。二。")];
        assert_eq!(page(&collect(&documents), &[0, 1]), "一。二。\n");
    }
}
