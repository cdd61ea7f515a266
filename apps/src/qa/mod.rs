//! `qa`: answers a question from documents.
//!
//! The sentences that fit the question best are found first. A model that follows instructions then reads them
//! with their surroundings and answers; without one, the best sentences themselves are the answer.

use std::path::PathBuf;

use clap::Parser;

use crate::program::{Failure, ModelArgs};
use crate::terminal::output::Output;
use crate::text::document::{Document, read_all};
use crate::text::layout::one_line;
use crate::text::passage::{Sentence, collect};
use crate::text::script;
use crate::way::{Extractor, Way};
use retrieve::{Found, Retriever};

mod answer;
pub mod retrieve;

/// Answers a question from documents
///
/// A model that follows instructions answers from what fits the question best, and names its sources. Without
/// one, or with --extract, the sentence that most likely holds the answer is printed as it stands. The sources go
/// to standard error. Where the documents do not seem to answer, nothing is printed and the exit status is 1.
#[derive(Debug, Parser)]
#[command(name = "qa", version, after_help = EXAMPLES)]
pub struct Args {
    /// Documents to answer from; - is standard input
    #[arg(long, short, value_name = "FILE", num_args = 1.., required = true)]
    pub doc: Vec<PathBuf>,
    /// Prints sentences of the documents and asks no model to write
    #[arg(long, short)]
    pub extract: bool,
    /// How many sentences to extract, best first
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    pub top: u16,
    /// Prints the sources behind the answer on standard output
    #[arg(long)]
    pub cite: bool,
    #[command(flatten)]
    pub model: ModelArgs,
    /// The question; the last word where it follows the documents
    #[arg(value_name = "QUESTION", num_args = 0..)]
    pub question: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  qa --doc manual.txt 'How do I reset it?'
  qa --doc a.txt --doc b.txt --extract --top 3 'Who wrote it?'
  cat notes/*.md | qa --doc - --cite 'When is the deadline?'";

const PROGRAM: &str = "qa";

/// The share of a question's weight that the paragraph of an answer has at least. Asked of the right article, 0.5 %
/// of XQuAD's English questions, 1.3 % of its German and 3 % of CMRC's Chinese ones are below it; asked of another
/// article, 68 %, 70 % and 98 %.
const COVERAGE_MIN: f32 = 0.1;

/// The nearness in meaning that does without common words. Most right answers are as near; in scripts
/// without spaces it says nothing, since encoders that do not know the script find all of it alike.
const MEANING_MIN: f32 = 0.6;

/// Runs the program.
///
/// # Errors
///
/// The documents do not seem to answer, an input is no text, or the daemon or SIGINT ends it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (documents, question) = args.files_and_question()?;
    let documents = read_all(documents, PROGRAM)?;
    let sentences = collect(&documents);
    let retriever = Retriever::new(&sentences);
    let material = Material { documents: &documents, sentences: &sentences, retriever: &retriever };
    match Way::choose(PROGRAM, &args.model, args.extract)? {
        Way::Generate(mut prompter) => answer::answer(&mut prompter, &material, &question, args.cite),
        Way::Extract(mut extractor) => extract(&mut extractor, &material, &question, args),
    }
}

impl Args {
    /// Tells the files from the question: without `--` or another option between them, the question is the last
    /// of what stands behind `--doc`.
    fn files_and_question(&self) -> Result<(&[PathBuf], String), Failure> {
        let (files, question) = match self.doc.split_last() {
            Some((last, files)) if self.question.is_empty() && !files.is_empty() => {
                (files, last.to_string_lossy().into_owned())
            }
            _ => (self.doc.as_slice(), self.question.join(" ")),
        };
        if question.trim().is_empty() {
            let usage =
                "the question is missing; use `qa --doc FILE... QUESTION`, with the question in quotes";
            return Err(Failure::Usage(usage.into()));
        }
        Ok((files, question))
    }
}

/// What there is to answer from.
struct Material<'a> {
    documents: &'a [Document],
    sentences: &'a [Sentence<'a>],
    retriever: &'a Retriever<'a>,
}

impl Material<'_> {
    /// Where a sentence stands: the file and the line.
    fn place(&self, sentence: usize) -> String {
        let sentence = &self.sentences[sentence];
        format!("{}:{}", self.documents[sentence.document].name, sentence.line)
    }
}

fn not_answered() -> Failure {
    Failure::Message("the documents do not seem to answer this; ask in the words of the text".into())
}

/// Prints the best sentences and where they stand.
fn extract(
    extractor: &mut Extractor,
    material: &Material,
    question: &str,
    args: &Args,
) -> Result<(), Failure> {
    let mut found = material.retriever.search(question);
    extractor.with_encoder(|encoder| material.retriever.rerank(question, &mut found, encoder));
    if !found.first().is_some_and(|best| answers(question, best)) {
        return Err(not_answered());
    }
    let mut output = Output::stdout();
    for found in found.iter().take(args.top.into()) {
        let sentence = &material.sentences[found.sentence];
        let place = material.place(found.sentence);
        let text = one_line(sentence.text);
        if args.cite {
            output.write(&format!("{text} [{place}]\n"))?;
        } else {
            output.write(&format!("{text}\n"))?;
            note!("{PROGRAM}: {place}");
        }
    }
    Ok(())
}

/// Whether a sentence shares enough with the question, in words or in meaning, to be an answer.
fn answers(question: &str, found: &Found) -> bool {
    let known_script = !question.contains(|c| script::joins_words(c) || script::is_hangul(c));
    found.coverage >= COVERAGE_MIN || known_script && found.meaning >= MEANING_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(args: &[&str], expect: Result<(&[&str], &str), u8>) {
        let args = Args::try_parse_from([&["qa"], args].concat()).expect("clap takes them");
        let read = match args.files_and_question() {
            Ok((files, question)) => Ok((files.iter().map(|f| f.display().to_string()).collect(), question)),
            Err(Failure::Usage(_)) => Err(2),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(
            read,
            expect.map(|(f, q)| (f.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>(), q.to_owned()))
        );
    }

    #[test]
    fn question_is_what_stands_last() {
        check(&["--doc", "a", "b", "Who is it?"], Ok((&["a", "b"], "Who is it?")));
        check(&["--doc", "a", "--doc", "b", "--", "Who", "is it?"], Ok((&["a", "b"], "Who is it?")));
        check(&["Who?", "--doc", "a", "b"], Ok((&["a", "b"], "Who?")));
        check(&["--doc", "a", "--extract", "Who?"], Ok((&["a"], "Who?")));
        check(&["--doc", "a"], Err(2));
        check(&["--doc", "a", "--", " "], Err(2));
    }
}
