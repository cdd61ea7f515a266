//! How good extracted answers and summaries are, on real texts that people wrote questions and summaries for.
//!
//! The floors stand well below what is measured, so that a change for the worse is seen and a small change is
//! not. The figures are printed: `cargo test --release -p llmasos-apps --test answers -- --nocapture`.
#![allow(clippy::disallowed_macros, reason = "a test that is skipped, and figures, are for whoever runs it")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use apps::qa::retrieve::Retriever;
use apps::summariser::extract::{ByTerms, choose};
use apps::text::document::Document;
use apps::text::passage::collect;
use apps::text::script::count_words;
use serde::Deserialize;

/// A file of the shared data, where there is any.
fn shared(file: &str) -> Option<PathBuf> {
    let shared = match std::env::var_os("LLMASOS_SHARED") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?.join("shared"),
    };
    let path = shared.join("data").join(file);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("skipped: there is no {}; LLMASOS_SHARED can name another folder", path.display());
    None
}

#[derive(Deserialize)]
struct Squad {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    question: String,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    text: String,
}

/// The shares of questions whose answer stands in the first sentence that is found, and in the first three. Each
/// question is asked of its whole article.
fn shares(articles: &[Article]) -> [f32; 2] {
    let (mut asked, mut right) = (0.0, [0.0; 2]);
    for article in articles {
        let paragraphs: Vec<&str> = article.paragraphs.iter().map(|p| p.context.as_str()).collect();
        let documents = [Document { name: "article".into(), text: paragraphs.join("\n\n") }];
        let sentences = collect(&documents);
        let retriever = Retriever::new(&sentences);
        for question in article.paragraphs.iter().flat_map(|p| &p.qas) {
            let found = retriever.search(&question.question);
            let answers =
                |text: &str| question.answers.iter().any(|answer| text.contains(answer.text.trim()));
            let place = found.iter().take(3).position(|f| answers(sentences[f.sentence].text));
            asked += 1.0;
            right[0] += f32::from(u8::from(place == Some(0)));
            right[1] += f32::from(u8::from(place.is_some()));
        }
    }
    right.map(|right| right / asked)
}

#[track_caller]
fn check_answers(file: &str, floor: f32) {
    let Some(path) = shared(file) else { return };
    let json = fs::read_to_string(path).expect("readable");
    let squad: Squad = serde_json::from_str(&json).expect("in the form of SQuAD");
    let [first, three] = shares(&squad.data);
    println!("{file}: the answer is in the first sentence for {first:.3}, in the first three for {three:.3}");
    assert!(first >= floor, "{first} is below {floor}");
}

#[test]
fn english_answers_are_in_the_first_sentence() {
    check_answers("qa/xquad.en.json", 0.75);
}

#[test]
fn german_answers_are_in_the_first_sentence() {
    check_answers("qa/xquad.de.json", 0.70);
}

#[test]
fn chinese_answers_are_in_the_first_sentence() {
    check_answers("qa/cmrc2018_trial.json", 0.65);
}

#[derive(Deserialize)]
struct Prompted {
    prompt: String,
    completion: String,
}

/// ROUGE-1 F: the overlap of words.
fn overlap(a: &str, b: &str) -> f32 {
    let count = |text: &str| {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
            *counts.entry(word.into()).or_default() += 1;
        }
        counts
    };
    let (a, b) = (count(a), count(b));
    let both: usize = a.iter().map(|(word, n)| (*n).min(b.get(word).copied().unwrap_or(0))).sum();
    let all: usize = a.values().chain(b.values()).sum();
    2.0 * both as f32 / all.max(1) as f32
}

/// The mean overlap with the reference of our summary, and of the first three sentences at the same length.
#[track_caller]
fn check_summaries(file: &str, before_the_text: &str, least_gain: f32) {
    let Some(path) = shared(file) else { return };
    let (mut ours, mut lead, mut all) = (0.0, 0.0, 0.0);
    for line in fs::read_to_string(path).expect("readable").lines() {
        let Prompted { prompt, completion } =
            serde_json::from_str(line).expect("a prompt with its completion");
        let Some((_, text)) = prompt.split_once(before_the_text) else { continue };
        let documents = [Document { name: "article".into(), text: text.into() }];
        let sentences = collect(&documents);
        let text_of =
            |chosen: &[usize]| chosen.iter().map(|&at| sentences[at].text).collect::<Vec<_>>().join(" ");
        let first: Vec<usize> = (0..sentences.len().min(3)).collect();
        let words = count_words(&text_of(&first));
        let chosen = choose(&sentences, &ByTerms::new(&sentences), words);
        let reference = completion.replace("<|endoftext|>", "");
        ours += overlap(&text_of(&chosen), &reference);
        lead += overlap(&text_of(&first), &reference);
        all += 1.0;
    }
    let (ours, lead) = (ours / all, lead / all);
    println!("{file}: ROUGE-1 {ours:.3}, of the first three sentences {lead:.3}");
    assert!(ours >= lead + least_gain, "{ours} against {lead}");
}

#[test]
fn summaries_of_one_article_are_as_good_as_its_beginning() {
    // In news the beginning is the summary; to be as good without copying it is what can be had.
    let file = "summarisation/t0/cnn_dailymail_3_0_0_2_or_3_sentences.jsonl";
    check_summaries(file, "Article: ", -0.01);
}

#[test]
fn summaries_of_several_articles_are_better_than_their_beginning() {
    check_summaries("summarisation/t0/multi_news_summarize.jsonl", "Document: ", 0.005);
}
