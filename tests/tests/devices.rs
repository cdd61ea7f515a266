//! Device memory with real workers: a daemon that may take little main memory, and models of random weights.

use std::path::PathBuf;

use drivers::gguf::random::Shape;
use harness::output::greedy;
use harness::{Daemon, stdout};
use syscalls::call::{Attention, Generate, Mount};
use syscalls::client::mount;
use syscalls::reply::ModelState;
use syscalls::{Errno, Tokens};

/// Two models of the shape `tiny` with 1,024 tokens fit, at about 14 MiB each, and three do not.
const DEVICE_MEMORY: &str = "--device-memory=32MiB";

fn tiny(daemon: &Daemon, name: &str) -> Mount {
    let path: PathBuf = daemon.dir().join(format!("{name}.gguf"));
    Shape::preset("tiny").expect("the preset exists").write(&path).expect("the folder is the test's own");
    let path = path.to_str().expect("UTF-8");
    Mount { context: Some(Tokens(1024)), attention: Attention::Plain, threads: Some(1), ..mount(path, name) }
}

fn state(daemon: &Daemon, name: &str) -> ModelState {
    let models = daemon.client().models().expect("lists");
    models.into_iter().find(|m| m.name == name).expect("it is mounted").state
}

fn number_after(text: &str, label: &str) -> f64 {
    let (_, rest) = text.split_once(label).unwrap_or_else(|| panic!("{label} is missing in: {text}"));
    let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or_else(|_| panic!("no number follows {label} in: {text}"))
}

/// How much weights take depends on the CPU (some hold a second copy in another layout); that the parts make the whole does
/// not. Each of them is rounded to a tenth.
fn assert_sum(refusal: &str) {
    let whole = number_after(refusal, "needs ");
    let parts: f64 = ["(weights ", "pool ", "compute "].iter().map(|part| number_after(refusal, part)).sum();
    assert!((whole - parts).abs() <= 0.2 + f64::EPSILON, "{parts} is not {whole} in: {refusal}");
}

#[test]
fn models_that_do_not_fit_together_take_turns() {
    let daemon = Daemon::start_with(&[DEVICE_MEMORY]);
    let mut client = daemon.client();
    for name in ["a", "b", "c"] {
        client.mount_with(tiny(&daemon, name), |_| {}).expect("others make room");
    }
    assert_eq!(state(&daemon, "a"), ModelState::Unloaded);
    let mut texts = Vec::new();
    for name in ["a", "b", "c", "a"] {
        let opened = client.open(Some(name)).expect("it is loaded again");
        client.append_text(opened.context, "once upon a time").expect("it fits");
        let generate = Generate { stream: false, ..greedy(opened.context, 8) };
        texts.push(client.generate(generate, |_| {}).expect("it generates").tokens);
        client.close(opened.context).expect("own context");
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "the same weights say the same: {texts:?}");
}

#[test]
fn model_without_room_is_refused_with_the_sum_and_those_in_use_stay() {
    let daemon = Daemon::start_with(&[DEVICE_MEMORY]);
    let mut client = daemon.client();
    for name in ["a", "b"] {
        client.mount_with(tiny(&daemon, name), |_| {}).expect("there is room for two");
        client.open(Some(name)).expect("opens");
    }
    let fault = client.mount_with(tiny(&daemon, "c"), |_| {}).expect_err("there is none for three");
    assert_eq!(fault.errno, Errno::ENOMEM);
    for part in ["model c needs 1", "on cpu; 32.0 MiB in all", "taken by a (1"] {
        assert!(fault.message.contains(part), "{part} is missing in: {fault}");
    }
    assert_sum(&fault.message);
    assert_eq!((state(&daemon, "a"), state(&daemon, "b")), (ModelState::Ready, ModelState::Ready));
    let shown = stdout(daemon.llmasos(["devices"]));
    assert!(shown.contains("cpu") && shown.contains("32.0 MiB"), "{shown}");
    let shown = stdout(daemon.llmasos(["devices", "--json"]));
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let shares = shown["devices"][0]["shares"].as_array().expect("a list");
    let names: Vec<&str> = shares.iter().filter_map(|s| s["model"].as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}
