#![allow(clippy::unwrap_used)]
use super::*;

const TEXT: &str = "To be, or not to be: that is the question.\nWhether 'tis nobler in the mind to suffer\n";

fn trained(kind: Kind, special: &[&str], text: &str) -> Tokeniser {
    let special: Vec<String> = special.iter().map(|token| (*token).to_owned()).collect();
    // A vocabulary learns from frequencies: the same text often enough that pairs are worth a token.
    let texts = std::iter::repeat_with(|| Ok::<_, TokenError>(text.to_owned())).take(20);
    train(kind, &special, texts).unwrap()
}

#[test]
fn text_of_every_kind_comes_back() {
    let decoder = usual(Family::Decoder);
    for (kind, special) in [
        (Kind::Char, decoder),
        (Kind::Byte, decoder),
        (Kind::Bpe(300), decoder),
        (Kind::Unigram(60), usual(Family::EncoderDecoder)),
    ] {
        let tokeniser = trained(kind, special, TEXT);
        let ids = tokeniser.encode("that is the mind").unwrap();
        assert_eq!(tokeniser.decode(&ids).unwrap(), "that is the mind", "{kind:?}");
        let again = Tokeniser::from_json(&tokeniser.to_json().unwrap()).unwrap();
        assert_eq!(again.encode("that is the mind").unwrap(), ids, "{kind:?}");
        assert_eq!(again.digest(), tokeniser.digest(), "{kind:?}");
    }
}

/// Each training has hash tables of its own, in which the order is another one.
#[test]
fn vocabulary_of_the_same_texts_is_the_same_each_time() {
    for (kind, special) in [
        (Kind::Bpe(300), usual(Family::Decoder)),
        (Kind::WordPiece(80), usual(Family::Encoder)),
        (Kind::Unigram(60), usual(Family::EncoderDecoder)),
    ] {
        // Characters that occur once, and words that occur equally often.
        let text = format!("{TEXT}ßþðæœøå çñ");
        let first = trained(kind, special, &text);
        for _ in 0..5 {
            assert_eq!(
                trained(kind, special, &text).to_json().unwrap(),
                first.to_json().unwrap(),
                "{kind:?}"
            );
        }
    }
}

#[test]
fn word_pieces_are_lower_case_and_framed() {
    let tokeniser = trained(Kind::WordPiece(80), usual(Family::Encoder), TEXT);
    let ids = tokeniser.encode("That IS the Mind").unwrap();
    assert_eq!(tokeniser.decode(&ids).unwrap(), "that is the mind");
    let framed = tokeniser.inner().encode("that", true).unwrap();
    assert_eq!(framed.get_ids().first(), tokeniser.id("[CLS]").as_ref());
    assert_eq!(framed.get_ids().last(), tokeniser.id("[SEP]").as_ref());
    assert_eq!(tokeniser.find(Special::Pad), Some(0));
    let again = Tokeniser::from_json(&tokeniser.to_json().unwrap()).unwrap();
    assert_eq!(again.digest(), tokeniser.digest());
}

#[test]
fn bytes_are_their_own_ids_behind_the_special_tokens() {
    let tokeniser = trained(Kind::Byte, &["<|endoftext|>"], TEXT);
    assert_eq!(tokeniser.size(), 257);
    let text = "aé今\0\n ";
    let ids: Vec<u32> = text.bytes().map(|byte| 1 + u32::from(byte)).collect();
    assert_eq!(tokeniser.encode(text).unwrap(), ids);
    assert_eq!(tokeniser.decode(&ids).unwrap(), text);
}

#[test]
fn char_vocabulary_has_the_characters_of_the_text() {
    let tokeniser = trained(Kind::Char, &[], "今天天气");
    assert_eq!(tokeniser.size(), 3);
    assert_eq!(tokeniser.decode(&tokeniser.encode("天气今").unwrap()).unwrap(), "天气今");
}

#[test]
fn character_without_a_token_is_named() {
    let tokeniser = trained(Kind::Char, &[], "abc");
    let error = tokeniser.encode("abcde").unwrap_err().to_string();
    assert!(error.contains("no token for 'd'"), "{error}");
}

#[test]
fn vocabulary_below_its_alphabet_is_refused_with_the_sizes() {
    let texts = std::iter::once(Ok::<_, TokenError>(TEXT.to_owned()));
    let error = train(Kind::Bpe(100), &["<|endoftext|>".into()], texts).unwrap_err().to_string();
    assert!(error.contains("100") && error.contains("257"), "{error}");
}

#[test]
fn special_token_that_is_missing_is_asked_for_by_its_names() {
    let tokeniser = trained(Kind::Char, &[], "abc");
    let error = tokeniser.need(Special::Mask).unwrap_err().to_string();
    assert!(error.contains("[MASK]") && error.contains("special"), "{error}");
}

#[test]
fn texts_that_cannot_be_read_fail_with_their_own_error() {
    #[derive(Debug)]
    struct Broken;
    impl From<TokenError> for Broken {
        fn from(_: TokenError) -> Broken {
            panic!("the text is broken and not the tokeniser")
        }
    }
    let texts = [Ok("abc".to_owned()), Err(Broken)];
    assert!(train(Kind::Bpe(300), &[], texts.into_iter()).is_err());
}
