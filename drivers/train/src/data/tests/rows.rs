//! Rows of texts: next tokens, documents in a row, pairs, hidden tokens, and going on where a loader was left.

use super::*;
use crate::batch::IGNORE;

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
