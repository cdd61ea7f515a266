#![allow(clippy::unwrap_used)]
use std::fs;

use drivers::gguf::TensorType;
use drivers::gguf::random::{Family as Architecture, Shape};

use super::*;
use crate::export::tests::{Made, TEXT, bert, gpt2, llama, made, numbers, qwen2, t5, write};
use crate::export::{Exported, Format, Matrices};
use crate::token::{Family, Kind, TokenError, train};
use crate::trained::{Trained, Which};

/// Every family and kind of vocabulary that GGUF has.
fn all() -> Vec<Made> {
    let gated = r#"{"model_type": "t5", "num_layers": 1, "num_decoder_layers": 2, "d_model": 32, "d_kv": 8, "d_ff": 64,
        "num_heads": 4, "vocab_size": VOCABULARY, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}"#;
    let untied = r#"{"model_type": "gpt2", "n_layer": 1, "n_embd": 32, "n_head": 4, "n_positions": 32, "n_inner": 40,
        "vocab_size": VOCABULARY, "tie_word_embeddings": false}"#;
    let biased = r#"{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2,
        "head_dim": 8, "intermediate_size": 64, "max_position_embeddings": 32, "attention_bias": true,
        "tie_word_embeddings": true, "vocab_size": VOCABULARY}"#;
    let scaled = |rope: &str| {
        let json = r#"{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2,
            "intermediate_size": 64, "max_position_embeddings": 32, "vocab_size": VOCABULARY, "rope_scaling": ROPE}"#;
        made(&json.replace("ROPE", rope), Kind::Byte, Family::Decoder)
    };
    let wide = {
        let mut made = gpt2(Kind::Char);
        let texts = std::iter::once(Ok::<_, TokenError>("今天 é und so".to_owned()));
        made.tokeniser = train(Kind::Char, &["<|endoftext|>".into()], texts).unwrap();
        made
    };
    vec![
        gpt2(Kind::Bpe(300)),
        gpt2(Kind::Byte),
        gpt2(Kind::Char),
        wide,
        made(untied, Kind::Byte, Family::Decoder),
        llama(),
        qwen2(r#"{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}"#),
        qwen2("null"),
        made(biased, Kind::Bpe(280), Family::Decoder),
        bert(),
        t5(),
        made(gated, Kind::Unigram(60), Family::EncoderDecoder),
        scaled(r#"{"type": "linear", "factor": 2.0}"#),
        scaled(r#"{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}"#),
        scaled(
            r#"{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8}"#,
        ),
    ]
}

#[test]
fn gguf_comes_back_to_the_byte_over_weights_that_can_be_trained() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first.gguf"), folder.path().join("second.gguf"));
    for (number, made) in all().iter().enumerate() {
        for matrices in [Matrices::F32, Matrices::F16, Matrices::BF16] {
            write(made, Format::Gguf(matrices), &first).unwrap();
            let trained = Trained::load(&first, Which::Best).unwrap();
            let Trained { config, weights, tokeniser, name } = &trained;
            Exported { config, weights, tokeniser, name }.write(Format::Gguf(matrices), &second).unwrap();
            assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "{number}: {matrices:?}");
            if let ModelConfig::Llama(found) | ModelConfig::Qwen2(found) = config
                && let ModelConfig::Llama(wanted) | ModelConfig::Qwen2(wanted) = made.model.config()
            {
                assert_eq!(found.rotation().unwrap(), wanted.rotation().unwrap());
            }
            if matrices == Matrices::F32 {
                for (name, tensor) in made.model.parameters().tensors() {
                    let bare = name.strip_prefix("bert.").unwrap_or(&name);
                    match weights.get(bare) {
                        Some(found) => assert_eq!(numbers(found), numbers(&tensor), "{name}"),
                        None => assert!(name.starts_with("cls."), "{name} is lost"),
                    }
                }
            }
        }
    }
}

#[test]
fn vocabulary_that_comes_back_cuts_text_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("model.gguf");
    for (number, mut made) in all().into_iter().enumerate() {
        let text = if number == 3 { "今天 so é" } else { TEXT };
        let wanted = made.tokeniser.encode(text).unwrap();
        // Rows that no token has are filled up in the file.
        if let ModelConfig::Gpt2(mut config) = made.model.config() {
            config.vocab_size += 3;
            made.model =
                crate::models::build(&ModelConfig::Gpt2(config), candle_core::DType::F32, 1).unwrap();
        }
        write(&made, Format::Gguf(Matrices::F32), &at).unwrap();
        let tokeniser = Pretrained::open(&at).unwrap().tokeniser().unwrap();
        assert_eq!(tokeniser.encode(text).unwrap(), wanted, "{number}");
        assert_eq!(tokeniser.decode(&wanted).unwrap(), made.tokeniser.decode(&wanted).unwrap(), "{number}");
        assert_eq!(tokeniser.size(), made.tokeniser.size(), "{number}");
    }
}

#[test]
fn mistral_and_llama_that_talks_are_llamas() {
    let sizes = r#""hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
        "intermediate_size": 64, "vocab_size": 300, "max_position_embeddings": 32768"#;
    let read = |about: &str| ModelConfig::from_json(&format!("{{{about}, {sizes}}}")).unwrap();
    let mistral = r#""model_type": "mistral", "architectures": ["MistralForCausalLM"]"#;
    let plain = read(r#""model_type": "llama""#);
    assert_eq!(read(&format!("{mistral}, \"sliding_window\": null")), plain);
    assert_eq!(read(&format!("{mistral}, \"sliding_window\": 4096")).positions(), 4096);
    assert!(plain.to_json().unwrap().contains("LlamaForCausalLM"));
    let talks = read(r#""model_type": "llama", "eos_token_id": [300, 301]"#);
    assert_eq!((talks.ends(), plain.ends()), (&[300, 301][..], &[2][..]));
    assert_eq!(ModelConfig::from_json(&talks.to_json().unwrap()).unwrap(), talks);
    let error = ModelConfig::from_json(r#"{"model_type": "qwen3"}"#).unwrap_err().to_string();
    assert!(error.contains("qwen3") && error.contains("llama"), "{error}");
}

/// llama.cpp cuts text as the name in the file says, which is that of the vocabulary and not of the architecture.
#[test]
fn family_of_a_vocabulary_is_named_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("model.gguf");
    let mut made = made(
        r#"{"model_type": "qwen2", "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 4,
            "intermediate_size": 64, "max_position_embeddings": 32, "vocab_size": VOCABULARY}"#,
        Kind::Bpe(280),
        Family::Decoder,
    );
    let mut tree: serde_json::Value = serde_json::from_str(&made.tokeniser.to_json().unwrap()).unwrap();
    for family in ["qwen2", "llama-bpe", "gpt-2"] {
        tree["pre_tokenizer"] = cuts::of_byte_pairs(family).unwrap();
        made.tokeniser = Tokeniser::from_json(&tree.to_string()).unwrap();
        write(&made, Format::Gguf(Matrices::F32), &at).unwrap();
        assert_eq!(drivers::gguf::open(&at).unwrap().text("tokenizer.ggml.pre"), Some(family));
        let read = Pretrained::open(&at).unwrap().tokeniser().unwrap();
        let text = "I'LL be 12345 to be";
        assert_eq!(read.encode(text).unwrap(), made.tokeniser.encode(text).unwrap(), "{family}");
    }
    tree["pre_tokenizer"]["use_regex"] = false.into();
    made.tokeniser = Tokeniser::from_json(&tree.to_string()).unwrap();
    let error = write(&made, Format::Gguf(Matrices::F32), &at).unwrap_err().to_string();
    assert!(error.contains("how this BPE cuts text"), "{error}");
}

/// As published: with a window that does not count, and biases where Llama has a choice.
#[test]
fn qwen2_has_biases_on_queries_keys_and_values_alone() {
    let text = r#"{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 32,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1, "intermediate_size": 64,
        "vocab_size": 300, "max_position_embeddings": 64, "sliding_window": 16, "use_sliding_window": false,
        "max_window_layers": 1, "tie_word_embeddings": true, "rope_theta": 1000000.0, "torch_dtype": "bfloat16"}"#;
    let config = ModelConfig::from_json(text).unwrap();
    assert_eq!(config.positions(), 64);
    let windowed = text.replace(r#""use_sliding_window": false"#, r#""use_sliding_window": true"#);
    assert_eq!(ModelConfig::from_json(&windowed).unwrap().positions(), 16);
    let written = config.to_json().unwrap();
    assert!(written.contains("\"qwen2\"") && written.contains("Qwen2ForCausalLM"), "{written}");
    assert_eq!(ModelConfig::from_json(&written).unwrap(), config);
    let model = crate::models::build(&config, candle_core::DType::F32, 1).unwrap();
    let biases = model.parameters().iter().filter(|parameter| parameter.name().ends_with(".bias"));
    let names: Vec<&str> = biases.filter_map(|parameter| parameter.name().rsplit('.').nth(1)).collect();
    assert_eq!(names, ["q_proj", "k_proj", "v_proj"]);
}

#[test]
fn weights_that_lack_a_part_are_refused_by_its_name() {
    let config = r#"{"model_type": "bert", "num_hidden_layers": 1}"#;
    let config = ModelConfig::from_json(config).unwrap();
    for (name, head) in [
        ("classifier.weight", true),
        ("cls.predictions.bias", true),
        ("bert.pooler.dense.weight", true),
        ("bert.encoder.layer.0.output.dense.bias", false),
    ] {
        assert_eq!(config.is_head(name), head, "{name}");
    }
}

/// A model that another program has made, as far as this one can tell.
fn made_up(family: Architecture, kind: TensorType, to: &Path) {
    let shape = Shape {
        family,
        embedding: 64,
        kv_heads: if matches!(family, Architecture::Llama | Architecture::Qwen2) { 2 } else { 4 },
        vocabulary: 300,
        context: 64,
        kind,
        ..Shape::preset("tiny").unwrap()
    };
    shape.write(to).unwrap();
}

#[test]
fn models_of_others_are_whole_and_quantised_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("model.gguf");
    for family in [Architecture::Llama, Architecture::Qwen2, Architecture::Gpt2, Architecture::Bert] {
        for kind in [TensorType::F32, TensorType::F16] {
            made_up(family, kind, &at);
            let trained = Trained::load(&at, Which::Best).unwrap();
            assert_eq!(trained.config.width(), 64);
            trained.model().unwrap();
        }
        made_up(family, TensorType::Q8_0, &at);
        let error = Trained::load(&at, Which::Best).unwrap_err().to_string();
        assert!(error.contains("is quantised, Q8_0") && error.contains("F32, F16 or BF16"), "{error}");
    }
}
