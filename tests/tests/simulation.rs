//! The kernel's core in virtual time: all work is done, whatever goes wrong, and the same seed gives the same run.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use apps::timeline::Timeline;
use harness::sim::calibration::Device;
use harness::sim::fault::FaultRates;
use harness::sim::load::synthetic::{self, Kind};
use harness::sim::load::{Act, Load};
use harness::sim::measure::{Report, table};
use harness::sim::policy;
use harness::sim::run::{Setting, run};
use serde_json::Value;

/// A device with memory for a few contexts only, so that they compete for it.
fn setting(policy: &str, models: usize) -> Setting {
    let device = Device { speed: 16.0, pool_tokens: 6144, context_tokens: 6144, ..Device::default() };
    Setting { policy: policy.into(), device, models, ..Setting::default() }
}

fn mixed(seed: u64) -> Load {
    synthetic::make(Kind::Mixed, 48, 8, 48.0, seed).within(6144)
}

fn play(load: &Load, setting: &Setting) -> Report {
    run::<Vec<u8>>(load, setting, None).expect("nothing is lost").0
}

/// Answers that a load asks for, and their tokens.
fn asked(load: &Load) -> (u64, u64) {
    let acts = load.tasks.iter().flat_map(|t| &t.acts);
    acts.fold((0, 0), |(answers, tokens), act| match act {
        Act::Generate(n) => (answers + 1, tokens + u64::from(*n)),
        _ => (answers, tokens),
    })
}

#[test]
fn every_load_under_every_policy_is_answered_in_full() {
    for name in policy::names() {
        for load in [mixed(1), synthetic::make(Kind::Bursts, 48, 4, 64.0, 1)] {
            let report = play(&load, &setting(name, 1));
            let (answers, tokens) = asked(&load);
            assert_eq!((report.answers, report.failed.len()), (answers, 0), "{name}: {:?}", report.failed);
            assert_eq!(report.stats.tokens_generated, tokens, "{name}");
            assert_eq!(report.measure.all.first.len(), answers, "{name}");
            assert_eq!(report.measure.all.between.len(), tokens - answers, "{name}");
        }
    }
}

#[test]
fn several_models_run_beside_each_other() {
    let load = mixed(1);
    let (one, three) = (play(&load, &setting("fair", 1)), play(&load, &setting("fair", 3)));
    assert_eq!(one.texts.len(), three.texts.len());
    assert!(one.texts == three.texts, "equal models say the same");
    assert!(three.measure.seconds() < one.measure.seconds(), "three devices are done earlier than one");
}

#[test]
fn same_seed_gives_the_same_report_and_timeline_to_the_byte() {
    let bytes = |seed: u64| {
        let mut timeline = Timeline::new(Vec::new()).expect("memory can be written");
        let faults = FaultRates { death: 0.02, slow_reader: 0.1, disconnect: 0.05 };
        let setting = Setting { faults, seed, ..setting("fair", 2) };
        let (report, _) = run(&mixed(seed), &setting, Some(&mut timeline)).expect("nothing is lost");
        let (trace, _) = timeline.finish().expect("memory can be written");
        (format!("{}{:?}", table(std::slice::from_ref(&report)), report.texts), trace)
    };
    assert!(bytes(7) == bytes(7), "the same seed gave two runs");
    assert!(bytes(7) != bytes(8), "the seed changes nothing");
}

#[test]
fn workers_that_die_and_clients_that_do_not_read_change_no_text() {
    let load = mixed(3);
    let calm = play(&load, &setting("fair", 1));
    for seed in 1..6 {
        let faults = FaultRates { death: 0.05, slow_reader: 0.2, disconnect: 0.0 };
        let stormy = play(&load, &Setting { faults, seed, ..setting("fair", 1) });
        assert!(stormy.deaths > 3, "seed {seed}: only {} workers died", stormy.deaths);
        assert!(stormy.failed.is_empty(), "seed {seed}: {:?}", stormy.failed);
        assert!(stormy.texts == calm.texts, "seed {seed}: a fault changed a text");
    }
}

#[test]
fn client_that_goes_away_loses_its_own_answers_alone() {
    let load = mixed(3);
    let calm = play(&load, &setting("fair", 1));
    let faults = FaultRates { death: 0.02, slow_reader: 0.0, disconnect: 0.1 };
    let stormy = play(&load, &Setting { faults, ..setting("fair", 1) });
    assert!(stormy.abandoned > 0, "nobody went away");
    assert!(stormy.failed.is_empty(), "{:?}", stormy.failed);
    assert!(stormy.texts.iter().all(|(key, text)| calm.texts.get(key) == Some(text)), "a text changed");
    let tasks = |report: &Report| report.texts.keys().map(|(task, ..)| *task).collect::<BTreeSet<u32>>();
    let hurt = tasks(&calm).difference(&tasks(&stormy)).count() as u64;
    assert!(hurt <= stormy.abandoned, "{hurt} tasks have no answer and {} were abandoned", stormy.abandoned);
}

/// Faults of a normal run, over as many loads as it takes; `LLMASOS_TEST_FAULTS` asks for more.
const FAULTS: u64 = 500;

#[test]
fn faults_over_many_seeds_lose_nothing_and_change_no_text() {
    let wanted = std::env::var("LLMASOS_TEST_FAULTS").ok().and_then(|n| n.parse().ok()).unwrap_or(FAULTS);
    let (mut loads, mut faults, mut deaths, mut texts) = (0, 0, 0, 0);
    while faults < wanted {
        loads += 1;
        let seed = loads;
        let load = mixed(seed);
        let calm = play(&load, &setting("fair", 1));
        let rates = FaultRates { death: 0.05, slow_reader: 0.3, disconnect: 0.1 };
        // Nothing lost is what `run` checks at its end: all work is done, and every frame is free.
        let stormy = play(&load, &Setting { faults: rates, seed, ..setting("fair", 1) });
        assert!(stormy.failed.is_empty(), "seed {seed}: {:?}", stormy.failed);
        let same = stormy.texts.iter().all(|(key, text)| calm.texts.get(key) == Some(text));
        assert!(same, "seed {seed}: a fault changed a text");
        assert!(stormy.faults > 0, "seed {seed}: nothing went wrong");
        (faults, deaths) = (faults + stormy.faults, deaths + stormy.deaths);
        texts += stormy.texts.len() as u64;
    }
    let value =
        format!("{faults} over the seeds 1 to {loads}, {deaths} of them deaths; {texts} texts, all equal");
    harness::figure("simulated faults", &value);
    let enough = faults > 10 * loads && deaths > loads && texts > 10 * loads;
    assert!(enough, "{faults} faults, {deaths} deaths, {texts} texts");
}

#[test]
fn clients_who_want_more_than_there_is_get_the_same() {
    let load = synthetic::make(Kind::Greedy, 600, 2, 16.0, 1);
    let report = play(&load, &setting("fair", 1));
    assert!(report.fairness >= 0.98, "Jain's index is {}", report.fairness);
}

#[test]
fn timeline_has_complete_slices_on_named_lines() {
    let mut timeline = Timeline::new(Vec::new()).expect("memory can be written");
    let (report, _) = run(&mixed(1), &setting("fair", 2), Some(&mut timeline)).expect("nothing is lost");
    let (bytes, entries) = timeline.finish().expect("memory can be written");
    let trace: Value = serde_json::from_slice(&bytes).expect("it is JSON");
    let events = trace.as_array().expect("it has events");
    assert_eq!(events.len() as u64, entries);
    let line = |e: &Value| (e["pid"].as_u64(), e["tid"].as_u64());
    let names: BTreeMap<_, _> = events
        .iter()
        .filter(|e| e["name"] == "thread_name")
        .map(|e| (line(e), e["args"]["name"].clone()))
        .collect();
    let (mut steps, mut ends) = (0, BTreeMap::new());
    for event in events.iter().filter(|e| e["ph"] == "X") {
        let name = names.get(&line(event)).and_then(Value::as_str);
        let name = name.unwrap_or_else(|| panic!("{event} is on a line without a name"));
        let (ts, dur) = (event["ts"].as_u64().expect("a time"), event["dur"].as_u64().expect("a duration"));
        steps += u64::from(name.ends_with(": steps"));
        let end = ends.insert(line(event), ts + dur).unwrap_or_default();
        assert!(end <= ts, "{event} begins before the one before it ends, at {end}");
    }
    assert_eq!(steps, report.stats.steps, "every step is in the timeline");
    let spans = |ph: &str| events.iter().filter(|e| e["ph"] == ph).count();
    assert!(spans("b") > 0 && spans("b") == spans("e"), "waits are not shown");
}

/// Runs `simulate`, and gives its standard output.
fn simulate(args: &[&str]) -> String {
    let output =
        Command::new(harness::binary("simulate")).args(args).output().expect("simulate can be started");
    harness::stdout(output)
}

#[test]
fn idle_processes_are_small_and_do_not_grow_with_their_number() {
    let table =
        simulate(&["idle", "--processes", "100,2000", "--contexts", "2", "--runnable", "4", "--tokens", "8"]);
    let bytes: Vec<f64> = (table.lines())
        .filter_map(|l| l.trim_matches(['|', ' ']).split('|').nth(3)?.trim().parse().ok())
        .collect();
    assert!(bytes.len() == 2 && bytes.iter().all(|b| (100.0..4096.0).contains(b)), "{table}");
    assert!(bytes[1] < bytes[0] * 1.25, "a process among many takes more:\n{table}");
}

/// The cells of a report's row, as they should be.
fn row_of(report: &Report) -> Vec<String> {
    let (s, all) = (&report.stats, &report.measure.all);
    let times = |of: &hdrhistogram::Histogram<u64>, unit: f64, digits: usize| {
        let at = |q| format!("{:.digits$}", of.value_at_quantile(q) as f64 / unit);
        format!("{} · {} · {}", at(0.5), at(0.95), at(0.99))
    };
    let cells = [
        report.policy.clone(),
        report.answers.to_string(),
        format!("{:.1}", s.tokens_generated as f64 / report.measure.seconds()),
        times(&all.first, 1e6, 2),
        times(&all.between, 1e3, 1),
        format!("{:.3}", report.fairness),
        format!("{} · {}", s.prompt_tokens_evaluated, s.prompt_tokens_shared),
        s.tokens_recomputed.to_string(),
        format!("{} · {}", s.swap_out_bytes >> 20, s.swap_in_bytes >> 20),
        report.failed.values().sum::<u64>().to_string(),
    ];
    let edge = || std::iter::once(String::new());
    edge().chain(cells).chain(edge()).collect()
}

#[test]
fn many_processes_with_contexts_over_hours_all_have_their_answers() {
    let output = Command::new(harness::binary("simulate"))
        .args(["scale", "--processes", "50", "--contexts", "10", "--models", "2", "--hours", "0.5"])
        .output()
        .expect("simulate can be started");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("500 answers, 0 failed"), "{told}");
    let table = harness::stdout(output);
    let row = table.lines().last().expect("it has a row");
    let cells: Vec<&str> = row.trim_matches(['|', ' ']).split('|').map(str::trim).collect();
    assert_eq!(cells[..2], ["50", "500"], "{table}");
    let number = |at: usize| cells[at].parse::<f64>().expect("a number");
    assert!((0.3..2.0).contains(&number(2)), "half an hour and what chance adds: {table}");
    assert!(number(6) >= 500.0, "each answer takes steps: {table}");
}

#[test]
fn comparison_without_traces_runs_a_synthetic_load_and_writes_plots() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let out = dir.path().join("out").to_string_lossy().into_owned();
    let output = Command::new(harness::binary("simulate"))
        .env("LLMASOS_SHARED", dir.path())
        .args(["compare", "-n", "24", "--clients", "4", "--out", &out])
        .output()
        .expect("simulate can be started");
    assert!(String::from_utf8_lossy(&output.stderr).contains("so the load is synthetic: mixed"));
    let shown = harness::stdout(output);
    assert!(policy::names().all(|name| shown.contains(&format!("| {name} |"))), "{shown}");
    let device = Device { speed: 32.0, pool_tokens: 32_768, context_tokens: 8192, ..Device::default() };
    let load = synthetic::make(Kind::Mixed, 24, 4, 32.0, 1).within(8192);
    let report = play(&load, &Setting { policy: "fair".into(), device, ..Setting::default() });
    let row = shown.lines().find(|line| line.starts_with("| fair |")).expect("fair has a row");
    assert_eq!(row.split('|').map(str::trim).collect::<Vec<_>>(), row_of(&report), "{shown}");
    for name in ["first-token.svg", "between-tokens.svg", "throughput.svg", "report.md"] {
        let text = std::fs::read_to_string(dir.path().join("out").join(name)).expect("it was written");
        assert!(text.contains("fair"), "{name}");
    }
}

#[test]
fn policy_unknown_is_refused_with_those_that_there_are() {
    let output = Command::new(harness::binary("simulate"))
        .args(["compare", "--load", "long", "--policy", "lottery"])
        .output()
        .expect("simulate can be started");
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("no policy `lottery`") && told.contains("fair"), "{told}");
}
