#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use serde_json::json;

use super::{Answer, Predictor, Question};
use crate::ModelConfig;
use crate::models::build;
use crate::models::config::BertConfig;
use crate::run::Always;
use crate::token::{Family, Kind, Tokeniser, train, usual};
use crate::trained::Trained;

const TEXT: &str =
    "Der Fluß heißt Ilm. Ein Täßchen Tee steht auf dem Tisch. Die Tür ist grün und der Baum ist groß.";

fn tokeniser() -> Tokeniser {
    let special: Vec<String> = usual(Family::Encoder).iter().map(|token| (*token).to_owned()).collect();
    let texts = std::iter::repeat_n(TEXT.to_owned(), 20).map(Ok::<_, crate::data::DataError>);
    train(Kind::WordPiece(120), &special, texts).unwrap()
}

/// A small encoder with weights that were not trained.
fn encoder(head: &str, positions: usize) -> Predictor {
    let tokeniser = tokeniser();
    let config = ModelConfig::Bert(BertConfig {
        architectures: vec![head.into()],
        vocab_size: tokeniser.size() as usize,
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: positions,
        initializer_range: 0.5,
        ..BertConfig::default()
    });
    let weights = build(&config, DType::F32, 7).unwrap().parameters().tensors();
    Predictor::new(Trained { config, weights, tokeniser, name: "model".into() }).unwrap()
}

fn ask(predictor: &mut Predictor, question: serde_json::Value) -> Result<Answer, String> {
    let question: Question = serde_json::from_value(question).map_err(|error| error.to_string())?;
    predictor.answer(&question, &mut Always).map_err(|error| error.to_string())
}

#[test]
fn answer_is_the_characters_that_it_says_it_is() {
    // In one part, and in parts that overlap.
    for positions in [256, 24] {
        let mut model = encoder("BertForQuestionAnswering", positions);
        let question = json!({"task": "answer", "question": "der Tee", "context": TEXT, "answerable": true});
        let Answer::Span { answer, start, end, score } = ask(&mut model, question).unwrap() else { panic!() };
        let characters: String = TEXT.chars().skip(start).take(end - start).collect();
        assert_eq!(characters, answer);
        assert!(!answer.is_empty() && score > 0.0 && score <= 1.0, "{answer} {score}");
    }
}

#[test]
fn text_without_the_answer_has_none() {
    let mut model = encoder("BertForQuestionAnswering", 24);
    // The first place, where "none" is, has a feature that no other has, and the layer changes nothing.
    let places = (0..24 * 16).map(|n| if n == 0 { 100.0f32 } else { 0.0 }).collect();
    let layer = |name: &str, width| {
        let zeros = Tensor::zeros((16, width), DType::F32, &Device::Cpu).unwrap();
        (format!("bert.encoder.layer.0.{name}.weight"), zeros)
    };
    let places = Tensor::from_vec(places, (24, 16), &Device::Cpu).unwrap();
    let weights = BTreeMap::from([
        ("bert.embeddings.position_embeddings.weight".to_owned(), places),
        layer("attention.output.dense", 16),
        layer("output.dense", 32),
    ]);
    assert!(model.model.parameters().load(&weights).unwrap().unexpected.is_empty());
    let mut told = |weight: f32, answerable: bool| {
        let head = (0..32).map(|n| if n % 16 == 0 { weight } else { 0.0 }).collect();
        let head = Tensor::from_vec(head, (2, 16), &Device::Cpu).unwrap();
        model.model.parameters().load(&BTreeMap::from([("qa_outputs.weight".to_owned(), head)])).unwrap();
        let question =
            json!({"task": "answer", "question": "Tee", "context": TEXT, "answerable": answerable});
        match ask(&mut model, question) {
            Ok(Answer::Span { answer, start, end, score }) => (answer, start, end, score),
            other => panic!("{other:?}"),
        }
    };
    let (answer, start, end, score) = told(4.0, false);
    assert!(answer.is_empty() && (start, end) == (0, 0) && (0.5..=1.0).contains(&score), "{answer}, {score}");
    assert!(!told(4.0, true).0.is_empty(), "the question says that there is one");
    let (answer, ..) = told(-4.0, false);
    assert!(!answer.is_empty() && answer == told(-4.0, true).0, "{answer}");
    // Where no place is likelier than another, none is as likely as any.
    assert!(!told(0.0, false).0.is_empty());
}

#[test]
fn question_that_leaves_no_room_is_refused_with_the_sizes() {
    let mut model = encoder("BertForQuestionAnswering", 8);
    let question = json!({"task": "answer", "question": TEXT, "context": TEXT});
    let error = ask(&mut model, question).unwrap_err();
    assert!(error.contains("reads 8"), "{error}");
}

#[test]
fn hidden_token_is_guessed_with_probabilities_that_sum_to_one() {
    let mut model = encoder("BertForMaskedLM", 64);
    let question = json!({"task": "fill_mask", "text": "der [MASK] ist grün", "top_k": 1000});
    let Answer::Masks { masks } = ask(&mut model, question).unwrap() else { panic!() };
    let [choices] = masks.as_slice() else { panic!("{masks:?}") };
    assert_eq!(choices.len(), tokeniser().size() as usize);
    let sum: f64 = choices.iter().map(|choice| choice.score).sum();
    assert!((sum - 1.0).abs() < 1e-9 && choices.is_sorted_by(|a, b| a.score >= b.score), "{sum}");
    assert!(choices[0].text.ends_with("ist grun") || choices[0].text.ends_with("ist grün"), "{choices:?}");
}

#[test]
fn vectors_have_length_one_and_depend_on_their_own_text_alone() {
    let mut model = encoder("BertForMaskedLM", 64);
    let mut vectors = |texts: &[&str]| match ask(&mut model, json!({"task": "embed", "texts": texts})) {
        Ok(Answer::Vectors { vectors }) => vectors,
        other => panic!("{other:?}"),
    };
    let both = vectors(&["der Baum ist groß", "Tee"]);
    let length: f32 = both[0].iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-5, "{length}");
    assert_eq!(vectors(&["Tee"])[0], both[1]);
}

#[test]
fn task_without_its_head_names_both() {
    let mut model = encoder("BertForMaskedLM", 64);
    let error = ask(&mut model, json!({"task": "classify", "text": "Tee"})).unwrap_err();
    assert!(error.contains("BertForSequenceClassification") && error.contains("BertForMaskedLM"), "{error}");
    let error = ask(&mut model, json!({"task": "generate", "text": "Tee"})).unwrap_err();
    assert!(error.contains("encoder"), "{error}");
    let error = ask(&mut model, json!({"task": "fill_mask", "txt": "Tee"})).unwrap_err();
    assert!(error.contains("`txt`"), "{error}");
}
