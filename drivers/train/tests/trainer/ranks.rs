//! The program over ranks: any layout trains what one process does, and goes on from what another one has left.

use std::fs;

use train::ranks::{Layout, Mesh, on_threads};
use train::run::Setup;
use train::spec::TrainSpec;

use super::Place;

/// In f64 and at one rate, so that more steps can follow.
const SPEC: &str = r#"(
    model: Gpt(layers: 2, heads: 2, width: 32, context: 16, dropout: 0.1),
    data: (train: Text(["TEXT"])),
    tokeniser: (kind: Train(Char)),
    schedule: Constant(warmup: 5),
    precision: F64,
    batch: 4,
    accumulate: 2,
    steps: 30,
    evaluation: (every: 10, batches: 2),
    checkpoint: (every: 10),
    threads: 2,
    out: "OUT",
)"#;

pub fn place() -> Place {
    let place = Place::default();
    place.spec(SPEC);
    place
}

/// The numbers of the newest checkpoint: weights, and what the optimiser remembers.
pub fn numbers(place: &Place) -> Vec<f64> {
    let mut numbers = Vec::new();
    for name in ["model.safetensors", "optimiser.safetensors"] {
        let path = place.path("run/checkpoints/last").join(name);
        for tensor in train::checkpoint::read_tensors(&path).unwrap().values() {
            numbers.extend(tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap());
        }
    }
    numbers
}

/// The losses of evaluations.
pub fn evaluations(place: &Place) -> Vec<f64> {
    let entries = place.log();
    let losses = entries.iter().filter(|entry| entry["event"] == "evaluation");
    losses.map(|entry| entry["loss"].as_f64().unwrap()).collect()
}

pub fn assert_same(a: &[f64], b: &[f64], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-9, "{what}: {worst:e}");
}

#[test]
fn every_layout_of_ranks_ends_with_what_one_process_does() {
    let one = place();
    one.succeed(&[]);
    let layouts: [&[&str]; 4] = [
        &["--ranks", "2"],
        &["--ranks", "4", "--set", "ranks.tensor=2", "--set", "ranks.zero=true"],
        &["--ranks", "2", "--set", "ranks.pipeline=2"],
        &["--ranks", "8", "--set", "ranks.tensor=2", "--set", "ranks.pipeline=2", "--set", "ranks.data=2"],
    ];
    for layout in layouts {
        let many = place();
        many.succeed(layout);
        assert_same(&numbers(&one), &numbers(&many), &format!("{layout:?}"));
        assert_same(&evaluations(&one), &evaluations(&many), &format!("evaluations of {layout:?}"));
    }
}

#[test]
fn checkpoint_of_one_layout_is_gone_on_from_by_another() {
    let one = place();
    one.succeed(&[]);
    let many = place();
    many.succeed(&["--set", "steps=10", "--ranks", "2", "--set", "ranks.tensor=2"]);
    many.succeed(&["--set", "steps=20", "--resume"]);
    let zero = ["--ranks", "4", "--set", "ranks.tensor=2", "--set", "ranks.zero=true"];
    many.succeed(&[&["--resume"], &zero[..]].concat());
    assert_same(&numbers(&one), &numbers(&many), "two tensor ranks, then one, then two by two");
}

/// As on machines of which each has a folder of its own under the path of the run's.
#[test]
fn ranks_that_find_different_checkpoints_refuse_all_of_them() {
    let place = place();
    place.succeed(&["--set", "steps=10"]);
    let spec = TrainSpec::load(&place.path("spec.ron"), &[]).unwrap();
    let cache = place.path("cache");
    let ends = on_threads(2, 1, |world| {
        let finds = world.rank() == 0;
        let mesh = Mesh::new(world, Layout { data: 2, tensor: 1, pipeline: 1 })?;
        Setup::on(mesh, &spec, &cache, finds).map(drop)
    });
    for end in ends {
        let error = end.unwrap().unwrap_err().to_string();
        assert!(error.contains("rank 1: ") && error.contains("goes on from none"), "{error}");
    }
}

#[test]
fn world_of_another_size_than_the_layout_is_refused_with_both_numbers() {
    let place = place();
    let said = place.refused(&["--ranks", "3", "--set", "ranks.tensor=2"]);
    assert!(said.contains("data 1 × tensor 2 × pipeline 1 is 2 ranks, and 3 of them started"), "{said}");
    let said = place.refused(&["--set", "ranks.pipeline=2"]);
    assert!(said.contains("is 2 ranks, and 1 of them started; start 2 (--ranks 2"), "{said}");
    let said = place.refused(&["--ranks", "8"]);
    assert!(said.contains("a batch of 4 rows for 8 data ranks"), "{said}");
}

#[test]
fn signal_ends_all_ranks_with_one_checkpoint() {
    let place = place();
    let mut started = place.start(&["--ranks", "2", "--set", "steps=100000"]);
    started.wait_for(|event| event["event"] == "step").expect("it begins");
    started.signal(libc::SIGTERM);
    let end = started.wait_for(|event| event["event"] == "end").expect("it says that it ends");
    assert_eq!(started.child.wait().unwrap().code(), Some(143));
    let last = fs::read_link(place.path("run/checkpoints/last")).unwrap();
    assert_eq!(last.to_str().unwrap(), format!("step-{:08}", end["step"].as_u64().unwrap()));
}

/// The texts that a run has written.
fn samples(place: &Place) -> Vec<String> {
    let entries = place.log();
    let texts = entries.iter().filter(|entry| entry["event"] == "sample");
    texts.map(|entry| entry["text"].as_str().unwrap().to_owned()).collect()
}

/// Each tensor rank has half of the vocabulary, of a pipeline the last stage has the logits, and all choose the tokens that
/// one process chooses.
#[test]
fn ranks_with_samples_write_the_texts_of_one_process() {
    let sizes = "layers: 2, heads: 2, width: 32, context: 16";
    for (model, kind) in [
        (format!("Gpt({sizes})"), "Char"),
        (format!("Llama({sizes})"), "Char"),
        (format!("Transformer({sizes})"), "Unigram(100)"),
    ] {
        let spec = format!(
            "(model: {model}, data: (train: Text([\"TEXT\"])), tokeniser: (kind: Train({kind})), precision: F64, batch: 4,
              steps: 20, samples: (every: 10, prompt: \"line 3\", tokens: 20), evaluation: (every: 10, batches: 2), out: \"OUT\")"
        );
        let run = |layout: &[&str]| {
            let place = Place::default();
            place.spec(&spec);
            place.succeed(layout);
            samples(&place)
        };
        let wanted = run(&[]);
        assert!(wanted.len() == 2 && wanted.iter().all(|text| !text.is_empty()), "{wanted:?}");
        for layout in [
            &["--ranks", "2", "--set", "ranks.tensor=2"][..],
            &["--ranks", "2", "--set", "ranks.pipeline=2"],
            &[
                "--ranks",
                "8",
                "--set",
                "ranks.tensor=2",
                "--set",
                "ranks.pipeline=2",
                "--set",
                "ranks.data=2",
            ],
        ] {
            assert_eq!(run(layout), wanted, "{layout:?} of {model}");
        }
    }
}

#[test]
fn pipeline_says_the_accuracy_that_one_process_says() {
    let place = Place::default();
    let labels: String = (0..200).map(|n| format!("the box is {}\t{}\n", n % 7, n % 2)).collect();
    fs::write(place.path("labels.tsv"), labels).unwrap();
    place.spec(&format!(
        "(model: Bert(layers: 2, heads: 2, width: 32, context: 16), data: (train: Labelled(file: {:?})),
          tokeniser: (kind: Train(WordPiece(60))), precision: F64, batch: 8, steps: 10, evaluation: (every: 5, batches: 3),
          out: \"OUT\")",
        place.path("labels.tsv")
    ));
    let run = |layout: &[&str]| {
        place.succeed(layout);
        let entries = place.log();
        fs::remove_dir_all(place.path("run")).unwrap();
        let found = entries.iter().filter(|entry| entry["event"] == "evaluation");
        found.map(|entry| entry["accuracy"].as_f64().expect("it says one")).collect::<Vec<f64>>()
    };
    let wanted = run(&[]);
    assert_eq!(wanted.len(), 2);
    assert_eq!(run(&["--ranks", "2", "--set", "ranks.pipeline=2"]), wanted);
    assert_eq!(run(&["--ranks", "4", "--set", "ranks.pipeline=2", "--set", "ranks.data=2"]), wanted);
}
