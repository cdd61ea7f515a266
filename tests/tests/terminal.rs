//! Text of models, names of files and sentences of faults do not act on a terminal, and stay as they are in a pipe.
//!
//! The sim driver's tokens are bytes, so each sequence comes in as many pieces as it has bytes.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Stdio;

use harness::terminal::Terminal;
use harness::{Daemon, exit_code};
use serde_json::json;

/// Sets the title, writes the clipboard, asks a question, clears the screen, in the seven-bit and the eight-bit forms.
const HOSTILE: [&str; 8] = [
    "\u{1b}]0;EVIL\u{7}",
    "\u{1b}]52;c;EVIL\u{1b}\\",
    "\u{1b}P+qEVIL\u{1b}\\",
    "\u{1b}[2J\u{1b}[31;1m",
    "\u{9d}0;EVIL\u{9c}",
    "\u{90}EVIL\u{9c}",
    "\u{9b}6n",
    "\u{1b}cx\u{8}\u{202e}",
];

/// What the model says: the beginning, all of the above, the end.
fn answer() -> String {
    format!("BEGIN{}END", HOSTILE.concat())
}

fn instructed() -> Daemon {
    let daemon = Daemon::start();
    let answers = json!([{"match": "", "answer": answer()}]);
    let file = daemon.dir().join("answers.json");
    fs::write(&file, answers.to_string()).unwrap();
    daemon.mount_sim("clever", &format!("template=chatml,answers={}", file.display()));
    daemon
}

/// Checks that nothing on the screen acts, but for what the line editor of a person at the keyboard does itself.
#[track_caller]
fn check_screen(screen: &str, what: &str) {
    assert!(!screen.contains("EVIL"), "{what} lets a string through: {screen:?}");
    check_signs(screen, what);
}

#[track_caller]
fn check_signs(screen: &str, what: &str) {
    for sign in ["\u{1b}]", "\u{1b}P", "\u{1b}c", "\u{1b}[2J", "\u{1b}[31;1m", "\u{8}", "\u{202e}"] {
        assert!(!screen.contains(sign), "{what} lets {sign:?} through: {screen:?}");
    }
    assert!(!screen.contains(|c| ('\u{80}'..='\u{9f}').contains(&c)), "{what}: {screen:?}");
}

/// Runs a program on a terminal until it has said `last`.
fn shown(daemon: &Daemon, program: &str, args: &[&str], last: &str) -> (i32, String) {
    let mut terminal = Terminal::start(daemon, program, args, "> ");
    terminal.expect(last);
    let status = terminal.exit_status();
    (status, terminal.screen())
}

/// What each application says of a model's answer: as a line of its own.
const PROGRAMS: [(&str, &[&str]); 4] = [
    ("llmasos", &["generate", "say it"]),
    ("summariser", &["text"]),
    ("qa", &["--doc", "text", "--", "What do many people visit in summer?"]),
    ("translator", &["--to", "de", "text"]),
];

fn with_text() -> Daemon {
    let daemon = instructed();
    fs::write(daemon.dir().join("text"), "It is an old tower. Many people visit it in summer.\n").unwrap();
    daemon
}

#[test]
fn text_of_a_model_does_not_act_on_a_terminal() {
    let daemon = with_text();
    for (program, args) in PROGRAMS {
        let (status, screen) = shown(&daemon, program, args, "END");
        assert_eq!(status, 0, "{program} {args:?}: {screen}");
        assert!(screen.contains("BEGIN"), "{program} {args:?}: {screen}");
        check_screen(&screen, &format!("{program} {args:?}"));
    }
    // JSON spells out what is ASCII, and the rest is cleaned.
    let (_, screen) = shown(&daemon, "llmasos", &["generate", "--json", "say it"], "END");
    check_signs(&screen, "generate --json");
}

#[test]
fn text_of_a_model_stays_as_it_is_in_a_pipe() {
    let daemon = with_text();
    for (program, args) in PROGRAMS {
        let output = daemon.command(program).args(args).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&answer()), "{program} {args:?}: {text:?}");
    }
}

#[test]
fn text_of_a_model_does_not_act_in_a_chat() {
    let daemon = instructed();
    let mut terminal = Terminal::start(&daemon, "chat", &[], "> ");
    terminal.expect("> ");
    terminal.press("Hello\r");
    terminal.expect("\r\n");
    let answer = terminal.expect("END");
    assert!(answer.contains("BEGIN"), "{answer:?}");
    check_screen(&answer, "chat");
    // Ctrl-D ends a chat that waits for a line; before that the terminal would keep it for whoever reads lines.
    terminal.expect("> ");
    terminal.press("\x04");
    assert_eq!(terminal.exit_status(), 0);
}

#[test]
fn line_of_the_history_does_not_act_on_the_terminal_of_an_editor() {
    let daemon = instructed();
    for (program, history) in [("llmsh", "llmsh_history"), ("chat", "chat_history")] {
        let line = format!("echo {}", answer()).replace('\\', "\\\\");
        fs::write(daemon.data().join(history), format!("#V2\n{line}\n")).unwrap();
        let mut terminal = Terminal::start(&daemon, program, &[], "> ");
        terminal.expect("> ");
        terminal.press("\x1b[A");
        let shown = terminal.expect("END");
        assert!(shown.contains("BEGIN"), "{program}: {shown:?}");
        check_screen(&shown, program);
    }
}

#[test]
fn text_of_a_detached_process_does_not_act_on_the_terminal_of_its_reader() {
    let daemon = instructed();
    let left = daemon.llmasos(["generate", "--detach", "say it"]);
    let pid = String::from_utf8(left.stdout).unwrap();
    let (_, screen) = shown(&daemon, "llmasos", &["attach", pid.trim()], "END");
    assert!(screen.contains("BEGIN"), "{screen:?}");
    check_screen(&screen, "attach");
}

#[test]
fn names_of_files_and_faults_do_not_act_on_a_terminal() {
    let daemon = Daemon::start();
    let name = format!("BEGIN{}.txt", HOSTILE.concat().replace(['/', '\\'], ""));
    let hostile: [(&str, &[&str]); 7] = [
        ("llmasos", &["mount", &name]),
        ("llmasos", &["ps", &name]),
        ("llmasos", &["generate", "--model", &name, "x"]),
        ("llmasos", &["kill", &name]),
        ("qa", &["--doc", &name, "--", "why?"]),
        ("summariser", &[&name]),
        ("summariser", &["--words", &name]),
    ];
    for (program, args) in hostile {
        let (status, screen) = shown(&daemon, program, args, "BEGIN");
        assert_ne!(status, 0, "{program} {args:?}");
        check_screen(&screen, &format!("{program} {args:?}"));
    }
}

#[test]
fn names_of_models_and_segments_and_processes_do_not_act_on_a_terminal() {
    let daemon = Daemon::start();
    daemon.mount_sim("m", "");
    // Control characters are refused in names; what turns the direction of a line is text, and is taken out.
    let refused = daemon.llmasos(["mount", "sim:", "--name", "a\u{1b}]0;EVIL\u{7}"]);
    assert_eq!(exit_code(refused.status), 1);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("control character"), "{refused:?}");
    let mut client = daemon.client();
    client.mount("sim:", "MODEL\u{202e}", |_| {}).unwrap();
    let name = Some("PROCESS\u{202e}".to_owned());
    let hello = syscalls::call::Hello { name, ..syscalls::client::hello("x") };
    let _process = syscalls::client::blocking::Client::connect_with(&daemon.socket(), hello).unwrap();
    for (command, name) in [("models", "MODEL"), ("ps", "PROCESS")] {
        let (_, screen) = shown(&daemon, "llmasos", &[command], name);
        check_screen(&screen, command);
    }
}
