//! How byte-level BPEs cut text into words before they look for tokens, by the names that llama.cpp has for their families in
//! `tokenizer.ggml.pre`. The patterns are those of the families' own `tokenizer.json`.

use serde_json::{Value, json};

/// GPT-2's own: what `ByteLevel` does by itself.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED_CODER: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const BLOOM: &str = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{ff0c}\x{3001}\x{964}\x{6d4}\x{60c})]+";
const DIGIT: &str = r"\p{N}";

/// DeepSeek's: one cut after another, each within the pieces of those before.
const DEEPSEEK_LLM: [&str; 6] = [
    r"[\r\n]",
    LETTERS,
    r"\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+",
    r"\s+$",
    r"[\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+",
    r"\p{N}+",
];
const DEEPSEEK_CODER: [&str; 5] =
    [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+", DIGIT];
const DEEPSEEK_V3: [&str; 3] = [
    r"\p{N}{1,3}",
    r"[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+",
    r#"[!"\#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#,
];
const FALCON: [&str; 3] = [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"];

/// DeepSeek LLM's letters: those of alphabets that have cases.
const LETTERS: &str = r"\s?[A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af}\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1}\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}\x{1f5d}\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}\x{a771}-\x{a787}\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}\x{118a0}-\x{118df}\x{1e900}-\x{1e943}]+";

/// A family's cuts.
enum Cuts {
    /// Those of `ByteLevel`.
    Level,
    /// Each digit, and then those of `ByteLevel`.
    Digits,
    /// These patterns, one after another.
    Patterns(&'static [&'static str]),
}

fn cuts(name: &str) -> Option<Cuts> {
    Some(match name {
        "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" | "trillion" | "granite-docling" | "exaone4"
        | "roberta-bpe" | "jina-es" | "jina-de" | "jina-v1-en" | "jina-v2-es" | "jina-v2-de"
        | "jina-v2-code" | "gigachat" | "a.x-4.0" | "mellum" | "modern-bert" => Cuts::Level,
        "starcoder" | "refact" | "command-r" | "smollm" | "codeshell" | "exaone" | "minerva-7b" => {
            Cuts::Digits
        }
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2"
        | "dbrx" | "smaug-bpe" | "chatglm-bpe" | "glm4" => Cuts::Patterns(&[LLAMA3]),
        "qwen2" | "deepseek-r1-qwen" | "kormo" | "stablelm2" | "megrez" | "hunyuan" | "grok-2" => {
            Cuts::Patterns(&[QWEN2])
        }
        "qwen35" => Cuts::Patterns(&[QWEN35]),
        "seed-coder" => Cuts::Patterns(&[SEED_CODER]),
        "tekken" => Cuts::Patterns(&[TEKKEN]),
        "gpt-4o" | "llama4" | "kanana2" => Cuts::Patterns(&[GPT4O]),
        "bloom" | "poro-chat" | "gpt3-finnish" => Cuts::Patterns(&[BLOOM]),
        "viking" => Cuts::Patterns(&[BLOOM, DIGIT]),
        "deepseek-llm" => Cuts::Patterns(&DEEPSEEK_LLM),
        "deepseek-coder" => Cuts::Patterns(&DEEPSEEK_CODER),
        "deepseek-v3" | "hunyuan-dense" => Cuts::Patterns(&DEEPSEEK_V3),
        "falcon" => Cuts::Patterns(&FALCON),
        _ => return None,
    })
}

/// How a byte-level BPE of this name cuts text, as `tokenizer.json` says it.
pub(super) fn of_byte_pairs(name: &str) -> Result<Value, String> {
    let level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let split = |regex: &&str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let all = |first: Vec<Value>, last: Value| {
        let all: Vec<Value> = first.into_iter().chain([last]).collect();
        json!({"type": "Sequence", "pretokenizers": all})
    };
    match cuts(name) {
        Some(Cuts::Level) => Ok(level(true)),
        Some(Cuts::Digits) => {
            Ok(all(vec![json!({"type": "Digits", "individual_digits": true})], level(true)))
        }
        Some(Cuts::Patterns(patterns)) => Ok(all(patterns.iter().map(split).collect(), level(false))),
        None => Err(format!(
            "its vocabulary cuts text by `{name}`, which is not known here; give the model's tokenizer.json with \
             `tokeniser: (kind: Load(…))`"
        )),
    }
}

/// Names in GGUF of families, one of those that cut alike.
const FAMILIES: [&str; 14] = [
    "gpt-2",
    "starcoder",
    "llama-bpe",
    "qwen2",
    "qwen35",
    "seed-coder",
    "tekken",
    "gpt-4o",
    "bloom",
    "viking",
    "deepseek-llm",
    "deepseek-coder",
    "deepseek-v3",
    "falcon",
];

/// The name in GGUF of a family that cuts text as a `tokenizer.json` says.
pub(crate) fn family(cuts: &Value) -> Option<&'static str> {
    let own = parts(cuts);
    FAMILIES.into_iter().find(|name| of_byte_pairs(name).is_ok_and(|cuts| parts(&cuts) == own))
}

/// What decides where text is cut: each part's kind, and its pattern, or whether it has one.
fn parts(cuts: &Value) -> Vec<(&Value, Value)> {
    fn part(part: &Value) -> (&Value, Value) {
        let how = match part["type"].as_str() {
            Some("ByteLevel") => json!(part["use_regex"].as_bool().unwrap_or(true)),
            Some("Digits") => part["individual_digits"].clone(),
            _ => part["pattern"].clone(),
        };
        (&part["type"], how)
    }
    match cuts["pretokenizers"].as_array() {
        Some(parts) => parts.iter().map(part).collect(),
        None => vec![part(cuts)],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokenizers::pre_tokenizers::PreTokenizerWrapper;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    /// The pieces of a text, as the text has them.
    fn pieces(name: &str, text: &str) -> Vec<String> {
        let cut: PreTokenizerWrapper = serde_json::from_value(of_byte_pairs(name).unwrap()).unwrap();
        let mut whole = PreTokenizedString::from(text);
        cut.pre_tokenize(&mut whole).unwrap();
        let splits = whole.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(_, (start, end), _)| text[start..end].to_owned()).collect()
    }

    #[test]
    fn families_cut_text_each_in_its_way() {
        let text = "I'LL say McDonald's: 12345 times!\n  日本 x";
        for (name, wanted) in [
            ("gpt-2", "I|'|LL| say| McDonald|'s|:| 12345| times|!|\n | 日本| x"),
            ("starcoder", "I|'|LL| say| McDonald|'s|:| |1|2|3|4|5| times|!|\n | 日本| x"),
            ("llama-bpe", "I|'LL| say| McDonald|'s|:| |123|45| times|!\n| | 日本| x"),
            ("qwen2", "I|'LL| say| McDonald|'s|:| |1|2|3|4|5| times|!\n| | 日本| x"),
            ("tekken", "I|'LL| say| Mc|Donald|'s|:| |1|2|3|4|5| times|!\n| | 日本| x"),
            ("gpt-4o", "I'LL| say| Mc|Donald's|:| |123|45| times|!\n| | 日本| x"),
            ("falcon", "I|'|LL| say| McDonald|'|s|:| |123|45| times|!|\n | 日本| x"),
            ("deepseek-coder", "I|'|LL| say| McDonald|'|s|:| |1|2|3|4|5| times|!|\n| | |日本| x"),
            ("deepseek-v3", "I|'LL| say| McDonald|'s|:| |123|45| times|!\n|  |日本| x"),
        ] {
            assert_eq!(pieces(name, text).join("|"), wanted, "{name}");
        }
    }

    #[test]
    fn every_family_keeps_all_of_a_text() {
        let text = " naïve\t\u{1f600}　。Ünïcödé 3²½\r\n\n  ¿qué? ";
        for name in FAMILIES.into_iter().chain(["llama3"]) {
            assert_eq!(pieces(name, text).concat(), text, "{name}");
        }
        for name in ["gpt-2", "starcoder", "qwen2", "viking", "deepseek-v3"] {
            assert_eq!(family(&of_byte_pairs(name).unwrap()), Some(name));
        }
        assert_eq!(family(&of_byte_pairs("llama3").unwrap()), Some("llama-bpe"));
        assert_eq!(family(&json!({"type": "Whitespace"})), None);
        assert!(of_byte_pairs("kimi-k2").unwrap_err().contains("`kimi-k2`"));
    }
}
