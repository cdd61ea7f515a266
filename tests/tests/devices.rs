//! Device memory with real workers: a daemon that may take little main memory, and models of random weights.

use std::path::PathBuf;

use drivers::gguf::random::Shape;
use harness::said::{ROUNDING_QUANTISED, Said, assert_same_but_for_ties, greedy, say};
use harness::{Daemon, stdout, wait_until};
use syscalls::call::{Attention, Generate, Mount, OnFull, Open};
use syscalls::client::blocking::Client;
use syscalls::client::mount;
use syscalls::reply::{ModelInfo, ModelState};
use syscalls::{ContextId, Errno, Reply, Token, Tokens};

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
    let mut first = None;
    for name in ["a", "b", "c", "a"] {
        let opened = client.open(Some(name)).expect("it is loaded again");
        client.append_text(opened.context, "once upon a time").expect("it fits");
        let said = [say(&mut client, opened.context, 8)];
        client.close(opened.context).expect("own context");
        let first = first.get_or_insert_with(|| said.clone());
        assert_same_but_for_ties(&*first, &said, ROUNDING_QUANTISED, "the same weights");
    }
}

/// Has a client write for as long as nobody ends it.
fn write_for_ever(client: &mut Client, model: &str) {
    let call = Open { model: Some(model.into()), tokens_max: None, on_full: OnFull::Slide, prefix: None };
    let Ok(Reply::Opened { context, .. }) = client.call(call) else { panic!("it opens") };
    client.append_text(context, "once upon a time").expect("it fits");
    client.start(Generate { stream: false, ..greedy(context, u32::MAX) }).expect("it is sent");
}

#[test]
fn model_without_room_is_refused_with_the_sum_and_those_in_use_stay() {
    let daemon = Daemon::start_with(&[DEVICE_MEMORY]);
    let mut client = daemon.client();
    let mut writers = [("a", daemon.client()), ("b", daemon.client())];
    for (name, writer) in &mut writers {
        client.mount_with(tiny(&daemon, name), |_| {}).expect("there is room for two");
        write_for_ever(writer, name);
    }
    wait_until("both write", || {
        let wrote = |name: &str| daemon.client().stat(None, Some(name)).expect("counts").tokens_generated > 0;
        writers.iter().all(|(name, _)| wrote(name))
    });
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

/// Opens a context of so many tokens, or the most, with three pages and some tokens in it.
fn begin(client: &mut Client, model: &str, tokens_max: Option<u32>) -> ContextId {
    let tokens_max = tokens_max.map(Tokens);
    let call = Open { model: Some(model.into()), tokens_max, on_full: OnFull::Stop, prefix: None };
    let Ok(Reply::Opened { context, .. }) = client.call(call) else { panic!("it opens") };
    let prompt = (0..200).map(|n| Token(300 + n * 7 % 500)).collect();
    client.append_tokens(context, prompt).expect("it fits");
    context
}

/// What a context says in two turns, with `between` after the first.
fn two_turns(client: &mut Client, context: ContextId, between: impl FnOnce()) -> [Said; 2] {
    let first = say(client, context, 20);
    between();
    [first, say(client, context, 20)]
}

#[test]
fn context_of_a_model_that_is_evacuated_goes_on_where_it_was() {
    let daemon = Daemon::start_with(&[DEVICE_MEMORY]);
    let mut client = daemon.client();
    client.mount_with(tiny(&daemon, "a"), |_| {}).expect("there is room");
    let context = begin(&mut client, "a", None);
    let alone = two_turns(&mut client, context, || {});
    client.close(context).expect("own context");
    let context = begin(&mut client, "a", None);
    let (mut writer, mut other) = (daemon.client(), daemon.client());
    let said = two_turns(&mut client, context, || {
        writer.mount_with(tiny(&daemon, "b"), |_| {}).expect("there is room for two");
        write_for_ever(&mut writer, "b");
        wait_until("b writes", || {
            daemon.client().stat(None, Some("b")).is_ok_and(|s| s.tokens_generated > 0)
        });
        other.mount_with(tiny(&daemon, "c"), |_| {}).expect("a makes room");
        begin(&mut other, "c", None);
        let states = ["a", "b", "c"].map(|name| state(&daemon, name));
        assert_eq!(states, [ModelState::Unloaded, ModelState::Ready, ModelState::Ready]);
    });
    let states = ["a", "b", "c"].map(|name| state(&daemon, name));
    assert_eq!(states, [ModelState::Ready, ModelState::Ready, ModelState::Unloaded]);
    assert_same_but_for_ties(&alone, &said, ROUNDING_QUANTISED, "the one that came back");
    let stats = daemon.client().stat(None, Some("a")).expect("counts");
    assert!(stats.tokens_recomputed <= 64 && stats.swap_in_bytes > 0, "{stats:?}");
    assert_eq!(stats.worker_restarts, 0, "{stats:?}");
}

/// Mounts a model whose pool has 32 MiB if it can.
fn mount_roomy(daemon: &Daemon) -> ModelInfo {
    let path = daemon.dir().join("roomy.gguf");
    Shape::preset("30m").expect("the preset exists").write(&path).expect("the folder is the test's own");
    let path = path.to_str().expect("UTF-8");
    let mount = Mount { attention: Attention::Plain, threads: Some(1), ..mount(path, "roomy") };
    daemon.client().mount_with(mount, |_| {}).expect("there is room")
}

#[test]
fn context_of_a_model_whose_pool_gets_smaller_goes_on_where_it_was() {
    let daemon = Daemon::start();
    let whole = mount_roomy(&daemon);
    let mut client = daemon.client();
    let context = begin(&mut client, "roomy", Some(600));
    let alone = two_turns(&mut client, context, || {});
    let needs = whole.memory.iter().map(|share| share.weights_bytes + share.pool_bytes + share.compute_bytes);
    let memory = format!("--device-memory={}", needs.sum::<u64>() + (6 << 20));
    let daemon = Daemon::start_with(&[memory.as_str()]);
    assert_eq!(mount_roomy(&daemon).frames_total, whole.frames_total);
    let mut client = daemon.client();
    let context = begin(&mut client, "roomy", Some(600));
    let said = two_turns(&mut client, context, || {
        daemon.client().mount_with(tiny(&daemon, "a"), |_| {}).expect("the other one has less of a pool");
    });
    let models = client.models().expect("lists");
    let roomy = models.iter().find(|m| m.name == "roomy").expect("it is mounted");
    assert!(roomy.state == ModelState::Ready && roomy.frames_total < whole.frames_total, "{roomy:?}");
    assert_same_but_for_ties(&alone, &said, ROUNDING_QUANTISED, "the one whose pool got smaller");
}
