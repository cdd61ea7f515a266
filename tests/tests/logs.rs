//! What programs say to models, and what models say, is in no log, however much is logged and whatever goes wrong.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use drivers::gguf::random::Shape;
use harness::said::greedy;
use harness::{Daemon, starter, wait_until};
use serde_json::json;
use syscalls::call::*;
use syscalls::client::blocking::Client;
use syscalls::client::hello;
use syscalls::{Call, ContextId, Tokens};

/// A word that nothing but prompts and answers has.
const CANARY: &str = "Zwiebelkuchen7531";

/// Calls the way programs do, right and wrong; what is answered is not what this is about.
fn call(client: &mut Client, call: impl Into<Call>) {
    let _ = client.call(call);
}

fn message(role: &str) -> Message {
    Message { role: role.into(), content: format!("say {CANARY}") }
}

fn append(context: ContextId, text: String, special: bool) -> Append {
    Append { context, text: Some(text), tokens: None, messages: None, special }
}

/// Everything that takes text, on one model.
fn talk(client: &mut Client, model: &str) {
    let Ok(opened) = client.open(Some(model)) else { return };
    let context = opened.context;
    for text in
        [CANARY.to_owned(), format!("<|im_start|>{CANARY}"), format!("{CANARY}\u{0}ü"), CANARY.repeat(2000)]
    {
        call(client, append(context, text.clone(), false));
        call(client, append(context, text.clone(), true));
        call(client, Tokenize { model: Some(model.into()), text, special: true, bos: false });
    }
    for role in ["system", "user", CANARY] {
        let messages = Some(vec![message(role), message("assistant")]);
        call(client, Append { context, text: None, tokens: None, messages, special: false });
    }
    let generate = || greedy(context, 24);
    call(client, generate());
    call(client, Generate { stop: vec![CANARY.into(), format!("{CANARY}…")], ..generate() });
    for constraint in [
        Sampling { grammar: Some(format!("root ::= \"{CANARY}\"")), ..Sampling::default() },
        Sampling { grammar: Some(format!("root ::= {CANARY} {{{{")), ..Sampling::default() },
        Sampling { json_schema: Some(json!({ "const": CANARY })), ..Sampling::default() },
        Sampling { json_schema: Some(json!({ "type": CANARY })), ..Sampling::default() },
    ] {
        call(client, Generate { sampling: constraint, ..generate() });
    }
    call(client, Embed { model: Some(model.into()), texts: vec![CANARY.into(), CANARY.repeat(5000)] });
    call(client, Share { context, name: format!("segment-{model}"), length: None, mode: 0o644 });
    call(client, Snapshot { context, name: format!("snapshot-{model}") });
    call(client, Fork { context, copies: 2, length: Some(Tokens(3)) });
    let _ = client.open_with(Open {
        model: None,
        tokens_max: None,
        on_full: OnFull::Compact,
        prefix: Some(format!("segment-{model}")),
    });
}

/// Lines that are no requests, or ask for nonsense.
fn speak_nonsense(daemon: &Daemon) {
    let mut socket = UnixStream::connect(daemon.socket()).expect("connects");
    let mut answers = BufReader::new(socket.try_clone().expect("clones"));
    let long = "x".repeat(9 << 20);
    let lines = [
        r#"{"id":1,"call":"hello","args":{"version":1}}"#.to_owned(),
        CANARY.to_owned(),
        format!(r#"{{"id":2,"call":"{CANARY}"}}"#),
        format!(r#"{{"id":3,"call":"append","args":{{"context":"{CANARY}"}}}}"#),
        format!(r#"{{"id":4,"call":"append","args":{{"{CANARY}":1}}}}"#),
        format!(r#"{{"id":5,"call":"generate","args":{{"context":1,"stop":"{CANARY}"}}}}"#),
        format!(r#"{{"id":6,"call":"append","args":{{"context":9,"text":"{CANARY}"}}}}"#),
        format!(r#"{{"id":7,"call":"append","args":{{"context":9,"text":"{CANARY}{long}"}}}}"#),
        format!(r#"{{"id":8,"call":"ps","args":{{}}}} {CANARY}"#),
    ];
    for line in lines {
        writeln!(socket, "{line}").expect("the daemon reads");
        answers.read_line(&mut String::new()).expect("it answers");
    }
}

fn models(daemon: &Daemon) -> Vec<&'static str> {
    let answers = daemon.dir().join("answers.json");
    let list = json!([{ "match": "Zwiebel", "answer": format!("{CANARY} for all") }]);
    std::fs::write(&answers, list.to_string()).expect("writes");
    daemon.mount_sim("echo", "text=echo,template=chatml,context=1024,embeds=true");
    daemon.mount_sim("answers", &format!("template=chatml,answers={}", answers.display()));
    daemon.mount_sim("ascii", "ascii=true,context=256,eos=20");
    let random: PathBuf = daemon.dir().join("random.gguf");
    Shape::preset("tiny").expect("the preset exists").write(&random).expect("writes");
    daemon.mount(&random, "random");
    daemon.mount(&starter(), "starter");
    vec!["echo", "answers", "ascii", "random", "starter"]
}

#[test]
fn prompts_and_answers_are_in_no_log() {
    let mut daemon = Daemon::start_with(&["--log", "trace"]);
    let models = models(&daemon);
    let mut client = daemon.client();
    for model in &models {
        talk(&mut client, model);
    }
    let pid = client.pid();
    call(&mut client, Send { pid, data: json!({ "text": CANARY }) });
    let put = StorePut { store: "notes".into(), key: "a".into(), value: json!(CANARY) };
    call(&mut client, put);
    call(&mut client, StoreSearch { store: "notes".into(), text: CANARY.into(), count: 3 });
    speak_nonsense(&daemon);
    // A worker that dies of what it reads, until its process is found guilty.
    daemon.mount_sim("mortal", "die_on_text=thunder");
    let context = client.open(Some("mortal")).expect("opens").context;
    call(&mut client, append(context, format!("{CANARY} and thunder"), false));
    call(&mut client, greedy(context, 4));
    // A process that outlives the daemon, which is killed in the midst of it.
    let lasting = Hello { lifetime: Lifetime::Persistent, ..hello("lasting") };
    let mut lasting = Client::connect_with(&daemon.socket(), lasting).expect("connects");
    let context = lasting.open(Some("echo")).expect("opens").context;
    lasting.append_text(context, CANARY).expect("appends");
    lasting.start(greedy(context, 500)).expect("begins");
    daemon.kill9();
    daemon.restart();
    wait_until("the models are loaded again", || daemon.client().open(Some("random")).is_ok());
    assert!(daemon.terminate().success());
    let log = daemon.log();
    for said in ["DEBUG", "llmasos", "the worker of model mortal died"] {
        assert!(log.contains(said), "{said:?} is not in the log, so it says little:\n{log}");
    }
    let line = log.lines().find(|line| line.contains("Zwiebel") || line.contains("kuchen7531"));
    assert_eq!(line, None, "a prompt is in the log");
}
