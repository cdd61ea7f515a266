//! Published weights give what their own programs give. The files are among the shared test models
//! (`LLMASOS_SHARED`, or `shared` beside the project); without them these tests say that they are skipped.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use serde_json::{Value, json};
use train::export::{Exported, Format, Matrices};
use train::import::Pretrained;
use train::models::{Sampling, generate};
use train::predict::{Answer, Predictor, Question, Written};
use train::run::Always;
use train::trained::{Trained, Which};
use train::{Batch, Model, ModelConfig, Pass, Side, models};

fn shared() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("LLMASOS_SHARED").map_or_else(beside, PathBuf::from).join("data/models");
    if !folder.is_dir() {
        eprintln!("skipped: no {}", folder.display());
        return None;
    }
    Some(folder)
}

fn load(folder: &Path) -> Box<dyn Model> {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let model = models::build(&ModelConfig::from_json(&text).unwrap(), DType::F32, 0).unwrap();
    let tensors = candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap();
    let loaded = model.parameters().load(&tensors.into_iter().collect()).unwrap();
    assert_eq!(loaded.missing, Vec::<String>::new());
    model
}

fn golden(folder: &Path, model: &str) -> Value {
    let text = std::fs::read_to_string(folder.join("golden.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[model].clone()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn tinystories_goes_on_as_transformers_does() {
    let Some(folder) = shared() else { return };
    let (model, golden) = (load(&folder.join("TinyStories-656K")), golden(&folder, "tinystories_656k"));
    let prompt = ids(&golden["prompt_ids"]);
    let batch = Batch { input: Side::new(prompt.clone(), prompt.len()), ..Batch::default() };
    let logits = model.logits(&batch, &Pass::evaluation()).unwrap().to_vec3::<f32>().unwrap();
    let wanted: Vec<f32> = serde_json::from_value(golden["logits_last_prompt_token_first8"].clone()).unwrap();
    for (found, wanted) in logits[0][prompt.len() - 1].iter().zip(&wanted) {
        assert!((found - wanted).abs() < 1e-4, "{found}, wanted {wanted}");
    }
    let sampling = Sampling { max_tokens: 40, ..Sampling::default() };
    assert_eq!(
        generate(&*model, &[prompt], None, &sampling, |_| ()).unwrap().concat(),
        ids(&golden["greedy_40"])
    );
}

#[test]
fn minilm_embeds_as_sentence_transformers_does() {
    let Some(folder) = shared() else { return };
    let (model, golden) = (load(&folder.join("all-MiniLM-L6-v2")), golden(&folder, "all-MiniLM-L6-v2"));
    let sentences: Vec<Vec<u32>> = serde_json::from_value(golden["ids"].clone()).unwrap();
    let length = sentences.iter().map(Vec::len).max().unwrap();
    let padded =
        |row: &Vec<u32>| row.iter().copied().chain(std::iter::repeat(0)).take(length).collect::<Vec<_>>();
    let mask = |row: &Vec<u32>| (0..length).map(|i| u8::from(i < row.len())).collect::<Vec<_>>();
    let mut side = Side::new(sentences.iter().flat_map(padded).collect(), length);
    side.mask = Some(sentences.iter().flat_map(mask).collect());
    let batch = Batch { input: side, ..Batch::default() };
    let vectors = model.logits(&batch, &Pass::evaluation()).unwrap().to_vec2::<f32>().unwrap();
    let wanted: Vec<Vec<f32>> = serde_json::from_value(golden["embedding_first8"].clone()).unwrap();
    for (found, wanted) in vectors.iter().zip(&wanted) {
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-5, "{found}, wanted {wanted}");
        }
    }
}

#[test]
fn minilm_under_another_head_keeps_its_layers() {
    let Some(folder) = shared() else { return };
    let folder = folder.join("all-MiniLM-L6-v2");
    let mut json: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
    json["architectures"] = vec!["BertForTokenClassification"].into();
    let model = models::build(&ModelConfig::from_json(&json.to_string()).unwrap(), DType::F32, 0).unwrap();
    let tensors = candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap();
    let loaded = model.parameters().load(&tensors.into_iter().collect()).unwrap();
    assert_eq!(loaded.missing, ["classifier.weight", "classifier.bias"]);
}

#[test]
fn published_folder_is_read_with_what_lies_beside_its_weights() {
    let Some(folder) = shared() else { return };
    // It has positions as whole numbers, and a pooler that the model has no use for.
    let trained = Trained::load(&folder.join("all-MiniLM-L6-v2"), Which::Best).unwrap();
    let golden = golden(&folder, "all-MiniLM-L6-v2");
    let texts: Vec<String> = serde_json::from_value(golden["sentences"].clone()).unwrap();
    let question = Question::Embed { texts };
    let Ok(Answer::Vectors { vectors }) = Predictor::new(trained).unwrap().answer(&question, &mut Always)
    else {
        panic!("it is an encoder")
    };
    let wanted: Vec<Vec<f32>> = serde_json::from_value(golden["embedding_first8"].clone()).unwrap();
    for (found, wanted) in vectors.iter().zip(&wanted) {
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-4, "{found}, wanted {wanted}");
        }
    }
}

#[test]
fn published_model_is_asked_as_its_vocabulary_begins_texts() {
    let Some(folder) = shared() else { return };
    let trained = Trained::load(&folder.join("TinyStories-656K"), Which::Best).unwrap();
    let golden = golden(&folder, "tinystories_656k");
    let question = json!({"task": "generate", "text": golden["prompt"], "max_tokens": 40});
    let question: Question = serde_json::from_value(question).unwrap();
    let Ok(Answer::Text(Written { text, .. })) =
        Predictor::new(trained).unwrap().answer(&question, &mut Always)
    else {
        panic!("it is a decoder")
    };
    let wanted = golden["text"].as_str().unwrap();
    assert!(!text.is_empty() && wanted.ends_with(&text), "{text}");
}

#[test]
fn published_gguf_has_the_weights_and_the_vocabulary_of_its_folder() {
    let Some(folder) = shared() else { return };
    let folder = folder.join("TinyStories-656K");
    let wanted = Trained::load(&folder, Which::Best).unwrap();
    let numbers = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let texts = ["Once upon a time, there was", "  Lily's   cat\n\nsaid: 12345!", "日本 naïve"];
    for (name, most) in [("F32", 0.0), ("F16", 1e-3)] {
        let file = folder.join(format!("TinyStories-656K-{name}.gguf"));
        let found = Trained::load(&file, Which::Best).unwrap();
        assert_eq!(found.weights.len(), wanted.weights.len());
        for (name, tensor) in &found.weights {
            let pairs = numbers(tensor).into_iter().zip(numbers(&wanted.weights[name]));
            let away = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(away <= most, "{name}: {away}");
        }
        for text in texts {
            assert_eq!(
                found.tokeniser.encode(text).unwrap(),
                wanted.tokeniser.encode(text).unwrap(),
                "{text:?}"
            );
        }
    }
    let error = Trained::load(&folder.join("TinyStories-656K-Q4_0.gguf"), Which::Best).unwrap_err();
    assert!(error.to_string().contains("is quantised"), "{error}");
}

/// llama.cpp's own tests of vocabularies: texts, and the ids that the models' own programs give.
#[test]
fn vocabularies_of_gguf_cut_text_as_the_models_own_programs_do() {
    let Some(folder) = shared() else { return };
    let folder = folder.join("../tokenizers/llama.cpp");
    for name in [
        "gpt-2",
        "starcoder",
        "refact",
        "llama-spm",
        "bert-bge",
        "phi-3",
        "mpt",
        "falcon",
        "deepseek-llm",
        "deepseek-coder",
    ] {
        let path = folder.join(format!("ggml-vocab-{name}.gguf"));
        let file = std::fs::File::open(&path).unwrap();
        let bytes = file.metadata().unwrap().len();
        let header = Box::new(drivers::gguf::read(file, bytes).unwrap());
        let tokeniser = Pretrained::Gguf { path: path.clone(), header }.tokeniser().unwrap();
        let read = |ending: &str| std::fs::read_to_string(format!("{}.{ending}", path.display())).unwrap();
        let (texts, wanted) = (read("inp"), read("out"));
        let texts = texts.split("\n__ggml_vocab_test__\n");
        let mut wrong = Vec::new();
        for (text, wanted) in texts.zip(wanted.lines()) {
            let wanted: Vec<u32> = wanted.split_whitespace().map(|id| id.parse().unwrap()).collect();
            let found = tokeniser.encode(text).unwrap();
            if found != wanted {
                wrong.push(format!("{text:?}: {found:?}, wanted {wanted:?}"));
            }
        }
        assert!(wrong.is_empty(), "{name}: {}", wrong.join("\n"));
    }
}

#[test]
fn vocabulary_of_sentence_pieces_is_written_as_it_was_read() {
    let Some(folder) = shared() else { return };
    let first = Trained::load(&folder.join("stories260K/stories260Ktok512.gguf"), Which::Best).unwrap();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("model.gguf");
    let Trained { config, weights, tokeniser, name } = &first;
    let exported = Exported { config, weights, tokeniser, name };
    exported.write(Format::Gguf(Matrices::F32), &file).unwrap();
    let second = Trained::load(&file, Which::Best).unwrap();
    assert_eq!(second.config, first.config);
    for text in ["Once upon a time, there was a little girl.", "  Timmy's   dog 123\n\tran!", "naïve 日本"]
    {
        let wanted = first.tokeniser.inner().encode_fast(text, true).unwrap();
        let found = second.tokeniser.inner().encode_fast(text, true).unwrap();
        assert_eq!(found.get_ids(), wanted.get_ids(), "{text:?}");
        assert_eq!(wanted.get_ids()[0], 1, "the text begins with the token that the file says");
        assert_eq!(first.tokeniser.decode(wanted.get_ids()).unwrap(), text);
    }
}
