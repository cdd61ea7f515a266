//! Tokens that are kept beside the text that they are of.

use super::*;

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
