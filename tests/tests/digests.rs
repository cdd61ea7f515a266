//! A model's file is known by its digest: one that has changed is refused until somebody says that it is meant.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use drivers::gguf::random::Shape;
use harness::{Daemon, stdout, wait_for};
use serde_json::Value;

/// A small model; another seed makes another one of the same size.
fn write_model(path: &Path, seed: u64) {
    let shape = Shape { seed, ..Shape::preset("tiny").expect("the preset exists") };
    shape.write(path).expect("a model can be written");
}

fn model(daemon: &Daemon) -> Value {
    let listed = stdout(daemon.llmasos(["models", "--json"]));
    let listed: Value = serde_json::from_str(&listed).expect("an object");
    listed["models"][0].clone()
}

fn sha256sum(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("it is part of every Linux");
    stdout(output).split(' ').next().expect("a digest").to_owned()
}

fn kill_worker(daemon: &Daemon) {
    let worker = i32::try_from(model(daemon)["worker_os_pid"].as_u64().expect("a worker")).expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker), nix::sys::signal::Signal::SIGKILL)
        .expect("it runs");
}

/// A daemon with the model m, and its file.
fn mounted() -> (Daemon, PathBuf) {
    let daemon = Daemon::start();
    let path = daemon.dir().join("m.gguf");
    write_model(&path, 1);
    daemon.mount(&path, "m");
    (daemon, path)
}

#[test]
fn file_changed_while_the_daemon_was_away_is_refused_and_can_be_accepted() {
    let (mut daemon, path) = mounted();
    let first = sha256sum(&path);
    assert_eq!(model(&daemon)["digest"], format!("sha256:{first}"));
    assert!(daemon.terminate().success());
    write_model(&path, 2);
    let second = sha256sum(&path);
    daemon.restart();
    let offline =
        wait_for("the model's refusal", || Some(model(&daemon)).filter(|m| m["state"] == "offline"));
    let trouble = offline["trouble"].as_str().expect("it says why");
    for part in [&first[..12], &second[..12], "mount --accept-changed", "umount and mount"] {
        assert!(trouble.contains(part), "{trouble}");
    }
    let refused = daemon.client().open(Some("m")).expect_err("nothing runs");
    assert!(refused.message.contains("has changed"), "{refused}");
    let file = path.to_str().expect("UTF-8");
    stdout(daemon.llmasos(["mount", "--accept-changed", file, "--name", "m"]));
    assert_eq!(model(&daemon)["digest"], format!("sha256:{second}"));
    daemon.client().open(Some("m")).expect("it runs");
}

#[test]
fn file_changed_under_a_worker_is_refused_when_that_dies() {
    let (daemon, path) = mounted();
    // Another file under the name: the worker still has the old one mapped.
    let new = daemon.dir().join("new");
    write_model(&new, 2);
    fs::rename(&new, &path).expect("renames");
    kill_worker(&daemon);
    let offline =
        wait_for("the model's refusal", || Some(model(&daemon)).filter(|m| m["state"] == "offline"));
    assert!(offline["trouble"].as_str().is_some_and(|t| t.contains("has changed")), "{offline}");
}

#[test]
fn model_in_two_files_is_mounted_and_one_of_another_model_is_refused_when_its_worker_dies() {
    let daemon = Daemon::start();
    let names = |stem: &str| [1, 2].map(|part| daemon.dir().join(format!("{stem}-{part:05}-of-00002.gguf")));
    let (parts, others) = (names("m"), names("n"));
    let shape = |seed| Shape { seed, ..Shape::preset("tiny").expect("the preset exists") };
    shape(1).write_in_parts(&parts).expect("a model can be written");
    shape(2).write_in_parts(&others).expect("a model can be written");
    daemon.mount(&parts[0], "m");
    daemon.client().open(Some("m")).expect("it runs");
    fs::rename(&others[1], &parts[1]).expect("renames");
    kill_worker(&daemon);
    let offline =
        wait_for("the model's refusal", || Some(model(&daemon)).filter(|m| m["state"] == "offline"));
    assert!(offline["trouble"].as_str().is_some_and(|t| t.contains("has changed")), "{offline}");
}

#[test]
fn file_that_is_as_it_was_is_not_read_again() {
    let (mut daemon, path) = mounted();
    // What was read is remembered with the file's times; a digest that nobody computed shows that it is taken from there.
    let known = daemon.data().join("digests");
    let kept = fs::read_to_string(&known).expect("it is kept");
    let digest = sha256sum(&path);
    assert!(kept.contains(&digest), "{kept}");
    stdout(daemon.llmasos(["umount", "m"]));
    assert!(daemon.terminate().success());
    let other = "0".repeat(64);
    fs::write(&known, kept.replace(&digest, &other)).expect("writes");
    daemon.restart();
    daemon.mount(&path, "m");
    assert_eq!(model(&daemon)["digest"], format!("sha256:{other}"));
}
