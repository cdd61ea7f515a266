//! Files of every kind, and what is refused of them.

use super::*;

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
