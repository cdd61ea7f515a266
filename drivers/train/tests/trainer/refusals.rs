//! What is refused, and what the sentence says.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use super::Place;

#[test]
fn mistakes_in_a_specification_are_named_with_what_was_meant() {
    let place = Place::default();
    let said = place.refused(&["--set", "optimiser.lrr=1"]);
    assert!(said.contains("did you mean `lr`?"), "{said}");
    let text = fs::read_to_string(place.path("spec.ron")).unwrap();
    fs::write(place.path("spec.ron"), text.replace("batch:", "bach:")).unwrap();
    let said = place.refused(&[]);
    assert!(said.contains("spec.ron:6:") && said.contains("did you mean `batch`?"), "{said}");
}

#[test]
fn too_little_memory_is_refused_before_the_first_step_with_the_sum() {
    let place = Place::default();
    let said = place.refused(&["--set", "memory_mib=4"]);
    for wanted in ["of weights +", "of gradients +", "of activations +", "4 MiB are free", "make `batch`"] {
        assert!(said.contains(wanted), "{said}");
    }
    assert!(!place.path("run").exists());
}

#[test]
fn samples_that_cannot_be_written_are_refused_before_the_first_step() {
    let place = Place::default();
    let every = ["--set", "samples.every=50"];
    let said = place.refused(&[&every[..], &["--set", "samples.prompt=É"]].concat());
    assert!(said.contains("`samples` cannot be written") && said.contains("'É'"), "{said}");
    let model = r#"model={"Bert":{"layers":1,"heads":2,"width":32,"context":16}}"#;
    let encoder = ["--set", model, "--set", r#"tokeniser.kind={"Train":{"WordPiece":60}}"#];
    let said = place.refused(&[&every[..], &encoder].concat());
    assert!(said.contains("an encoder generates no text"), "{said}");
    assert!(!place.path("run").exists());
}

#[test]
fn validation_data_of_which_nothing_would_count_are_refused_before_the_first_step() {
    let place = Place::default();
    fs::write(place.path("other.txt"), "a line").unwrap();
    let validation = format!("data.validation={{\"From\":{{\"Text\":[{:?}]}}}}", place.path("other.txt"));
    let model = r#"model={"Bert":{"layers":1,"heads":2,"width":32,"context":4}}"#;
    let said = place.refused(&["--set", &validation, "--set", model, "--set", "masked=0.001"]);
    assert!(said.contains("would compare nothing") && said.contains("`data.validation`"), "{said}");
    // The last of ten pairs is all of the validation data.
    fs::write(place.path("pairs.tsv"), (0..10).map(|n| format!("text {n}\tof {n}\n")).collect::<String>())
        .unwrap();
    place.spec(&format!(
        "(model: Bert(layers: 1, heads: 2, width: 32, context: 16), batch: 4, steps: 2, threads: 1, out: \"OUT\",
          data: (train: Pairs(file: {:?}, source: \"0\", target: \"1\")), tokeniser: (kind: Train(WordPiece(60))))",
        place.path("pairs.tsv")
    ));
    let said = place.refused(&[]);
    assert!(said.contains("would compare nothing") && said.contains("one pair"), "{said}");
    assert!(!place.path("run").exists());
}

#[test]
fn specification_with_a_path_that_json_has_not_is_not_resolved() {
    let place = Place::default();
    let folder = place.path("").join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&folder).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_llmasos-trainer"));
    command.arg("resolve").arg(place.path("spec.ron")).args(["--set", "out=run"]).current_dir(&folder);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("invalid UTF-8") && said.contains("start it in a folder"), "{said}");
}

#[test]
fn vocabulary_that_does_not_fit_the_model_is_refused_with_both_sizes() {
    let place = Place::default();
    let said = place.refused(&["--set", "model.vocabulary=10"]);
    assert!(said.contains("the model has rows for 10") && said.contains("`vocabulary: "), "{said}");
}

#[test]
fn folder_with_a_run_is_not_written_over() {
    let place = Place::default();
    place.succeed(&["--set", "steps=10"]);
    let before = place.last();
    let said = place.refused(&["--set", "steps=10"]);
    assert!(said.contains("has a run already") && said.contains("--resume"), "{said}");
    assert!(place.last() == before);
}

#[test]
fn checkpoint_of_another_model_is_refused_by_the_first_difference() {
    let place = Place::default();
    place.succeed(&["--set", "steps=10"]);
    let said = place.refused(&["--resume", "--set", "model.layers=3"]);
    assert!(said.contains("another model: its `n_layer` is 2, and here it is 3"), "{said}");
    let said = place.refused(&["--resume", "--set", "seed=2"]);
    assert!(said.contains("another run: its `seed` is 1337, and here it is 2"), "{said}");
}

#[test]
fn numbers_that_are_none_end_the_run_and_keep_the_last_good_checkpoint() {
    let place = Place::default();
    place.succeed(&["--set", "steps=10"]);
    let good = place.last();
    let said = place.refused(&[
        "--resume",
        "--set",
        "steps=30",
        "--set",
        "optimiser.lr=1e30",
        "--set",
        "schedule.warmup=0",
    ]);
    assert!(said.contains("it began in ") && said.contains("lower `optimiser.lr`"), "{said}");
    assert!(said.contains("at step 1"), "{said}");
    assert!(said.contains("the checkpoint of step 10 is kept"), "{said}");
    assert!(place.last() == good);
    let reason = place.log().last().unwrap()["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("it began in"), "the log has it, too: {reason}");
}

#[test]
fn data_that_are_broken_are_refused_with_file_and_line() {
    let place = Place::default();
    fs::write(place.path("text.txt"), b"good\nbad \xff\n").unwrap();
    let said = place.refused(&[]);
    assert!(said.contains("text.txt:2: byte 5 of the line, 0xff, is not UTF-8"), "{said}");
    fs::write(place.path("text.txt"), "").unwrap();
    assert!(place.refused(&[]).contains("text.txt: is empty"));
    fs::write(place.path("text.txt"), "short").unwrap();
    let said = place.refused(&[]);
    assert!(said.contains("one example takes 17"), "{said}");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn device_that_this_program_was_built_without_is_refused_with_how_to_build_it() {
    let said = Place::default().refused(&["--set", "device=Cuda(0)"]);
    assert!(
        said.contains("`device` is Cuda(0)") && said.contains("-p llmasos-train --features cuda"),
        "{said}"
    );
}

#[test]
fn weights_that_have_diverged_take_no_place_of_good_ones() {
    let place = Place::default();
    place.succeed(&["--set", "steps=10"]);
    let good = place.last();
    // A checkpoint is due after every step, and one alone is kept.
    let resume = ["--resume", "--set", "checkpoint.every=1", "--set", "checkpoint.keep=1"];
    let diverges =
        ["--set", "optimiser.lr=1e30", "--set", "schedule.warmup=0", "--set", "evaluation.every=1000"];
    let last = ["--set", "steps=11"];
    let alone = [&last[..], &["--set", "data.validation=None", "--set", "data.changed=true"]].concat();
    for steps in [&["--set", "steps=30"][..], &last, &alone] {
        let said = place.refused(&[&resume[..], &diverges, steps].concat());
        assert!(
            said.contains("it began in ") && said.contains("the checkpoint of step 10 is kept"),
            "{said}"
        );
        assert!(place.last() == good, "{steps:?}");
        let names: Vec<_> = fs::read_dir(place.path("run/checkpoints")).unwrap().flatten().collect();
        assert!(
            names.iter().all(|entry| !entry.file_name().to_string_lossy().contains("00000011")),
            "{names:?}"
        );
    }
    // An evaluation sees it first.
    let each = ["--set", "evaluation.every=1", "--set", "steps=30"];
    let said = place.refused(&[&resume[..], &diverges[..4], &each].concat());
    assert!(said.contains("the validation loss is ") && said.contains("step 10 is kept"), "{said}");
    assert!(place.last() == good);
    let log = fs::read_to_string(place.path("run/log.jsonl")).unwrap();
    assert!(!log.contains("null"), "{log}");
    place.succeed(&["--resume", "--set", "steps=12"]);
}
