#![allow(clippy::unwrap_used)]
use super::*;
use crate::data::{Search, Task};

const SMALL: &str = r#"(
    model: Gpt(layers: 2),
    data: (train: Text(["a.txt"])),
    tokeniser: (kind: Train(Char)),
    steps: 10,
    out: "run",
)"#;

fn refusal(text: &str) -> String {
    TrainSpec::parse(text, "a.ron").and_then(|spec| spec.with(&[])).unwrap_err().to_string()
}

fn set(setting: &str) -> Result<TrainSpec, SpecError> {
    TrainSpec::parse(SMALL, "a.ron").unwrap().with(&[setting.into()])
}

#[test]
fn what_is_left_out_has_its_default_and_text_comes_back() {
    let spec = TrainSpec::parse(SMALL, "a.ron").unwrap();
    assert!(matches!(&spec.model, ModelSpec::Gpt(sizes) if sizes.layers == 2 && sizes.width == 128));
    assert_eq!(spec.data.validation, ValidationSpec::Share(0.1));
    assert_eq!(TrainSpec::parse(&spec.to_ron(), "b.ron").unwrap(), spec);
}

#[test]
fn unknown_name_is_refused_with_its_place_and_the_nearest() {
    let sentence = refusal(&SMALL.replace("steps", "stepps"));
    assert!(sentence.starts_with("a.ron:5:") && sentence.contains("did you mean `steps`?"), "{sentence}");
    let sentence = refusal(&SMALL.replace("layers", "layer"));
    assert!(sentence.contains("did you mean `layers`?"), "{sentence}");
    let sentence = refusal(&SMALL.replace("Gpt(", "Gptt("));
    assert!(sentence.contains("did you mean `Gpt`?"), "{sentence}");
}

#[test]
fn settings_change_parts_and_may_leave_variants_out() {
    assert_eq!(set("optimiser.lr=0.5").unwrap().optimiser.rate(), 0.5);
    assert!(matches!(set("model.layers=7").unwrap().model, ModelSpec::Gpt(sizes) if sizes.layers == 7));
    assert_eq!(
        set("tokeniser.kind={\"Train\":\"Byte\"}").unwrap().tokeniser.kind,
        TokeniserKind::Train(Kind::Byte)
    );
    assert_eq!(set("precision=F64").unwrap().precision, PrecisionSpec::F64);
    assert_eq!(set("precision=Bf16").unwrap().precision, PrecisionSpec::Bf16);
    assert_eq!(set("device={\"Cuda\": 1}").unwrap().device, DeviceSpec::Cuda(1));
    assert_eq!(set("device=Cuda(1)").unwrap().device, DeviceSpec::Cuda(1));
    assert_eq!(set("device=Cpu").unwrap().device, DeviceSpec::Cpu);
    assert_eq!(set("samples.prompt=f(1)").unwrap().samples.prompt, "f(1)");
    assert_eq!(set("samples.prompt=Once upon").unwrap().samples.prompt, "Once upon");
    assert_eq!(set("threads=null").unwrap().threads, None);
}

#[test]
fn precision_that_a_device_has_not_is_refused() {
    let spec = TrainSpec::parse(&SMALL.replace("steps: 10", "steps: 10, device: Metal(0)"), "a.ron").unwrap();
    let refused = spec.clone().with(&["precision=F64".into()]).unwrap_err().to_string();
    assert!(refused.contains("Metal has no such numbers"), "{refused}");
    assert_eq!(spec.with(&[]).unwrap().device, DeviceSpec::Metal(0));
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    for (setting, wanted) in [
        ("optimiser.lrr=1", "did you mean `lr`?"),
        ("bach=1", "did you mean `batch`?"),
        ("batch=many", "--set batch=many"),
        ("batch=0", "`batch` is 0; it must be within 1 and"),
        ("batch", "write NAME=VALUE"),
        ("epochs=2", "both `steps` and `epochs`"),
        ("batch.size=2", "nothing below it"),
        ("optimiser.betas=[0.9,1]", "`optimiser.betas` is 1; it must be from 0 on, below 1"),
        ("optimiser.groups=[{\"names\":[]}]", "names no parameters"),
        ("optimiser.groups=[{\"names\":[\"a\"],\"betas\":[0.9,1.5]}]", "`optimiser.groups.betas` is 1.5"),
        (
            "optimiser={\"Sgd\":{\"lr\":1,\"groups\":[{\"names\":[\"a\"],\"betas\":[0,0]}]}}",
            "for Adam and AdamW",
        ),
        ("model.dropout=1", "`model.dropout` is 1; it must be from 0 on, below 1"),
        ("model.dropout=-0.1", "`model.dropout` is -0.1"),
        ("model.layers=0", "`model.layers` is 0; it must be within 1 and"),
        ("model.heads=0", "`model.heads` is 0"),
        ("model.width=18446744073709551615", "`model.width` is 18446744073709551615"),
        ("model.context=18446744073709551615", "`model.context` is"),
        ("schedule.floor=-0.1", "`schedule.floor` is -0.1; it must be within 0 and 1"),
        ("schedule={\"Linear\":{\"floor\":1.5}}", "`schedule.floor` is 1.5"),
        ("evaluation.patience=0", "`evaluation.patience` is 0"),
        ("samples.tokens=0", "`samples.tokens` is 0"),
        ("optimiser.groups=[{\"names\":[\"a\"],\"lr\":-1}]", "`optimiser.groups.lr` is -1"),
        ("optimiser.groups=[{\"names\":[\"a\"],\"rate\":1}]", "`rate`"),
    ] {
        let sentence = set(setting).unwrap_err().to_string();
        assert!(sentence.contains(wanted), "{setting}: {sentence}");
    }
}

#[test]
fn numbers_that_are_infinite_or_none_are_refused_by_name() {
    for (part, wanted) in [
        ("clip: inf", "`clip` is inf"),
        ("label_smoothing: NaN", "`label_smoothing` is NaN"),
        ("optimiser: AdamW(lr: inf)", "`optimiser.lr` is inf"),
        ("optimiser: AdamW(lr: 0.001, groups: [(names: [\"h\"], lr: inf)])", "`optimiser.groups.lr` is inf"),
        (
            "optimiser: AdamW(lr: 0.001, groups: [(names: [\"h\"], weight_decay: NaN)])",
            "`optimiser.groups.weight_decay` is NaN",
        ),
    ] {
        let sentence = refusal(&SMALL.replace("steps: 10", &format!("steps: 10, {part}")));
        assert!(sentence.contains(wanted), "{part}: {sentence}");
    }
}

#[test]
fn rows_are_as_long_as_is_said_within_what_the_model_has_places_for() {
    let length = |setting: &str| {
        let task = set(setting).unwrap().task();
        task.map(|task| task.length()).map_err(|error| error.to_string())
    };
    assert_eq!((length("context=null"), length("context=16")), (Ok(64), Ok(16)));
    let error = length("context=65").unwrap_err();
    assert!(
        error.contains("`context` is 65; it must be within 4 and 64, the tokens that the model"),
        "{error}"
    );
    assert!(length("context=3").unwrap_err().contains("`context` is 3"));
    assert_eq!(length("model={\"T5\":{\"context\":32}}"), Ok(32));

    let folder = tempfile::tempdir().unwrap();
    let config = r#"{"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1,
        "intermediate_size": 16, "vocab_size": 50, "max_position_embeddings": 131072}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let of = |more: &str| {
        let text = SMALL.replace("Gpt(layers: 2)", &format!("Pretrained({:?}){more}", folder.path()));
        TrainSpec::parse(&text, "a.ron").unwrap().task().unwrap().length()
    };
    assert_eq!((of(""), of(", context: 4096"), of(", context: 131072")), (1024, 4096, 131_072));
}

#[test]
fn loss_for_other_data_is_refused_with_what_it_is_for() {
    let labelled = SMALL.replace("Gpt", "Bert").replace("Text([\"a.txt\"])", "Labelled(file: \"a.tsv\")");
    let of = |text: &str, loss: &str| {
        let text = text.replace("steps: 10", &format!("steps: 10, loss: {loss}"));
        let spec = TrainSpec::parse(&text, "a.ron").and_then(|spec| spec.with(&[])).unwrap();
        (spec.task().map_err(|error| error.to_string()), spec.loss.criterion(&["a".into(), "b".into()]))
    };
    assert_eq!(of(&labelled, "MeanSquaredError").0, Ok(Task::Rate { length: 64 }));
    assert_eq!(of(&labelled, "BinaryCrossEntropy").0, Ok(Task::Label { length: 64 }));
    assert_eq!(of(&labelled, "CosineSimilarity").0, Ok(Task::Compare { length: 64 }));
    for loss in ["MeanSquaredError", "CrossEntropy(weights: {\"a\": 2.0})", "MultipleNegativesRanking()"] {
        let error = of(SMALL, loss).0.unwrap_err();
        assert!(error.contains("which is for") && error.contains("data.train"), "{loss}: {error}");
    }
    let (task, criterion) = of(&labelled, "CrossEntropy(weights: {\"b\": 2.0}, ignore: \"c\")");
    assert_eq!(task, Ok(Task::Classify { length: 64 }));
    assert_eq!(criterion.unwrap().class_weights.as_deref(), Some(&[1.0, 2.0][..]));
    let error = of(&labelled, "CrossEntropy(weights: {\"x\": 2.0})").1.unwrap_err().to_string();
    assert!(error.contains("has one for `x`, and the classes are a, b"), "{error}");
    assert!(
        refusal(&SMALL.replace("steps: 10", "steps: 10, loss: CrossEntropi"))
            .contains("did you mean `CrossEntropy`")
    );
}

#[test]
fn data_for_another_kind_of_model_are_refused() {
    let text = SMALL.replace("Text([\"a.txt\"])", "Labelled(file: \"a.tsv\")");
    let sentence = TrainSpec::parse(&text, "a.ron").unwrap().task().unwrap_err().to_string();
    assert!(sentence.contains("a decoder learns from texts") && sentence.contains("labelled"), "{sentence}");
}

#[test]
fn validation_data_of_another_kind_are_refused() {
    let of = |validation: &str| {
        let both = format!("Text([\"a.txt\"]), validation: From({validation})");
        let spec = TrainSpec::parse(&SMALL.replace("Text([\"a.txt\"])", &both), "a.ron").unwrap();
        spec.task().map_err(|error| error.to_string())
    };
    assert!(of("Jsonl(files: [\"b.jsonl\"])").is_ok(), "both are texts");
    let sentence = of("Pairs(file: \"b.tsv\", source: \"0\", target: \"1\")").unwrap_err();
    assert!(sentence.contains("`data.validation` has pairs, and `data.train` has texts"), "{sentence}");
}

#[test]
fn files_that_links_of_a_folder_lead_to_are_in_what_is_resolved() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().canonicalize().unwrap();
    let [blobs, model, data] = ["blobs", "model", "data/raw"].map(|name| root.join(name));
    for folder in [&blobs, &model, &data] {
        std::fs::create_dir_all(folder).unwrap();
    }
    for (blob, link) in [("1", model.join("config.json")), ("2", data.join("train.txt"))] {
        std::fs::write(blobs.join(blob), "{}").unwrap();
        std::os::unix::fs::symlink(blobs.join(blob), link).unwrap();
    }
    std::os::unix::fs::symlink("nowhere", model.join("broken")).unwrap();
    let dataset = format!("Dataset(name: {:?})", root.join("data"));
    let text = SMALL.replace("Text([\"a.txt\"])", &dataset);
    let text = text.replace("Gpt(layers: 2)", &format!("Pretrained({model:?})"));
    let search = Search { folders: Vec::new(), cache: root.join("cache"), mirror: String::new() };
    let spec = TrainSpec::parse(&text, "a.ron").unwrap().resolved(&root, &search).unwrap();
    assert_eq!(spec.links, [blobs.join("1"), blobs.join("2")]);
    assert_eq!(TrainSpec::parse(&spec.to_ron(), "b.ron").unwrap(), spec);
}
