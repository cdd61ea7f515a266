//! What is done with a trained model: questions by lines, and specifications for others.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Place;

fn trainer(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llmasos-trainer"));
    command
        .args(arguments)
        .env("LLMASOS_SOCKET", place.path("socket"))
        .env("XDG_CACHE_HOME", place.path("cache"));
    command.env_remove("LLMASOS_DATASETS").env("LLMASOS_MIRROR", "http://127.0.0.1:9");
    command
}

/// Asks a model line by line.
fn ask(place: &Place, folder: &str, questions: &[Value]) -> Vec<Value> {
    let mut command = trainer(place, &["predict"]);
    command.arg(place.path(folder)).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    questions.iter().for_each(|question| writeln!(input, "{question}").unwrap());
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn run_and_its_export_answer_alike_and_a_wrong_question_is_answered_too() {
    let place = Place::default();
    place.succeed(&["--set", "optimiser.lr=0.01"]);
    let folder = place.path("model").display().to_string();
    let run = place.path("run").display().to_string();
    let exported = trainer(&place, &["export", &run, "--out", &folder]).status().unwrap();
    assert!(exported.success());
    let drawn =
        json!({"task": "generate", "text": "line 3 ", "max_tokens": 8, "temperature": 1.0, "seed": 3});
    let questions = [
        json!({"id": 1, "task": "generate", "text": "line 3 ", "max_tokens": 8}),
        drawn.clone(),
        drawn,
        json!({"id": "x", "task": "genrate"}),
        json!({"task": "generate", "text": ["line 3 ", "a text that says what", "l"], "max_tokens": 8}),
        json!({"task": "generate", "text": "a text that says what", "max_tokens": 8}),
        json!({"task": "generate", "text": "l", "max_tokens": 8}),
    ];
    let answers = ask(&place, "run", &questions);
    assert_eq!((&answers[0]["id"], &answers[0]["finish"]), (&json!(1), &json!("length")), "{answers:?}");
    assert_eq!(answers[0]["tokens"], 8);
    assert_eq!(answers[1], answers[2], "the seed decides");
    let error = answers[3]["error"].as_str().unwrap();
    assert!(error.contains("genrate") && answers[3]["id"] == "x", "{error}");
    for (many, one) in [(0, 0), (1, 5), (2, 6)] {
        let mut alone = answers[one].clone();
        alone.as_object_mut().unwrap().remove("id");
        assert_eq!(answers[4]["texts"][many], alone, "texts of several are those of each alone");
    }
    assert_eq!(ask(&place, "model", &questions), answers);
    let pt = place.path("again.pt").display().to_string();
    assert!(
        trainer(&place, &["export", &folder, "--format", "pt", "--out", &pt]).status().unwrap().success()
    );
}

#[test]
fn resolved_specification_says_the_same_from_anywhere() {
    let place = Place::default();
    let (spec, cache) =
        (place.path("spec.ron").display().to_string(), place.path("cache").display().to_string());
    let output = trainer(&place, &["resolve", &spec, "--set", "steps=7", "--set", "out=run"])
        .current_dir(place.path(""))
        .output()
        .unwrap();
    let resolved: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&resolved["steps"], &resolved["out"]), (&json!(7), &json!(place.path("run"))));
    let text = resolved.to_string();
    let run = ["run", "--json", &text, "--alone", "--quiet", "--cache", &cache];
    assert!(trainer(&place, &run).current_dir("/").status().unwrap().success());
    assert_eq!(place.log().last().unwrap()["step"], 7);
    let wrong =
        trainer(&place, &["run", "--json", &text.replace("\"steps\"", "\"stepss\"")]).output().unwrap();
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(said.contains("did you mean `steps`"), "{said}");
}

#[test]
fn data_set_is_found_by_name() {
    let place = Place::default();
    let folder = place.path("sets/mine");
    std::fs::create_dir_all(&folder).unwrap();
    let mut find = trainer(&place, &["find", "mine"]);
    let found = find.env("LLMASOS_DATASETS", place.path("sets")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout).trim(), folder.display().to_string());
    let nowhere = trainer(&place, &["find", "wikitext-2"]).output().unwrap();
    let said = String::from_utf8_lossy(&nowhere.stderr);
    assert!(
        !nowhere.status.success() && said.contains("LLMASOS_DATASETS") && said.contains("127.0.0.1:9"),
        "{said}"
    );
}
