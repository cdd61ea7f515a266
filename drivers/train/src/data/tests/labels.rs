//! Labels of texts and of words, and pairs of texts.

use super::*;
use crate::batch::IGNORE;

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
    let ignore = ignore.map(str::to_owned);
    let reading = Reading { length: 9, targets: task.targets(), ignore, ..Reading::default() };
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
fn classes_that_are_known_keep_their_order_where_the_data_have_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str, text: &str, ignore: Option<&str>| {
        let file = write(folder.path(), name, text);
        let source = Source::Labelled { file, text: "0".into(), second: None, label: "1".into() };
        let known = ["z", "b", "a"].map(str::to_owned).to_vec();
        let reading = Reading { known, ignore: ignore.map(str::to_owned), ..Reading::of(LENGTH) };
        let files = source.files(Split::Train, &search(folder.path())).unwrap();
        let cache = folder.path().join("cache");
        let file = prepare(&source, &files, &bytes(Family::Encoder), &reading, &cache).unwrap();
        let classes = (0..file.records()).map(|number| file.class(number)).collect::<Vec<_>>();
        (file.about().labels.join(" "), classes)
    };
    assert_eq!(read("some.tsv", "1\ta\n2\tz\n", None), ("z b a".into(), vec![2, 0]));
    assert_eq!(read("other.tsv", "1\ta\n2\tc\n", None), ("a c".into(), vec![0, 1]));
    assert_eq!(read("some.tsv", "1\ta\n2\tz\n", Some("z")), ("z b a".into(), vec![2, u32::MAX]));
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
