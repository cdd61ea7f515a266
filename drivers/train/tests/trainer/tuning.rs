//! Going on with models that were trained before: out of a folder or a GGUF, all of them, or parts.

use std::collections::BTreeMap;
use std::fs;

use train::checkpoint::read_tensors;
use train::import::Pretrained;
use train::trained::{Trained, Which};

use super::Place;

/// The weights of a model, as bits.
fn bits(place: &Place, name: &str) -> BTreeMap<String, Vec<u32>> {
    let trained = Trained::load(&place.path(name), Which::Newest).unwrap();
    let bits = |tensor: candle_core::Tensor| {
        let numbers = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        numbers.into_iter().map(f32::to_bits).collect()
    };
    trained.weights.into_iter().map(|(name, tensor)| (name, bits(tensor))).collect()
}

/// Trains a model, writes it as a GGUF, and makes a specification that goes on with that.
fn trained(place: &Place) {
    place.succeed(&["--set", "steps=5", "--set", "model.dropout=0"]);
    place.export("run", "gguf", "model.gguf");
    let spec = format!(
        "(model: Pretrained({:?}), data: (train: Text([\"TEXT\"])), batch: 4, steps: 8, threads: 1,
          optimiser: AdamW(lr: 0.01), checkpoint: (every: 4), out: \"OUT\")",
        place.path("model.gguf")
    );
    fs::rename(place.path("run"), place.path("before")).unwrap();
    place.spec(&spec);
}

#[test]
fn gguf_is_gone_on_with_all_of_it_or_with_frozen_parts() {
    let place = Place::default();
    trained(&place);
    let before = bits(&place, "model.gguf");
    assert_eq!(before, bits(&place, "before"), "the file has what was trained");
    place.succeed(&["--set", r#"tune={"Frozen":["h.0.","wte"]}"#]);
    for (name, now) in bits(&place, "run") {
        let frozen = name.contains("h.0.") || name.contains("wte");
        assert_eq!(now == before[&name], frozen, "{name}");
    }
    fs::remove_dir_all(place.path("run")).unwrap();
    place.succeed(&[]);
    assert!(bits(&place, "run").iter().all(|(name, now)| *now != before[name]));
}

#[test]
fn adapters_train_alone_go_on_after_a_stop_and_are_merged_into_what_is_exported() {
    let place = Place::default();
    trained(&place);
    let before = bits(&place, "model.gguf");
    let tune = ["--set", r#"tune={"Lora":{"rank":2,"layers":["c_attn"]}}"#];
    let arguments = |more: &[&'static str]| [&tune[..], more].concat();
    place.succeed(&arguments(&[]));
    let whole = place.last();
    let after = bits(&place, "run");
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "adapters are merged");
    for (name, now) in &after {
        assert_eq!(*now != before[name], name.contains("c_attn.weight"), "{name}");
    }
    let kept = read_tensors(&place.path("run/checkpoints/last/model.safetensors")).unwrap();
    assert_eq!(kept["transformer.h.1.attn.c_attn.lora_A.weight"].dims(), [2, 32]);
    place.export("run", "gguf", "tuned.gguf");
    assert_eq!(bits(&place, "tuned.gguf"), after);
    fs::remove_dir_all(place.path("run")).unwrap();
    place.succeed(&arguments(&["--set", "steps=4"]));
    place.succeed(&arguments(&["--resume"]));
    assert!(place.last() == whole, "two parts are the same as one");
}

#[test]
fn groups_have_rates_of_their_own_and_go_on_after_a_stop() {
    let place = Place::default();
    trained(&place);
    let before = bits(&place, "model.gguf");
    let groups = r#"optimiser.groups=[{"names":["h.0.","wte"],"lr":0.0},{"names":["h."],"lr":0.02,"weight_decay":0.5}]"#;
    let arguments = |more: &[&'static str]| [&["--set", groups], more].concat();
    place.succeed(&arguments(&[]));
    for (name, now) in bits(&place, "run") {
        let still = name.contains("h.0.") || name.contains("wte");
        assert_eq!(now == before[&name], still, "{name}");
    }
    let whole = place.last();
    fs::remove_dir_all(place.path("run")).unwrap();
    place.succeed(&arguments(&["--set", "steps=4"]));
    place.succeed(&arguments(&["--resume"]));
    assert!(place.last() == whole, "two parts are the same as one");
    let error = place.refused(&["--set", r#"optimiser.groups=[{"names":["q_proj"]}]"#]);
    assert!(error.contains("`optimiser.groups` names `q_proj`") && error.contains("wte"), "{error}");
}

#[test]
fn what_cannot_be_tuned_is_refused_by_name() {
    let place = Place::default();
    trained(&place);
    let error = place.refused(&["--set", r#"tune={"Lora":{"layers":["q_proj"]}}"#]);
    assert!(error.contains("names `q_proj`") && error.contains("h.0.attn.c_attn"), "{error}");
    let error = place.refused(&["--set", r#"tune={"Frozen":["transformer."]}"#]);
    assert!(error.contains("leaves nothing to train"), "{error}");
    let error = place.refused(&["--set", r#"tokeniser.kind={"Train":"Char"}"#]);
    assert!(
        error.contains("model.gguf was trained with one") && error.contains("leave `tokeniser` out"),
        "{error}"
    );
    let header = fs::read(place.path("model.gguf")).unwrap()[..1000].to_vec();
    fs::write(place.path("model.gguf"), header).unwrap();
    let error = place.refused(&[]);
    assert!(error.contains("model.gguf") && error.contains("truncated"), "{error}");
    assert!(Pretrained::open(&place.path("model.gguf")).is_err());
}

#[test]
fn head_for_the_same_classes_keeps_their_order_and_validation_may_lack_some() {
    let place = Place::default();
    let data = |name: &str, labels: &[&str]| {
        let path = place.path(name);
        let rows = (0..60).map(|n| format!("text {n}\t{}\n", labels[n % labels.len()]));
        fs::write(&path, rows.collect::<String>()).unwrap();
        format!("Labelled(file: {path:?})")
    };
    let train = |model: &str, data: &str, rest: &str, out: &str| {
        place.spec(&format!(
            "(model: {model}, data: (train: {data}, {rest}), batch: 4, steps: 2, threads: 1, out: {:?})",
            place.path(out)
        ));
    };
    let tokeniser = ["--set", r#"tokeniser.kind={"Train":{"WordPiece":100}}"#];
    let all = data("all.tsv", &["no", "perhaps", "yes"]);
    train("Bert(layers: 1, heads: 2, width: 32, context: 16)", &all, "", "first");
    place.succeed(&tokeniser);
    place.export("first", "hf", "model");
    let names = |path: &str| {
        let text = fs::read_to_string(place.path(path)).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    // As another program has numbered them.
    let mut config = names("model/config.json");
    config["id2label"] = serde_json::json!({"0": "yes", "1": "no", "2": "perhaps"});
    fs::write(place.path("model/config.json"), config.to_string()).unwrap();
    let (some, one) = (data("some.tsv", &["no", "yes"]), data("one.tsv", &["yes"]));
    let model = format!("Pretrained({:?})", place.path("model"));
    train(&model, &some, &format!("validation: From({one})"), "more");
    let said = place.succeed(&[]);
    assert!(!said.contains("begin anew"), "the head is kept: {said}");
    assert_eq!(names("more/config.json")["id2label"], config["id2label"]);
    place.succeed(&["--resume", "--set", "steps=4"]);
    let other = data("other.tsv", &["no", "never"]);
    train(&model, &some, &format!("validation: From({other})"), "refused");
    let said = place.refused(&[]);
    assert!(said.contains("never") && said.contains("must have no others"), "{said}");
}

/// Takes the tensors of these names out of the folder of a model.
fn without(place: &Place, folder: &str, gone: &str) {
    let path = place.path(folder).join("model.safetensors");
    let mut tensors = read_tensors(&path).unwrap();
    let before = tensors.len();
    tensors.retain(|name, _| !name.contains(gone));
    assert!(tensors.len() < before);
    train::checkpoint::write_tensors(&path, &tensors).unwrap();
}

#[test]
fn body_that_lacks_a_weight_is_refused_and_a_new_head_is_told() {
    let place = Place::default();
    place.succeed(&["--set", "steps=5"]);
    place.export("run", "hf", "model");
    let labels = place.path("labels.tsv");
    fs::write(&labels, (0..40).map(|n| format!("text {n}\t{}\n", n % 2)).collect::<String>()).unwrap();
    let go_on = |folder: &str, data: &str, out: &str| {
        place.spec(&format!(
            "(model: Pretrained({:?}), data: (train: {data}), batch: 4, steps: 2, threads: 1, out: {:?})",
            place.path(folder),
            place.path(out)
        ));
    };
    go_on("model", "Text([\"TEXT\"])", "more");
    place.succeed(&[]);
    fs::remove_dir_all(place.path("more")).unwrap();
    without(&place, "model", "h.1.mlp.c_proj.weight");
    let said = place.refused(&[]);
    assert!(said.contains("h.1.mlp.c_proj.weight") && said.contains("a file of them is missing"), "{said}");

    place.spec(
        "(model: Bert(layers: 1, heads: 2, width: 32, context: 24), data: (train: Text([\"TEXT\"])), batch: 4,
          tokeniser: (kind: Train(WordPiece(100))), steps: 2, threads: 1, out: \"OUT\")",
    );
    fs::remove_dir_all(place.path("run")).unwrap();
    place.succeed(&[]);
    place.export("run", "hf", "bert");
    go_on("bert", &format!("Labelled(file: {labels:?})"), "classes");
    let said = place.succeed(&[]);
    assert!(said.contains("`classifier.weight`") && said.contains("begin anew"), "{said}");
    without(&place, "bert", "layer.0.output");
    let said = place.refused(&["--set", &format!("out={}", place.path("other").display())]);
    assert!(said.contains("layer.0.output"), "{said}");
}
