#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::fs;

use candle_core::{Device, Tensor};

use super::*;
use crate::ModelConfig;
use crate::data::Position;

fn checkpoint(step: u64) -> Checkpoint {
    let tensor = |value: f32| Tensor::full(value, (2, 3), &Device::Cpu).unwrap();
    Checkpoint {
        state: RunState {
            step,
            position: Position { epoch: 1, place: 2, seen: 3 },
            tokens: 7,
            seconds: 0.1,
            best: Some(Best { step: 1, loss: 0.1 + 0.2 }),
            evaluations_since: 2,
            fits: fits("AdamW"),
        },
        config: config(4),
        weights: BTreeMap::from([("a.weight".to_owned(), tensor(step as f32 + 0.1))]),
        optimiser: BTreeMap::from([("a.weight.mean".to_owned(), tensor(-0.1))]),
        optimiser_step: step,
        tokeniser: "{}".into(),
        spec: "()".into(),
    }
}

fn fits(optimiser: &str) -> Fits {
    Fits {
        optimiser: optimiser.into(),
        precision: "F32".into(),
        tokeniser: "abc".into(),
        seed: 1,
        data: "d".into(),
        validation: String::new(),
    }
}

fn config(layers: usize) -> ModelConfig {
    let json = format!("{{\"model_type\": \"gpt2\", \"n_layer\": {layers}, \"n_embd\": 32, \"n_head\": 4}}");
    ModelConfig::from_json(&json).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn checkpoint_comes_back_bit_for_bit() {
    let run = tempfile::tempdir().unwrap();
    let folder = Folder::of(run.path());
    let saved = checkpoint(250);
    folder.save(&saved).unwrap();
    let (read, passed) = folder.newest().unwrap();
    assert!(passed.is_empty());
    assert_eq!((&read.state, &read.config, read.optimiser_step), (&saved.state, &saved.config, 250));
    assert_eq!(values(&read.weights["a.weight"]), values(&saved.weights["a.weight"]));
    assert_eq!(values(&read.optimiser["a.weight.mean"]), values(&saved.optimiser["a.weight.mean"]));
    assert_eq!(fs::read_link(folder.path().join("last")).unwrap().to_str(), Some("step-00000250"));
}

#[test]
fn every_damage_is_seen_and_the_one_before_is_taken() {
    let run = tempfile::tempdir().unwrap();
    let folder = Folder::of(run.path());
    folder.save(&checkpoint(1)).unwrap();
    let place = folder.save(&checkpoint(2)).unwrap();
    let names: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names.len(), 7);
    for path in names {
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for damaged in [&flipped, &whole[..whole.len() - 1].to_vec(), &Vec::new()] {
            fs::write(&path, damaged).unwrap();
            let (read, passed) = folder.newest().unwrap();
            assert_eq!((read.state.step, passed.len()), (1, 1), "{}", path.display());
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(folder.newest().unwrap().0.state.step, 1, "{}", path.display());
        fs::write(&path, whole).unwrap();
        assert_eq!(folder.newest().unwrap().0.state.step, 2);
    }
}

#[test]
fn unfinished_checkpoint_is_never_found_and_is_swept_away() {
    let run = tempfile::tempdir().unwrap();
    let folder = Folder::of(run.path());
    let place = folder.save(&checkpoint(1)).unwrap();
    let unfinished = folder.path().join(".step-00000002");
    fs::create_dir(&unfinished).unwrap();
    fs::copy(place.join("state.json"), unfinished.join("state.json")).unwrap();
    assert_eq!(folder.newest().unwrap().0.state.step, 1);
    folder.save(&checkpoint(3)).unwrap();
    assert!(!unfinished.exists());
}

#[test]
fn newest_and_best_are_kept() {
    let run = tempfile::tempdir().unwrap();
    let folder = Folder::of(run.path());
    (1..=5).for_each(|step| drop(folder.save(&checkpoint(step)).unwrap()));
    folder.prune(2, 5, Some(1));
    assert_eq!(folder.steps(), [1, 4, 5]);
}

#[test]
fn damaged_checkpoint_of_a_later_step_takes_no_place_of_a_whole_one() {
    let run = tempfile::tempdir().unwrap();
    let folder = Folder::of(run.path());
    folder.save(&checkpoint(10)).unwrap();
    let damaged = folder.save(&checkpoint(20)).unwrap();
    fs::write(damaged.join("state.json"), "").unwrap();
    assert_eq!(folder.newest().unwrap().0.state.step, 10);
    // The run goes on from there, and is stopped before it comes to where it was.
    folder.save(&checkpoint(15)).unwrap();
    folder.prune(1, 15, None);
    assert_eq!(folder.newest().unwrap().0.state.step, 15);
}

/// A checkpoint of a run whose best one is that of `best`.
fn with_best(step: u64, best: u64) -> Checkpoint {
    let mut checkpoint = checkpoint(step);
    checkpoint.state.best = Some(Best { step: best, loss: 1.0 });
    checkpoint
}

#[test]
fn best_is_what_the_newest_knows_and_never_another_one() {
    let run = tempfile::tempdir().unwrap();
    let folder = Folder::of(run.path());
    folder.save(&with_best(1, 1)).unwrap();
    folder.point("best", 1).unwrap();
    // A kill came before the name pointed to it.
    folder.save(&with_best(2, 2)).unwrap();
    folder.save(&with_best(3, 2)).unwrap();
    assert_eq!(folder.best().unwrap().state.step, 2);
    let link = |name: &str| fs::read_link(folder.path().join(name)).unwrap().display().to_string();
    assert_eq!(link("best"), "step-00000001");
    folder.point("last", 2).unwrap();
    folder.settle(&folder.newest().unwrap().0.state);
    assert_eq!([link("best"), link("last")], ["step-00000002", "step-00000003"]);
    folder.prune(1, 3, Some(2));
    assert_eq!((folder.steps(), folder.best().unwrap().state.step), (vec![2, 3], 2));
    fs::remove_dir_all(folder.path().join("step-00000002")).unwrap();
    let error = folder.best().unwrap_err().to_string();
    assert!(error.contains("step-00000002") && error.contains("--last"), "{error}");
}

#[test]
fn checkpoint_that_cannot_be_written_leaves_the_former() {
    let run = tempfile::tempdir().unwrap();
    let folder = Folder::of(run.path());
    folder.save(&checkpoint(1)).unwrap();
    // A tensor that cannot be written stands for a disk that refuses.
    let mut broken = checkpoint(2);
    broken.weights.insert("b".into(), Tensor::zeros(3, candle_core::DType::U8, &Device::Cpu).unwrap());
    let error = folder.save(&broken).unwrap_err().to_string();
    assert!(error.contains("step-00000002") && error.contains("the checkpoint before is kept"), "{error}");
    assert_eq!(folder.newest().unwrap().0.state.step, 1);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "nothing is left of it: {left:?}");
}

#[test]
fn checkpoint_of_another_model_is_refused_by_the_first_difference() {
    let run = tempfile::tempdir().unwrap();
    let folder = Folder::of(run.path());
    let saved = checkpoint(1);
    let error = saved.check(&config(6), &fits("AdamW"), folder.path()).unwrap_err().to_string();
    assert!(error.contains("another model: its `n_layer` is 4, and here it is 6"), "{error}");
    let error = saved.check(&config(4), &fits("Sgd"), folder.path()).unwrap_err().to_string();
    assert!(error.contains("another run: its `optimiser` is AdamW, and here it is Sgd"), "{error}");
    assert!(saved.check(&config(4), &fits("AdamW"), folder.path()).is_ok());
}

#[test]
fn folder_without_checkpoints_says_so() {
    let run = tempfile::tempdir().unwrap();
    let error = Folder::of(run.path()).newest().unwrap_err().to_string();
    assert!(error.contains("no whole checkpoint") && error.contains("--resume"), "{error}");
}
