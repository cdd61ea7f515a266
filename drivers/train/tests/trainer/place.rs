//! Where and when the program computes, and how much memory it takes.

use std::fs;

use serde_json::Value;

use super::Place;

/// `SCHED_IDLE`, as the system numbers its policies.
const IDLE: &str = "5";

#[test]
fn idle_program_has_no_thread_that_keeps_others_waiting() {
    let place = Place::default();
    let mut started = place.start(&["--idle", "--set", "threads=2", "--set", "steps=100000"]);
    started.wait_for(|event| event["event"] == "step").expect("it begins");
    let tasks = fs::read_dir(format!("/proc/{}/task", started.child.id())).unwrap();
    let policy = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        // Behind the name, which may hold spaces, the policy is the 39th field.
        Some(stat.rsplit_once(") ")?.1.split(' ').nth(38)?.to_owned())
    };
    let policies: Vec<String> = tasks.filter_map(|task| policy(task.ok()?)).collect();
    assert!(policies.len() >= 4, "main, loader and two that compute: {policies:?}");
    assert!(policies.iter().all(|policy| policy == IDLE), "{policies:?}");
}

/// The sum that is said before a run, and the peak of a run that has done some steps, in MiB.
fn expected_and_taken(settings: &[&str]) -> [f64; 2] {
    let place = Place::default();
    let said = place.succeed(&[settings, &["--dry-run"]].concat());
    let sum = said.lines().find_map(|line| line.strip_prefix("memory ")).expect("it says the memory");
    let sum = sum.trim().split(' ').next().unwrap().parse().unwrap();
    let mut started = place.start(&[settings, &["--quiet", "--set", "steps=1000"]].concat());
    let done = |event: &Value| event["event"] == "step" && event["step"].as_u64() >= Some(3);
    started.wait_for(done).expect("it does steps");
    let status = fs::read_to_string(format!("/proc/{}/status", started.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the system says the peak");
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    [sum, kib / 1024.0]
}

/// MiB of the program itself, which ranks that are threads have once.
const PROGRAM_MIB: f64 = 8.0;

#[test]
fn memory_that_is_expected_of_a_rank_is_what_it_takes_in_every_layout() {
    let model = "model={\"Gpt\":{\"layers\":4,\"heads\":4,\"width\":256,\"context\":128}}";
    let common =
        ["--set", model, "--set", "batch=12", "--set", "accumulate=1", "--set", "threads=2", "--ranks", "2"];
    // What is said is for the first stage of a pipeline, which keeps more microbatches than the last.
    for (layout, most) in
        [("ranks.data=2", 1.2), ("ranks.zero=true", 1.2), ("ranks.tensor=2", 1.2), ("ranks.pipeline=2", 1.4)]
    {
        let [of_one, taken] = expected_and_taken(&[&common[..], &["--set", layout]].concat());
        let expected = 2.0 * (of_one - PROGRAM_MIB) + PROGRAM_MIB;
        println!("{layout}: {of_one} MiB expected of a rank, {expected:.1} of both, {taken:.1} taken");
        let near = (1.0 / 1.2..most).contains(&(expected / taken));
        assert!(near, "{layout}: {expected:.1} MiB expected of two ranks, {taken:.1} taken");
    }
}

#[test]
fn memory_that_is_expected_of_a_model_that_is_tuned_in_part_is_what_it_takes() {
    let model = |kind: &str| {
        format!("model={{\"{kind}\":{{\"layers\":4,\"heads\":4,\"width\":384,\"context\":64}}}}")
    };
    let common = ["--set", "batch=4", "--set", "accumulate=1", "--set"];
    let runs = [
        ("Gpt", r#"tune={"Lora":{"rank":8}}"#),
        ("Llama", r#"tune={"Lora":{"rank":16,"layers":["q_proj","v_proj"]}}"#),
        ("Bert", r#"tune={"Frozen":["embeddings","layer.0.","layer.1.","layer.2."]}"#),
        ("T5", r#"tune={"Frozen":["encoder.","shared"]}"#),
    ];
    let found = runs.map(|(kind, tune)| {
        let [expected, taken] = expected_and_taken(&[&common[..], &[&model(kind), "--set", tune]].concat());
        println!("{kind}, {tune}: {expected} MiB expected, {taken:.1} taken");
        (kind, tune, expected, taken)
    });
    for (kind, tune, expected, taken) in found {
        let near = (1.0 / 1.2..1.2).contains(&(expected / taken));
        assert!(near, "{kind}, {tune}: {expected} MiB expected, {taken:.1} taken");
    }
}

#[test]
fn memory_that_is_expected_is_what_a_run_takes() {
    let model = |kind: &str| {
        format!("model={{\"{kind}\":{{\"layers\":4,\"heads\":4,\"width\":128,\"context\":128}}}}")
    };
    let common = ["--set", "batch=12", "--set", "accumulate=1", "--set"];
    let runs = [
        ("Gpt", "precision=F32"),
        ("Gpt", "precision=Bf16"),
        ("Gpt", "recompute=true"),
        ("Llama", "precision=F32"),
        ("Bert", "precision=F32"),
        ("Transformer", "precision=F32"),
        ("T5", "precision=F32"),
    ];
    let found = runs.map(|(kind, more)| {
        let [expected, taken] = expected_and_taken(&[&common[..], &[&model(kind), "--set", more]].concat());
        println!("{kind}, {more}: {expected} MiB expected, {taken:.1} taken");
        (kind, more, expected, taken)
    });
    for (kind, more, expected, taken) in found {
        let near = (1.0 / 1.2..1.2).contains(&(expected / taken));
        assert!(near, "{kind}, {more}: {expected} MiB expected, {taken:.1} taken");
    }
}
