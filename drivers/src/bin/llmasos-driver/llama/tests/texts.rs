//! Text to tokens and back.

use super::*;

#[test]
fn text_of_any_script_comes_back_from_its_tokens() {
    let driver = mounted(&random_model("tiny"));
    let text = "naïve 中文 🦀\n\t<|endoftext|>";
    let request = TokenizeRequest { text: text.into(), bos: false, special: false };
    let tokens = driver.text().tokenize(&request).unwrap();
    assert_eq!(driver.text().detokenize(&tokens).unwrap(), text.as_bytes());
    let outside = driver.text().detokenize(&[Token(u32::MAX)]).unwrap_err();
    assert_eq!(outside.errno, Errno::EINVAL);
}

#[test]
fn text_outside_of_a_vocabulary_without_bytes_is_refused() {
    let Some(path) = shared("TinyStories-656K/TinyStories-656K-Q8_0.gguf") else { return };
    let driver = mounted(&path);
    assert!(!driver.description().any_text);
    for special in [false, true] {
        let request = TokenizeRequest { text: "Once 从前".into(), bos: true, special };
        let fault = driver.text().tokenize(&request).unwrap_err();
        assert_eq!(fault.errno, Errno::EILSEQ);
        assert!(fault.message.contains("'从', character 6 "), "{}", fault.message);
    }
    let request = TokenizeRequest { text: "Once upon a time".into(), bos: true, special: false };
    let (prompt, _) = golden("tinystories_656k").unwrap();
    assert_eq!(driver.text().tokenize(&request).unwrap(), prompt);
}
