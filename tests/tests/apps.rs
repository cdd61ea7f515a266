//! The applications, as a user starts them: on a model that follows instructions, on one that does not, and on
//! none; in pipes, interrupted, and on bad input. The models are scripted ones of the sim driver.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::thread;

use harness::terminal::Terminal;
use harness::{Daemon, exit_code, shared_data, wait_until};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid as OsPid;
use serde_json::json;

/// Never ends by itself, and slowly enough to be caught in the act.
const ENDLESS: &str = "template=chatml,token_us=20000";

const ARTICLE: &str = "The old tower of Brill was built in 1900 by Anna Weber. It is 30 metres high. \
    Birds like the trees around it.\n\nIn 1950 the tower was painted green. Many people visit the tower in summer.\n";

/// A daemon with a model that follows instructions and answers as it is told.
fn instructed(answers: &[(&str, &str)], settings: &str) -> Daemon {
    let daemon = Daemon::start();
    let answers: Vec<_> = answers.iter().map(|(m, a)| json!({"match": m, "answer": a})).collect();
    let file = daemon.dir().join("answers.json");
    fs::write(&file, json!(answers).to_string()).unwrap();
    daemon.mount_sim("clever", &format!("template=chatml,answers={}{settings}", file.display()));
    daemon
}

/// A daemon with a model that only continues text.
fn base(settings: &str) -> Daemon {
    let daemon = Daemon::start();
    daemon.mount_sim("story", settings);
    daemon
}

fn file(daemon: &Daemon, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = daemon.dir().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Runs a program to its end with a text on standard input.
fn run(daemon: &Daemon, program: &str, args: &[&str], input: &str) -> Output {
    let mut child = start(daemon, program, args);
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A program that fails early reads nothing, which is its right.
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    output
}

fn start(daemon: &Daemon, program: &str, args: &[&str]) -> Child {
    let mut command = daemon.command(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[track_caller]
fn check(output: &Output, status: i32, stdout: &str, stderr_has: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(exit_code(output.status), status, "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout, "{stderr}");
    for part in stderr_has {
        assert!(stderr.contains(part), "`{part}` is not in: {stderr}");
    }
    assert!(!stderr_has.is_empty() || stderr.is_empty(), "{stderr}");
}

#[test]
fn translator_keeps_the_layout_of_the_text() {
    let answers =
        [("Good morning", "Guten Morgen. Wie geht es?\n"), ("bread", " - Brot"), ("Thank", "Danke.")];
    let daemon = instructed(&answers, "");
    let text = "Good morning. How are you?\n\n\n  - bread\n\n* * *\n\nThank you.\n";
    let output = run(&daemon, "translator", &["--to", "de"], text);
    check(&output, 0, "Guten Morgen. Wie geht es?\n\n\n  - Brot\n\n* * *\n\nDanke.\n", &[]);
}

#[test]
fn translator_on_a_text_longer_than_the_context_loses_no_sentence() {
    let daemon = Daemon::start();
    daemon.mount_sim("parrot", "template=chatml,text=echo,context=1024");
    let sentences: Vec<String> =
        (0..150).map(|n| format!("Sentence number {n} of the text is here.")).collect();
    let output = run(&daemon, "translator", &["--from", "en", "--to", "fr"], &sentences.join(" "));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(exit_code(output.status), 0, "{}", String::from_utf8_lossy(&output.stderr));
    let mut from = 0;
    for sentence in &sentences {
        let at =
            shown[from..].find(sentence).unwrap_or_else(|| panic!("`{sentence}` is missing or misplaced"));
        from += at + sentence.len();
    }
}

#[test]
fn translator_without_a_fitting_model_says_which_it_needs() {
    let daemon = Daemon::start();
    let output = run(&daemon, "translator", &["--to", "de"], "Hello.");
    check(
        &output,
        1,
        "",
        &["no model is mounted", "Qwen2.5-Instruct", "llmasos mount FILE.gguf --name NAME"],
    );
    daemon.mount_sim("story", "");
    let output = run(&daemon, "translator", &["--to", "de"], "Hello.");
    check(&output, 1, "", &["model `story` follows no instructions", "Qwen2.5-Instruct"]);
    let output = run(&daemon, "translator", &["--to", "de", "--model", "storry"], "Hello.");
    check(&output, 1, "", &["no model `storry` is mounted; did you mean `story`?"]);
}

#[test]
fn translator_with_a_context_too_small_names_it() {
    let daemon = instructed(&[], ",context=200");
    let output = run(&daemon, "translator", &["--to", "de"], "Hello.");
    check(&output, 1, "", &["context of model `clever` is 200 tokens", "--context"]);
}

#[test]
fn translation_that_never_ends_is_a_failure() {
    let daemon = Daemon::start();
    daemon.mount_sim("endless", "template=chatml,context=1024");
    let output = run(&daemon, "translator", &["--to", "de"], "Hello.");
    assert_eq!(exit_code(output.status), 1);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("the answer was cut: the context of model `endless` is full"), "{stderr}");
    let output = run(&daemon, "translator", &["--to", "de", "--max-tokens", "5"], "Hello.");
    assert_eq!(exit_code(output.status), 0);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("cut after 5 tokens, as --max-tokens says"), "{stderr}");
}

#[test]
fn usage_that_is_wrong_exits_with_2() {
    let daemon = Daemon::start();
    check(&run(&daemon, "translator", &[], ""), 2, "", &["--to"]);
    check(&run(&daemon, "translator", &["--to", "Germn"], ""), 2, "", &["did you mean `German`?"]);
    check(&run(&daemon, "summariser", &["--words", "0"], ""), 2, "", &["--words"]);
    check(&run(&daemon, "qa", &["Who?"], ""), 2, "", &["--doc"]);
    check(&run(&daemon, "chat", &["--sytem", "x"], ""), 2, "", &["--system"]);
    for program in ["translator", "summariser", "qa", "chat"] {
        let output = run(&daemon, program, &["--help"], "");
        assert_eq!(exit_code(output.status), 0);
        assert!(String::from_utf8_lossy(&output.stdout).contains("Examples:"), "{program}");
    }
}

#[test]
fn input_that_is_no_text_is_refused_with_its_name() {
    let daemon = Daemon::start();
    let latin = file(&daemon, "latin.txt", b"Gr\xfc\xdfe");
    let binary = file(&daemon, "model.gguf", b"GGUF\x03\0\0\0");
    file(&daemon, "empty.txt", "");
    for (name, why) in [
        (latin.to_str().unwrap(), "latin.txt is not UTF-8 from byte 2 on (line 1)"),
        (binary.to_str().unwrap(), "model.gguf is no text: byte 5 is zero"),
        ("empty.txt", "empty.txt is empty"),
        ("none.txt", "none.txt: there is no such file"),
        (".", ". is a folder"),
    ] {
        check(&run(&daemon, "summariser", &[name], ""), 1, "", &["summariser: ", why]);
        check(&run(&daemon, "qa", &["--doc", name, "--", "Who?"], ""), 1, "", &["qa: ", why]);
    }
    check(&run(&daemon, "summariser", &[], " \n"), 1, "", &["standard input is empty"]);
}

#[test]
fn summariser_and_qa_extract_where_no_model_writes() {
    let summary = "The old tower of Brill was built in 1900 by Anna Weber.\n";
    let check_both = |daemon: &Daemon, why: &str| {
        let output = run(daemon, "summariser", &["--words", "12"], ARTICLE);
        check(&output, 0, summary, &["summariser: ", why, "; extracting sentences instead"]);
        let output =
            run(daemon, "qa", &["--doc", "-", "--", "When", "was", "the", "tower", "painted?"], ARTICLE);
        let answer = "In 1950 the tower was painted green.\n";
        check(&output, 0, answer, &["qa: ", why, "; extracting sentences instead", "qa: standard input:3"]);
    };
    let mut daemon = Daemon::start();
    check_both(&daemon, "no model is mounted");
    daemon.mount_sim("story", "");
    check_both(&daemon, "model `story` follows no instructions");
    daemon.terminate();
    check_both(&daemon, "no daemon listens on");
    check(&run(&daemon, "summariser", &["--words", "12", "--extract"], ARTICLE), 0, summary, &[]);
    let output = run(&daemon, "translator", &["--to", "de"], ARTICLE);
    check(&output, 1, "", &["no daemon listens on", "llmasos daemon"]);
}

#[test]
fn qa_that_finds_nothing_exits_with_1() {
    let daemon = Daemon::start();
    let output =
        run(&daemon, "qa", &["--doc", "-", "--extract", "Who invented quantum chromodynamics?"], ARTICLE);
    check(&output, 1, "", &["the documents do not seem to answer"]);
    let output = run(&daemon, "qa", &["--doc", "-", "--extract", "--cite", "Who built it?"], ARTICLE);
    let answer = "The old tower of Brill was built in 1900 by Anna Weber. [standard input:1]\n";
    check(&output, 0, answer, &[]);
    let output = run(
        &daemon,
        "qa",
        &["--doc", "-", "--extract", "塔是什么颜色"],
        "塔在山上。塔的颜色是绿色。人很多。",
    );
    check(&output, 0, "塔的颜色是绿色。\n", &["standard input:1"]);
}

#[test]
fn encoder_that_is_mounted_ranks_sentences() {
    let daemon = Daemon::start();
    daemon.mount_sim("encoder", "generates=false,embedding=64");
    let output = run(&daemon, "summariser", &["--words", "20", "--extract"], ARTICLE);
    assert_eq!(exit_code(output.status), 0);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.lines().all(|line| ARTICLE.contains(line)) && !shown.is_empty(), "{shown}");
    let output = run(&daemon, "qa", &["--doc", "-", "When was the tower painted?"], ARTICLE);
    assert_eq!(exit_code(output.status), 0);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("model `encoder` embeds text and generates none; extracting"), "{stderr}");
}

#[test]
fn encoder_finds_an_answer_in_other_words() {
    let Some(shared) = shared_data() else { return };
    let daemon = Daemon::start();
    let gguf = daemon.dir().join("minilm.gguf");
    let mut convert = daemon.command("llmasos-driver");
    let converted =
        convert.arg("convert").arg(shared.join("models/all-MiniLM-L6-v2")).arg(&gguf).output().unwrap();
    assert!(converted.status.success(), "{}", String::from_utf8_lossy(&converted.stderr));
    let text = "The soup was cold. The doctor is female. A tower stands on a hill.";
    let ask = || run(&daemon, "qa", &["--doc", "-", "--extract", "Is the physician a woman?"], text);
    assert_eq!(exit_code(ask().status), 1, "no term of the question is in the text");
    daemon.mount(&gguf, "minilm");
    assert_eq!(String::from_utf8_lossy(&ask().stdout), "The doctor is female.\n");
}

#[test]
fn encoder_that_fails_is_done_without() {
    let daemon = Daemon::start();
    daemon.mount_sim("encoder", "generates=false,die_on_text=tower");
    let output = run(&daemon, "qa", &["--doc", "-", "--extract", "When was the tower painted?"], ARTICLE);
    let answer = "In 1950 the tower was painted green.\n";
    check(&output, 0, answer, &["the encoder `encoder` failed: ", "going on without it"]);
}

#[test]
fn qa_on_a_model_cites_its_sources() {
    let answers = [("Question: When", "In 1950 [1]."), ("Question: Who", "NOT FOUND.")];
    let daemon = instructed(&answers, "");
    file(&daemon, "tower.txt", ARTICLE);
    let output = run(&daemon, "qa", &["--doc", "tower.txt", "--", "When was the tower painted?"], "");
    check(&output, 0, "In 1950 [1].\n", &["qa: [1] tower.txt:1"]);
    let output =
        run(&daemon, "qa", &["--doc", "tower.txt", "--cite", "--", "When was the tower painted?"], "");
    check(&output, 0, "In 1950 [1].\n[1] tower.txt:1\n", &[]);
    let output = run(&daemon, "qa", &["--doc", "tower.txt", "--", "Who painted the tower?"], "");
    check(&output, 1, "", &["the documents do not seem to answer"]);
    let output =
        run(&daemon, "qa", &["--doc", "tower.txt", "--extract", "--", "When was the tower painted?"], "");
    check(&output, 0, "In 1950 the tower was painted green.\n", &["qa: tower.txt:3"]);
}

#[test]
fn summariser_on_a_long_text_summarises_its_parts_first() {
    let answers = [("part of a longer text", "A part."), ("A part.", "All of it."), ("Summarise", "Wrong.")];
    let daemon = instructed(&answers, ",context=1024");
    let output = run(&daemon, "summariser", &["--words", "9"], &ARTICLE.repeat(12));
    check(&output, 0, "All of it.\n", &[]);
}

#[test]
fn summariser_whose_model_writes_nothing_of_a_part_makes_nothing_up() {
    let daemon = instructed(&[("part of a longer text", ""), ("Summarise", "Wrong.")], ",context=1024");
    let output = run(&daemon, "summariser", &["--words", "9"], &ARTICLE.repeat(12));
    check(&output, 1, "", &["model `clever` wrote nothing"]);
}

#[test]
fn summary_with_more_words_than_asked_for_is_told() {
    let daemon = instructed(&[("Summarise", "<think>\nHm.\n</think>\n\nOne two three.")], "");
    let output = run(&daemon, "summariser", &["--words", "2"], ARTICLE);
    check(&output, 0, "One two three.\n", &["the model wrote 3 words, more than --words 2"]);
}

#[test]
fn pipe_in_the_shell_summarises_and_translates() {
    let daemon = instructed(&[("Translate", "Ein Turm."), ("Summarise", "A tower.")], "");
    file(&daemon, "article.txt", ARTICLE);
    let output = run(&daemon, "llmsh", &["-c", "summariser article.txt | translator --to de"], "");
    check(&output, 0, "Ein Turm.\n", &[]);
}

#[test]
fn several_applications_at_once_get_their_own_answers() {
    let answers =
        [("Translate", "Ein Turm."), ("Summarise", "A tower."), ("Question:", "Green [1]."), ("Hi", "Ho")];
    let daemon = instructed(&answers, ",token_us=500");
    let jobs: [(&str, &[&str], &str, &str); 4] = [
        ("translator", &["--to", "de"], "A tower.\n", "Ein Turm.\n"),
        ("summariser", &[], ARTICLE, "A tower.\n"),
        ("qa", &["--doc", "-", "Which tower is it?"], ARTICLE, "Green [1].\n"),
        ("chat", &[], "Hi\n", "Ho\n"),
    ];
    thread::scope(|scope| {
        for (program, args, input, expect) in jobs.iter().cycle().take(12) {
            let daemon = &daemon;
            scope.spawn(move || {
                let output = run(daemon, program, args, input);
                assert_eq!(exit_code(output.status), 0, "{}", String::from_utf8_lossy(&output.stderr));
                assert_eq!(String::from_utf8_lossy(&output.stdout), *expect, "{program}");
            });
        }
    });
}

/// Reads until something has come, so that the program is in the middle of its answer.
fn wait_for_text(child: &mut Child) {
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).expect("an answer begins");
}

fn wait_until_idle(daemon: &Daemon) {
    let mut client = daemon.client();
    wait_until("the end of the application's process", || {
        client.ps().unwrap().iter().all(|p| p.contexts == 0)
    });
}

#[test]
fn sigint_ends_an_application_with_130() {
    let daemon = base(ENDLESS);
    for (program, args) in [("translator", &["--to", "de"][..]), ("summariser", &[]), ("chat", &[])] {
        let mut child = start(&daemon, program, args);
        child.stdin.take().unwrap().write_all(ARTICLE.as_bytes()).unwrap();
        wait_for_text(&mut child);
        signal::kill(OsPid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(exit_code(output.status), 130, "{program}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{program}");
        wait_until_idle(&daemon);
    }
}

#[test]
fn reader_that_leaves_ends_an_application_quietly() {
    let daemon = base(ENDLESS);
    let mut child = start(&daemon, "translator", &["--to", "de"]);
    child.stdin.take().unwrap().write_all(b"Hello.").unwrap();
    wait_for_text(&mut child);
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(exit_code(output.status), 141);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    wait_until_idle(&daemon);
}

#[test]
fn chat_keeps_one_context_over_its_turns() {
    let daemon = instructed(&[("first", "One."), ("second", "Two.")], "");
    let output = run(&daemon, "chat", &["--system", "Be brief."], "the first\n\nthe second\n");
    check(&output, 0, "One.\nTwo.\n", &[]);
    let stats = daemon.client().stat(None, None).unwrap();
    let said = "Be brief.the firstOne.the secondTwo.".len() as u64;
    // What was said, with the marks of the template, and nothing of it twice.
    assert!(stats.prompt_tokens_evaluated < said + 120, "{stats:?}");
}

#[test]
fn chat_longer_than_the_context_forgets_its_oldest_turns_and_says_so() {
    let daemon = instructed(&[("turn", "Yes, this is an answer of some length.")], ",context=400");
    let input: String = (0..12).map(|n| format!("This is turn number {n} of the chat.\n")).collect();
    let output = run(&daemon, "chat", &[], &input);
    let shown = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(exit_code(output.status), 0, "{stderr}");
    assert_eq!(shown, "Yes, this is an answer of some length.\n".repeat(12));
    assert!(stderr.contains("longer than the model's 400 tokens; it has forgotten the oldest"), "{stderr}");
    let output = run(&daemon, "chat", &[], &"word ".repeat(200));
    assert_eq!(exit_code(output.status), 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("400"), "{output:?}");
}

#[test]
fn chat_on_a_model_that_continues_text_is_a_dialogue() {
    let daemon = Daemon::start();
    let answers = json!([
        {"match": "second\nAssistant:", "answer": " Two.\nUser: and"},
        {"match": "first\nAssistant:", "answer": " One.\nUser: and"},
    ]);
    let path = file(&daemon, "answers.json", answers.to_string());
    daemon.mount_sim("story", &format!("answers={}", path.display()));
    let output = run(&daemon, "chat", &[], "the first\nthe second\n");
    check(&output, 0, "One.\nTwo.\n", &["model `story` continues text and follows no instructions"]);
}

#[test]
fn chat_in_characters_that_the_model_lacks_is_refused() {
    let daemon = base("template=chatml,ascii=true");
    let output = run(&daemon, "chat", &["--max-tokens", "4"], "你好\n");
    check(&output, 1, "", &["model `story` knows only some characters", "chat: ", "`你`"]);
}

#[test]
fn chat_on_a_terminal_obeys_commands_and_survives_ctrl_c() {
    let daemon = instructed(&[("Hello", "Hi there.")], ",token_us=20000");
    let mut terminal = Terminal::start(&daemon, "chat", &[], "> ");
    terminal.expect("talking with `clever`, which remembers 4096 tokens; /help lists the commands");
    terminal.expect("> ");
    assert!(terminal.line("Hello").contains("Hi there."));
    assert!(terminal.line("/halp").contains("did you mean /help?"));
    assert!(!terminal.line("/save said.txt").contains("chat:"));
    let said = fs::read_to_string(daemon.dir().join("said.txt")).unwrap();
    assert_eq!(said, "user: Hello\n\nassistant: Hi there.\n");
    // An answer without end.
    terminal.press("Tell me more\r");
    terminal.expect("\r\n");
    wait_until("the answer's beginning", || daemon.client().stat(None, None).unwrap().tokens_generated > 20);
    terminal.press("\x03");
    terminal.expect("> ");
    assert!(terminal.line("Hello").contains("Hi there."));
    terminal.press("\x04");
    assert_eq!(terminal.exit_status(), 0);
    let history = fs::read_to_string(daemon.data().join("chat_history")).unwrap();
    assert!(history.contains("Tell me more"), "{history}");
}
