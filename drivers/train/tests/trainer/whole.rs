//! A run from its beginning to its end, and what it leaves.

use std::fs;

use drivers::gguf;
use train::spec::{DeviceSpec, TrainSpec};

use super::{Place, exists};

#[test]
fn run_learns_and_leaves_everything_in_its_folder() {
    let place = Place::default();
    place.succeed(&["--set", "samples.every=30", "--set", "optimiser.lr=0.01"]);
    for name in [
        "spec.ron",
        "config.json",
        "tokenizer.json",
        "log.jsonl",
        "curve.svg",
        "curve.png",
        "checkpoints/last/manifest.json",
        "checkpoints/best/manifest.json",
    ] {
        assert!(exists(&place.path("run").join(name)), "{name}");
    }
    assert_eq!(fs::read_dir(place.path("run/tensorboard")).unwrap().count(), 1);
    let log = place.log();
    let of = |kind: &str| log.iter().filter(|entry| entry["event"] == kind).collect::<Vec<_>>();
    assert_eq!(of("step").len(), 60);
    assert_eq!(of("sample").len(), 2);
    assert_eq!(of("end")[0]["reason"], "all steps are done");
    let losses: Vec<f64> = of("evaluation").iter().map(|entry| entry["loss"].as_f64().unwrap()).collect();
    assert_eq!(losses.len(), 3);
    // 30 characters are guessed at 3.4 nats; after sixty steps the text is known much better.
    assert!(losses[2] < losses[0] && losses[2] < 2.9, "{losses:?}");
    let spec = fs::read_to_string(place.path("run/spec.ron")).unwrap();
    assert_eq!(TrainSpec::parse(&spec, "spec").unwrap().optimiser.rate(), 0.01);
}

/// How often a machine may give the loader no time while a run computes.
const TRIES: u32 = 5;

#[test]
fn steps_find_their_batches_ready() {
    let waited = || {
        let place = Place::default();
        place.succeed(&[]);
        let log = place.log();
        let steps = log.iter().filter(|entry| entry["event"] == "step");
        steps.map(|entry| entry["waited"].as_u64().unwrap()).sum::<u64>()
    };
    // Of 120 batches; the first ones find nothing ready.
    let found: Vec<u64> = (0..TRIES).map(|_| waited()).take_while(|waited| *waited > 60).collect();
    assert!(found.len() < TRIES as usize, "steps had to wait for so many batches: {found:?}");
}

#[test]
fn same_specification_gives_the_same_bits() {
    let (one, other) = (Place::default(), Place::default());
    one.succeed(&["--set", "steps=20"]);
    other.succeed(&["--set", "steps=20", "--set", "threads=2"]);
    assert!(one.last() == other.last(), "threads change nothing");
}

#[test]
fn run_ends_early_when_it_gets_no_better() {
    let place = Place::default();
    // A rate of 0 never gets better.
    place.succeed(&[
        "--set",
        "optimiser.lr=0",
        "--set",
        "evaluation.every=5",
        "--set",
        "evaluation.patience=2",
    ]);
    let log = place.log();
    let end = log.last().unwrap();
    assert_eq!(
        (end["step"].as_u64(), end["reason"].as_str()),
        (Some(15), Some("no better for 2 evaluations"))
    );
}

#[test]
fn dry_run_says_what_a_run_takes_and_leaves_nothing() {
    let place = Place::default();
    let said = place.succeed(&["--dry-run"]);
    for wanted in ["parameters  ", "of the optimiser", "steps       60 of 128 tokens", "tokens/s"] {
        assert!(said.contains(wanted), "{said}");
    }
    assert!(!place.path("run").exists());
}

#[test]
fn trained_model_is_written_in_every_format() {
    let place = Place::default();
    place.succeed(&["--set", "steps=10"]);
    let export = |format: &str, name: &str| place.export("run", format, name);
    export("hf", "hf");
    export("safetensors", "model.safetensors");
    export("gguf", "model.gguf");
    export("pt", "model.pt");
    for name in ["hf/config.json", "hf/model.safetensors", "hf/tokenizer.json", "model.pt"] {
        assert!(exists(&place.path(name)), "{name}");
    }
    let weights = |path: &str| fs::read(place.path(path)).unwrap();
    assert!(weights("model.safetensors") == weights("hf/model.safetensors"));
    assert_eq!(gguf::open(&place.path("model.gguf")).unwrap().architecture, "gpt2");

    // What was written is where another run can begin.
    let folder = place.path("hf").display().to_string();
    place.succeed(&[
        "--set",
        &format!("model={{\"Pretrained\":\"{folder}\"}}"),
        "--set",
        "tokeniser.kind=Usual",
        "--set",
        &format!("out={}", place.path("tuned").display()),
        "--set",
        "steps=5",
    ]);
    assert!(exists(&place.path("tuned/checkpoints/last/model.safetensors")));
}

#[test]
fn every_kind_of_model_learns_from_its_kind_of_data() {
    let place = Place::default();
    let (pairs, labels) = (place.path("pairs.tsv"), place.path("labels.tsv"));
    let rows = |row: fn(usize) -> String| (0..200).map(row).collect::<String>();
    fs::write(&pairs, rows(|n| format!("number {n}\tzahl {n}\n"))).unwrap();
    fs::write(&labels, rows(|n| format!("{} text {n}\t{}\n", ["bad", "good"][n % 2], n % 2))).unwrap();
    let (questions, tagged, alike) =
        (place.path("questions.jsonl"), place.path("tagged.conll"), place.path("alike.tsv"));
    let words = ["red", "green", "blue", "grey"];
    let sentence = |n: usize| format!("the box is {} and the ball is {}", words[n % 4], words[n / 4 % 4]);
    let asked = |n: usize| {
        let start = 11;
        let answer = serde_json::json!({"text": [words[n % 4]], "answer_start": [start]});
        serde_json::json!({"context": sentence(n), "question": "which box", "answers": answer}).to_string()
            + "\n"
    };
    fs::write(&questions, (0..200).map(asked).collect::<String>()).unwrap();
    let tags = |word: &str| if words.contains(&word) { "COLOUR" } else { "O" };
    let lines = |n| {
        let lines = sentence(n);
        let lines = lines.split(' ').map(|word| format!("{word} {}\n", tags(word)));
        lines.collect::<String>() + "\n"
    };
    fs::write(&tagged, (0..200).map(lines).collect::<String>()).unwrap();
    fs::write(
        &alike,
        (0..200).map(|n| format!("{}\tit is {}\n", words[n % 4], words[n % 4])).collect::<String>(),
    )
    .unwrap();
    let questions = format!("Questions(file: {questions:?})");
    let tagged = format!("Tagged(file: {tagged:?})");
    let alike = format!("Pairs(file: {alike:?}, source: \"0\", target: \"1\")");
    let text = "Text([\"TEXT\"])".to_owned();
    let pairs = format!("Pairs(file: {pairs:?}, source: \"0\", target: \"1\")");
    let labelled = format!("Labelled(file: {labels:?})");
    let sizes = "layers: 1, heads: 2, width: 32, context: 24";
    for (model, data, kind) in [
        (format!("Llama({sizes}, kv_heads: 1)"), &text, "Bpe(300)"),
        (format!("Bert({sizes})"), &text, "WordPiece(100)"),
        (format!("Bert({sizes})"), &labelled, "WordPiece(100)"),
        (format!("Bert({sizes})"), &questions, "WordPiece(100)"),
        (format!("Bert({sizes})"), &tagged, "WordPiece(100)"),
        (format!("Bert({sizes})"), &alike, "WordPiece(100)"),
        (format!("Transformer({sizes})"), &pairs, "Unigram(60)"),
        (format!("Transformer({sizes})"), &text, "Unigram(60)"),
        (format!("T5({sizes})"), &pairs, "Unigram(60)"),
    ] {
        let spec = format!(
            "(model: {model}, data: (train: {data}), tokeniser: (kind: Train({kind})), batch: 8, steps: 40,
              optimiser: AdamW(lr: 0.01), schedule: Constant(), evaluation: (every: 20), out: \"OUT\")"
        );
        place.spec(&spec);
        place.succeed(&[]);
        let log = place.log();
        let losses: Vec<f64> = log
            .iter()
            .filter(|entry| entry["event"] == "step")
            .map(|entry| entry["loss"].as_f64().unwrap())
            .collect();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        assert!(mean(&losses[30..]) < 0.9 * mean(&losses[..5]), "{spec}: {losses:?}");
        if [&labelled, &questions, &tagged].contains(&data) {
            let last = log.iter().rfind(|entry| entry["event"] == "evaluation").unwrap();
            assert!(last["accuracy"].as_f64().unwrap() > 0.9, "{last}");
        }
        fs::remove_dir_all(place.path("run")).unwrap();
    }
}

#[test]
fn examples_in_the_repository_can_be_read() {
    for (text, steps, device) in [
        (include_str!("../../specs/shakespeare.ron"), 2000, DeviceSpec::Cpu),
        (include_str!("../../specs/shakespeare-gpu.ron"), 5000, DeviceSpec::Cuda(0)),
    ] {
        let spec = TrainSpec::parse(text, "shakespeare.ron").unwrap().with(&[]).unwrap();
        assert_eq!((spec.steps, spec.device), (Some(steps), device));
    }
}
