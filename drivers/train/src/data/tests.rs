#![allow(clippy::unwrap_used)]
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::batch::IGNORE;
use crate::token::{Family, Kind, Tokeniser, train, usual};

/// Tokens of rows that questions are asked in.
const LENGTH: usize = 24;

fn search(folder: &Path) -> Search {
    Search {
        folders: vec![folder.to_owned()],
        cache: folder.join("cache"),
        mirror: "http://127.0.0.1:9".into(),
    }
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    path
}

fn bytes(family: Family) -> Tokeniser {
    let special: Vec<String> = usual(family).iter().map(|token| (*token).to_owned()).collect();
    train(Kind::Byte, &special, std::iter::empty::<Result<String, DataError>>()).unwrap()
}

fn prepared(source: &Source, folder: &Path, tokeniser: &Tokeniser) -> Result<Arc<TokenFile>, DataError> {
    let files = source.files(Split::Train, &search(folder))?;
    prepare(source, &files, tokeniser, &Reading::of(LENGTH), &folder.join("cache"))
}

fn refusal(source: &Source, folder: &Path) -> String {
    prepared(source, folder, &bytes(Family::Encoder)).unwrap_err().to_string()
}

fn texts(file: &TokenFile, tokeniser: &Tokeniser) -> Vec<String> {
    let text = |number| {
        let mut tokens = Vec::new();
        file.read(file.record(number), &mut tokens);
        tokeniser.decode(&tokens).unwrap()
    };
    (0..file.records()).map(text).collect()
}

#[test]
fn every_kind_of_file_becomes_its_records() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let tokeniser = bytes(Family::Encoder);
    let read = |source: Source| texts(&prepared(&source, at, &tokeniser).unwrap(), &tokeniser);

    let text = write(at, "a.txt", "one\ntwo\n");
    assert_eq!(read(Source::Text(vec![text.clone(), text])), ["one\ntwo\n", "one\ntwo\n"]);
    let lines = write(at, "a.jsonl", "{\"body\": \"one\"}\n\n{\"body\": \"two\"}\n");
    assert_eq!(read(Source::Jsonl { files: vec![lines], field: "body".into() }), ["one", "two"]);
    let (source, target) = (write(at, "a.en", "yes\r\nno\n"), write(at, "a.de", "ja\nnein"));
    assert_eq!(read(Source::Parallel { source, target }), ["yes", "ja", "no", "nein"]);
    let file = write(at, "pairs.tsv", "de\ten\nja\tyes\n");
    assert_eq!(read(Source::Pairs { file, source: "en".into(), target: "de".into() }), ["yes", "ja"]);
    let file = write(at, "pairs.csv", "\"a, b\",c\n");
    assert_eq!(read(Source::Pairs { file, source: "0".into(), target: "1".into() }), ["a, b", "c"]);
    write(at, "set/train.csv", "text,n\n\"one\ntwo\",1\n");
    let name = at.join("set").display().to_string();
    assert_eq!(read(Source::Dataset { name, split: None, field: "text".into() }), ["one\ntwo"]);
}

#[test]
fn labels_that_are_numbers_keep_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.tsv", "good\t10\nbad\t2\nfine\t10\n");
    let source = Source::Labelled { file, text: "0".into(), second: None, label: "1".into() };
    let file = prepared(&source, folder.path(), &bytes(Family::Encoder)).unwrap();
    assert_eq!(file.about().labels, ["2", "10"]);
    assert_eq!((0..3).map(|number| file.class(number)).collect::<Vec<_>>(), [1, 0, 1]);
}

#[test]
fn broken_files_are_refused_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // All of them are written before the first is read, so each has a name of its own.
    let json = |name: &str, content: &str| {
        let files = vec![write(at, &format!("{name}.jsonl"), content)];
        Source::Jsonl { files, field: "text".into() }
    };
    let table = |content: &str| {
        let file = write(at, "x.tsv", content);
        Source::Labelled { file, text: "0".into(), second: None, label: "1".into() }
    };
    for (source, wanted) in [
        (Source::Text(vec![write(at, "empty.txt", "")]), "empty.txt: is empty"),
        (
            Source::Text(vec![write(at, "latin.txt", b"a\nb\xe9c\n")]),
            "latin.txt:2: byte 2 of the line, 0xe9, is not UTF-8",
        ),
        (Source::Text(vec![at.join("none.txt")]), "none.txt: cannot be read: No such file"),
        (Source::Text(vec![at.to_owned()]), "is a folder; give a file"),
        (Source::Text(vec![]), "the list of files is empty"),
        (json("cut", "{\"text\": \"a\"}\n{\"text\": \n"), "cut.jsonl:2: broken JSON at column"),
        (json("list", "{\"text\": \"a\"}\n\n[1]\n"), "list.jsonl:3: it is JSON but no object"),
        (json("other", "{\"txt\": \"a\"}\n"), "other.jsonl:1: has no field `text`; it has txt"),
        (json("nested", "{\"text\": [1]}\n"), "nested.jsonl:1: its field `text` is no text"),
        (table("a\t1\nb\n"), "x.tsv:2: the row has 1 columns, and column 1 is wanted"),
    ] {
        let sentence = refusal(&source, at);
        assert!(sentence.contains(wanted), "{sentence:?} does not say {wanted:?}");
    }
    let (source, target) = (write(at, "a.en", "1\n2\n3\n"), write(at, "a.de", "1\n"));
    let sentence = refusal(&Source::Parallel { source, target }, at);
    assert!(sentence.contains("a.en has 3 lines") && sentence.contains("a.de has 1;"), "{sentence}");
}

/// A vocabulary of the characters a to z, and white space.
fn characters() -> Tokeniser {
    let special: Vec<String> = usual(Family::Encoder).iter().map(|token| (*token).to_owned()).collect();
    let texts = std::iter::once(Ok::<_, DataError>(('a'..='z').chain(" \n".chars()).collect()));
    train(Kind::Char, &special, texts).unwrap()
}

#[test]
fn character_without_a_token_is_named_with_its_own_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let good = write(at, "good.txt", "a\nb\n");
    let bad = write(at, "bad.txt", "a\nb\n\nc É d\n");
    let lines = write(at, "bad.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\\nÉ\"}\n");
    let pairs = write(at, "pairs.tsv", "a\tb\nc\tÉ\n");
    let words = write(at, "bad.conll", "a X\n\nb X\nÉ X\n");
    let squad = serde_json::json!({"data": [{"paragraphs": [
        {"context": "a", "qas": [{"id": "1", "question": "b", "answers": []}]},
        {"context": "É", "qas": [{"id": "2", "question": "b", "answers": []}]},
    ]}]});
    let squad = write(at, "bad.json", serde_json::to_string_pretty(&squad).unwrap());
    let second = std::fs::read_to_string(&squad).unwrap();
    let id = second.lines().position(|line| line.contains("\"2\"")).unwrap();
    let brace =
        1 + second.lines().take(id).collect::<Vec<_>>().iter().rposition(|line| line.trim() == "{").unwrap();
    for (source, wanted) in [
        (Source::Text(vec![good.clone(), bad]), "bad.txt:4: ".to_owned()),
        (Source::Jsonl { files: vec![lines], field: "text".into() }, "bad.jsonl:2: ".into()),
        (Source::Pairs { file: pairs, source: "0".into(), target: "1".into() }, "pairs.tsv:2: ".into()),
        (Source::Tagged { file: words, words: "t".into(), tags: "t".into() }, "bad.conll:3: ".into()),
        (Source::Questions { file: squad, stride: None }, format!("bad.json:{brace}: ")),
    ] {
        let sentence = prepared(&source, at, &characters()).unwrap_err().to_string();
        assert!(
            sentence.contains(&wanted) && sentence.contains("'É'"),
            "{sentence:?} does not say {wanted:?}"
        );
    }
}

#[test]
fn mark_of_the_order_of_bytes_is_no_part_of_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let tokeniser = bytes(Family::Encoder);
    let read = |source: Source| texts(&prepared(&source, at, &tokeniser).unwrap(), &tokeniser);
    let lines = write(at, "a.jsonl", "\u{feff}{\"text\": \"one\"}\n");
    assert_eq!(read(Source::Jsonl { files: vec![lines], field: "text".into() }), ["one"]);
    let file = write(at, "a.csv", "\u{feff}from,to\none,two\n");
    assert_eq!(read(Source::Pairs { file, source: "from".into(), target: "to".into() }), ["one", "two"]);
    let text = write(at, "a.txt", "\u{feff}one\n\u{feff}");
    assert_eq!(read(Source::Text(vec![text])), ["one\n\u{feff}"]);
    let json = "\u{feff}{\"data\": [{\"paragraphs\": [{\"context\": \"two\", \"qas\": [{\"question\": \"one\"}]}]}]}";
    let file = write(at, "a.json", json);
    assert_eq!(read(Source::Questions { file, stride: None }), ["one", "two"]);
}

#[test]
fn pieces_of_a_long_text_have_the_tokens_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::new();
    while text.len() < 5 * limits::PIECE_BYTES {
        text.push_str("A line of text that goes on.\n\n  Another one, indented.\nAnd more\n");
    }
    let path = write(folder.path(), "long.txt", &text);
    let special = ["<|endoftext|>".to_owned()];
    let tokeniser =
        train(Kind::Bpe(300), &special, std::iter::once(Ok::<_, DataError>(text.clone()))).unwrap();
    let file = prepared(&Source::Text(vec![path]), folder.path(), &tokeniser).unwrap();
    let mut tokens = Vec::new();
    file.read(file.record(0), &mut tokens);
    let mut whole = tokeniser.encode(&text).unwrap();
    whole.push(0);
    assert_eq!(file.records(), 1);
    assert!(tokens == whole, "{} and {} tokens", tokens.len(), whole.len());
}

#[test]
fn tokens_are_kept_until_the_text_changes() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::Text(vec![write(folder.path(), "a.txt", "one")]);
    let cached = || std::fs::read_dir(folder.path().join("cache/tokens")).unwrap().count();
    let tokeniser = bytes(Family::Decoder);
    prepared(&source, folder.path(), &tokeniser).unwrap();
    prepared(&source, folder.path(), &tokeniser).unwrap();
    assert_eq!(cached(), 1);
    write(folder.path(), "a.txt", "other");
    let file = prepared(&source, folder.path(), &tokeniser).unwrap();
    assert_eq!((cached(), texts(&file, &tokeniser)), (2, vec!["other".to_owned()]));
}

fn collator(folder: &Path, source: &Source, task: Task, family: Family) -> Collator {
    let tokeniser = bytes(family);
    let file = prepared(source, folder, &tokeniser).unwrap();
    Collator::new(Examples::new(file, task, Order::Sequential, 5).unwrap(), &tokeniser).unwrap()
}

#[test]
fn next_tokens_are_shifted_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::Text(vec![write(folder.path(), "a.txt", "abcdefgh")]);
    let collator = collator(folder.path(), &source, Task::NextToken { length: 4 }, Family::Decoder);
    let (batch, next) = collator.batch(Position::default(), 2);
    let id = |byte: u8| 1 + u32::from(byte);
    assert_eq!(batch.input.tokens, b"abcdefgh".map(id));
    assert_eq!(batch.targets[..7], b"bcdefgh".map(|byte| id(byte) as i32));
    assert_eq!(batch.targets[7], 0, "the text ends");
    assert_eq!(next, Position { epoch: 1, place: 0, seen: 2 });
}

#[test]
fn documents_that_are_apart_begin_anew_and_learn_nothing_of_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["ab", "cde"].map(|text| write(folder.path(), &format!("{text}.txt"), text)).to_vec();
    let task = Task::NextToken { length: 6 };
    let together = collator(folder.path(), &Source::Text(files.clone()), task, Family::Decoder);
    let (plain, _) = together.batch(Position::default(), 1);
    assert_eq!((plain.input.segments, plain.input.positions), (None, None));
    let (batch, _) = together.packed(Packing::Apart).batch(Position::default(), 1);
    assert_eq!(batch.input.tokens, plain.input.tokens);
    assert_eq!(batch.input.segments.unwrap(), [0, 0, 0, 1, 1, 1]);
    assert_eq!(batch.input.positions.unwrap(), [0, 1, 2, 0, 1, 2]);
    assert_eq!((plain.targets[2], batch.targets[2]), (100, IGNORE));
    assert_eq!(batch.targets[3..], plain.targets[3..]);

    let task = Task::Masked { length: 9, share: 0.5 };
    let apart = collator(folder.path(), &Source::Text(files), task, Family::Encoder).packed(Packing::Apart);
    let (batch, _) = apart.batch(Position::default(), 1);
    assert_eq!(batch.input.segments.unwrap(), [0, 0, 0, 0, 1, 1, 1, 1, 1]);
    assert_eq!(batch.input.positions.unwrap(), [0, 1, 2, 3, 0, 1, 2, 3, 4]);
}

#[test]
fn translations_are_filled_up_and_masked() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.tsv", "ab\tx\nc\tyz\n");
    let source = Source::Pairs { file, source: "0".into(), target: "1".into() };
    let collator = collator(folder.path(), &source, Task::Translate { length: 8 }, Family::EncoderDecoder);
    let (batch, _) = collator.batch(Position::default(), 2);
    let id = |byte: u8| 3 + u32::from(byte);
    let (pad, end) = (0, 1);
    let from = batch.source.unwrap();
    assert_eq!(from.tokens, [id(b'a'), id(b'b'), end, id(b'c'), end, pad]);
    assert_eq!(from.mask.unwrap(), [1, 1, 1, 1, 1, 0]);
    assert_eq!(batch.input.tokens, [pad, id(b'x'), pad, pad, id(b'y'), id(b'z')]);
    let (x, y, z) = (id(b'x') as i32, id(b'y') as i32, id(b'z') as i32);
    assert_eq!(batch.targets, [x, 1, IGNORE, y, z, 1]);
}

#[test]
fn hidden_tokens_are_a_share_and_the_same_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::Text(vec![write(folder.path(), "a.txt", "abcdefghij".repeat(1000))]);
    let task = Task::Masked { length: 102, share: 0.15 };
    let collator = collator(folder.path(), &source, task, Family::Encoder);
    let (batch, _) = collator.batch(Position::default(), 90);
    assert_eq!(collator.batch(Position::default(), 90).0, batch);
    let counted = batch.counted() as f64;
    assert!((0.13..0.17).contains(&(counted / 9000.0)), "{counted}");
    let masks = batch.input.tokens.iter().filter(|token| **token == 4).count() as f64;
    assert!((0.75..0.85).contains(&(masks / counted)), "{masks} of {counted}");
    for row in batch.input.tokens.chunks(102) {
        assert_eq!((row[0], row[101]), (2, 3));
    }
}

#[test]
fn classes_come_one_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.tsv", "ab\tno\nabcdefgh\tyes\n");
    let source = Source::Labelled { file, text: "0".into(), second: None, label: "1".into() };
    let collator = collator(folder.path(), &source, Task::Classify { length: 6 }, Family::Encoder);
    let (batch, _) = collator.batch(Position::default(), 2);
    assert_eq!(batch.targets, [0, 1]);
    assert_eq!((batch.input.length, batch.rows()), (6, 2));
    assert_eq!(batch.input.mask.unwrap(), [1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1]);
}

/// A batch of two examples of labelled texts, read for a loss.
fn labelled(folder: &Path, text: &str, task: Task, ignore: Option<&str>) -> Result<crate::Batch, DataError> {
    let second = text.contains("second").then(|| "second".to_owned());
    let file = write(folder, "labelled.jsonl", text);
    let source = Source::Labelled { file, text: "text".into(), second, label: "label".into() };
    let tokeniser = bytes(Family::Encoder);
    let reading = Reading { length: 9, targets: task.targets(), ignore: ignore.map(str::to_owned) };
    let files = source.files(Split::Train, &search(folder))?;
    let tokens = prepare(&source, &files, &tokeniser, &reading, &folder.join("cache"))?;
    let examples = Examples::new(tokens, task, Order::Sequential, 3)?;
    Ok(Collator::new(examples, &tokeniser)?.batch(Position::default(), 2).0)
}

#[test]
fn labels_are_classes_sets_numbers_or_nearness_as_the_loss_asks() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let sets = "{\"text\": \"a\", \"label\": [\"x, y\", \"z\"]}\n{\"text\": \"b\", \"label\": []}\n\
                {\"text\": \"c\", \"label\": \"w,z\"}\n";
    let batch = labelled(at, sets, Task::Label { length: 9 }, None).unwrap();
    assert_eq!((batch.values.as_slice(), batch.counted()), (&[0.0, 1.0, 1.0, 0.0, 0.0, 0.0][..], 6));
    let error = labelled(at, sets, Task::Classify { length: 9 }, None).unwrap_err().to_string();
    assert!(error.contains("labelled.jsonl:1: ") && error.contains("BinaryCrossEntropy"), "{error}");
    let numbers = "{\"text\": \"a\", \"label\": -0.5}\n{\"text\": \"b\", \"label\": \"2\"}\n";
    assert_eq!(labelled(at, numbers, Task::Rate { length: 9 }, None).unwrap().values, [-0.5, 2.0]);
    let error = labelled(at, sets, Task::Rate { length: 9 }, None).unwrap_err().to_string();
    assert!(
        error.contains("labelled.jsonl:1: ") && error.contains("where a number is to be learned"),
        "{error}"
    );
    let near = "{\"text\": \"a\", \"second\": \"b\", \"label\": 0.25}\n";
    let batch = labelled(at, near, Task::Compare { length: 9 }, None).unwrap();
    assert_eq!((batch.rows(), batch.counted(), batch.paired), (4, 2, true));
    assert!(batch.values[0] == 0.25 && batch.values[1].is_nan(), "{:?}", batch.values);
    let error = labelled(at, numbers, Task::Compare { length: 9 }, None).unwrap_err().to_string();
    assert!(error.contains("labelled.jsonl:1: ") && error.contains("`second`"), "{error}");
}

#[test]
fn label_that_is_ignored_is_no_class_and_no_target() {
    let folder = tempfile::tempdir().unwrap();
    let classes = "{\"text\": \"a\", \"label\": \"-100\"}\n{\"text\": \"b\", \"label\": \"x\"}\n\
                   {\"text\": \"c\", \"label\": \"y\"}\n";
    let of = |ignore| labelled(folder.path(), classes, Task::Classify { length: 9 }, ignore).unwrap().targets;
    assert_eq!(of(None), [IGNORE, 0]);
    assert_eq!(of(Some("x")), [0, IGNORE]);
}

#[test]
fn second_text_is_marked_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.tsv", "ab\tc\tno\nabc\tde\tyes\n");
    let source = Source::Labelled { file, text: "0".into(), second: Some("1".into()), label: "2".into() };
    let collator = collator(folder.path(), &source, Task::Classify { length: 9 }, Family::Encoder);
    let (batch, _) = collator.batch(Position::default(), 2);
    assert_eq!(batch.input.types.unwrap(), [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1]);
}

#[test]
fn longer_one_of_two_texts_is_cut_first() {
    let folder = tempfile::tempdir().unwrap();
    let file =
        write(folder.path(), "a.tsv", "abcdefghij\txy\tno\nab\tstuvwxyz\tno\nabcdefgh\tstuvwxyz\tyes\n");
    let source = Source::Labelled { file, text: "0".into(), second: Some("1".into()), label: "2".into() };
    let collator = collator(folder.path(), &source, Task::Classify { length: 10 }, Family::Encoder);
    let (batch, _) = collator.batch(Position::default(), 3);
    let (class, separator) = (batch.input.tokens[0], batch.input.tokens[9]);
    let id = |byte: u8| 5 + u32::from(byte);
    let row = |first: &[u8], second: &[u8]| {
        let mut row = vec![class];
        row.extend(first.iter().map(|byte| id(*byte)));
        row.push(separator);
        row.extend(second.iter().map(|byte| id(*byte)));
        row.push(separator);
        row
    };
    let wanted = [row(b"abcde", b"xy"), row(b"ab", b"stuvw"), row(b"abc", b"stuv")];
    assert_eq!(batch.input.tokens, wanted.concat());
    assert_eq!(batch.input.types.unwrap()[..10], [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]);
}

/// Both forms of questions: SQuAD's own, and that of hubs. The second has no answer.
fn questions(folder: &Path) -> [Source; 2] {
    let context = "über abcdefghijklmnopqrstuvwxyz";
    let nested = serde_json::json!({"data": [{"paragraphs": [{"context": context, "qas": [
        {"id": "1", "question": "qu", "answers": [{"text": "wxy", "answer_start": 27}]},
        {"id": "2", "question": "no", "answers": [], "is_impossible": true},
    ]}]}]});
    let lines = format!(
        "{}\n{}\n",
        serde_json::json!({"context": context, "question": "qu", "answers": {"text": ["wxy"], "answer_start": [27]}}),
        serde_json::json!({"context": context, "question": "no", "answers": {"text": [], "answer_start": []}})
    );
    let files = [write(folder, "a.json", nested.to_string()), write(folder, "a.jsonl", lines)];
    files.map(|file| Source::Questions { file, stride: Some(4) })
}

#[test]
fn answers_are_in_the_parts_that_have_them() {
    let folder = tempfile::tempdir().unwrap();
    let task = || Task::Answer { length: LENGTH };
    let [nested, lines] = questions(folder.path());
    let collators = [nested, lines].map(|source| collator(folder.path(), &source, task(), Family::Encoder));
    // 32 bytes in parts of 19, of which neighbours have 4 in common.
    assert_eq!(collators[0].examples().count(0), 4);
    let (batch, _) = collators[0].batch(Position::default(), 4);
    assert_eq!(batch, collators[1].batch(Position::default(), 4).0);
    assert_eq!(batch.targets, [0, 0, 17, 19, 0, 0, 0, 0]);
    let row = &batch.input.tokens[LENGTH..];
    let text: Vec<u8> = row[17..=19].iter().map(|id| (id - 5) as u8).collect();
    assert_eq!(text, b"wxy");
    assert_eq!(batch.input.types.unwrap()[..5], [0, 0, 0, 0, 1]);
}

#[test]
fn answer_that_stands_elsewhere_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = "{\"context\": \"abc\", \"question\": \"q\", \"answers\": {\"text\": [\"b\"], \"answer_start\": [2]}}\n";
    let file = write(folder.path(), "a.jsonl", text);
    let error = refusal(&Source::Questions { file, stride: None }, folder.path());
    assert!(error.contains("a.jsonl:1") && error.contains("\"b\" does not stand"), "{error}");
    let nested = "{\"data\": [{\"paragraphs\": [{\"context\": \"abc\",\n\"qas\": [\n{\"question\": \"q\", \"id\": \"x\",\n\
                  \"answers\": [{\"text\": \"b\", \"answer_start\": 2}]}]}]}]}";
    let file = write(folder.path(), "a.json", nested);
    let error = refusal(&Source::Questions { file, stride: None }, folder.path());
    assert!(error.contains("a.json:3: question x: ") && error.contains("\"b\" does not stand"), "{error}");
    let file = write(folder.path(), "c.json", "{\"data\": [\n{\"paragraphs\": 7}]}");
    let error = refusal(&Source::Questions { file, stride: None }, folder.path());
    assert!(error.contains("c.json:2: "), "{error}");
    let text = text.replace("context", "contxt");
    let file = write(folder.path(), "b.jsonl", text);
    let error = refusal(&Source::Questions { file, stride: None }, folder.path());
    assert!(error.contains("b.jsonl:1") && error.contains("no field `context`"), "{error}");
}

#[test]
fn classes_of_words_stand_at_their_first_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.conll", "-DOCSTART- O\n\nab x O\nc x PER\n\nd x O\n");
    let json = write(
        folder.path(),
        "a.jsonl",
        "{\"tokens\": [\"ab\", \"c\"], \"tags\": [\"O\", \"PER\"]}\n{\"tokens\": [\"d\"], \"tags\": [\"O\"]}\n",
    );
    for file in [file, json] {
        let source = Source::Tagged { file, words: "tokens".into(), tags: "tags".into() };
        let collator = collator(folder.path(), &source, Task::Tag { length: 6 }, Family::Encoder);
        let (batch, _) = collator.batch(Position::default(), 2);
        assert_eq!(collator.examples().file().about().labels, ["O", "PER"]);
        assert_eq!(batch.targets, [IGNORE, 0, IGNORE, 1, IGNORE, IGNORE, 0, IGNORE, IGNORE, IGNORE]);
    }
    let file = write(folder.path(), "b.conll", "ab O\nc\n");
    let source = Source::Tagged { file, words: "tokens".into(), tags: "tags".into() };
    let error = refusal(&source, folder.path());
    assert!(error.contains("b.conll:2") && error.contains("no class"), "{error}");
}

#[test]
fn pairs_of_similar_texts_are_two_rows_that_count_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.tsv", "ab\tx\nc\tyz\n");
    let source = Source::Pairs { file, source: "0".into(), target: "1".into() };
    let collator = collator(folder.path(), &source, Task::Similar { length: 6 }, Family::Encoder);
    let (batch, _) = collator.batch(Position::default(), 2);
    assert_eq!((batch.rows(), batch.counted(), batch.samples.as_slice()), (4, 2, &[0, 1, 2, 3][..]));
}

#[test]
fn loader_begins_again_where_it_was_left() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::Text(vec![write(folder.path(), "a.txt", "abcdefghijklmnopqrstuvwxyz".repeat(20))]);
    let tokeniser = bytes(Family::Decoder);
    let file = prepared(&source, folder.path(), &tokeniser).unwrap();
    let examples = Examples::new(file, Task::NextToken { length: 8 }, Order::Shuffled, 3).unwrap();
    let collator = Collator::new(examples, &tokeniser).unwrap();
    let start = |position| Loader::start(collator.clone(), 7, position).unwrap();
    let mut whole = start(Position::default());
    let all: Vec<Loaded> = (0..30).map(|_| whole.take()).collect();
    assert!(all[29].next.epoch >= 2, "epochs are crossed: {:?}", all[29].next);
    let mut rest = start(all[12].next);
    for wanted in &all[13..] {
        let found = rest.take();
        assert_eq!((found.batch, found.next), (wanted.batch.clone(), wanted.next));
    }
}

#[test]
fn data_set_by_name_is_found_below_the_folders_that_are_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "lm/wikitext-2/raw/train.txt", "text");
    let found = find("wikitext-2", &search(folder.path())).unwrap();
    assert_eq!(found, folder.path().join("lm/wikitext-2"));
}

#[test]
fn data_set_that_is_nowhere_says_where_it_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let error = find("wikitext-2", &search(folder.path())).unwrap_err().to_string();
    for wanted in
        [DATASETS_VARIABLE, "cache/datasets", "http://127.0.0.1:9/datasets/Salesforce", "Dataset(name:"]
    {
        assert!(error.contains(wanted), "{error}");
    }
    let error = find("nothing", &search(folder.path())).unwrap_err().to_string();
    assert!(error.contains("wikitext-2"), "it says which names are known: {error}");
}
