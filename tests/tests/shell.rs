//! The shell: scripts with their expected output beside them, and a person at a terminal.
//!
//! Each script `tests/shell/NAME.llmsh` runs against a daemon of its own, in an empty folder, and what it prints
//! is compared with `NAME.out`. `UPDATE_EXPECT=1` writes the output instead. The terminal is a real one: a pty,
//! with `llmsh` as the leader of its session.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use harness::terminal::Terminal;
use harness::{Daemon, binary, exit_code, stdout, wait_for, wait_until, workspace};

const PROMPT: &str = "llmsh> ";

/// Never ends by itself, and slowly enough to be caught in the act.
const ENDLESS: &str = "token_us=20000";

fn run_script(name: &str) {
    let folder = workspace().join("tests/shell");
    let daemon = Daemon::start();
    let script = folder.join(format!("{name}.llmsh"));
    let output = daemon.command("llmsh").arg(&script).arg("one").arg("two words").output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let expected = folder.join(format!("{name}.out"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&expected, &shown).unwrap();
    }
    let wanted = fs::read_to_string(&expected).unwrap();
    assert_eq!(shown, wanted, "standard error was:\n{stderr}");
    assert_eq!(exit_code(output.status), 0, "standard error was:\n{stderr}");
}

/// One test for each script, so that a script without a test is seen: [`every_script_has_a_test`].
macro_rules! scripts {
    ($($name:ident),+ $(,)?) => {
        $(#[test] fn $name() { run_script(stringify!($name)) })+

        #[test]
        fn every_script_has_a_test() {
            let listed = [$(stringify!($name)),+];
            for entry in fs::read_dir(workspace().join("tests/shell")).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                assert!(listed.contains(&name.as_str()), "{} is not run", path.display());
            }
        }
    };
}

scripts!(words, pipes, statuses, variables, background, builtins, processes, errors, programs);

/// Opens the shell on a terminal and waits for its first prompt.
fn open(daemon: &Daemon) -> Terminal {
    let mut terminal = start(daemon, &[]);
    terminal.expect(PROMPT);
    terminal
}

fn start(daemon: &Daemon, args: &[&str]) -> Terminal {
    Terminal::start(daemon, "llmsh", args, PROMPT)
}

#[test]
fn terminal_shows_banner_and_runs_lines() {
    let daemon = Daemon::start();
    daemon.mount_sim("tiny", "");
    let mut terminal = start(&daemon, &[]);
    let banner = terminal.expect("llmsh> ");
    assert!(banner.contains("tiny: "), "{banner}");
    assert!(banner.contains("Type help"), "{banner}");
    assert!(terminal.line("echo a 'b  c'").contains("a b  c"));
    terminal.press("exit 7\r");
    assert_eq!(terminal.exit_status(), 7);
}

#[test]
fn terminal_without_a_daemon_says_how_to_start_one() {
    let mut daemon = Daemon::start();
    daemon.terminate();
    let mut terminal = start(&daemon, &[]);
    let banner = terminal.expect("llmsh> ");
    assert!(banner.contains("no daemon listens") && banner.contains("llmsh --start"), "{banner}");
    assert!(terminal.line("ps").contains("ps: no daemon listens"));
    terminal.press("\x04");
    assert_eq!(terminal.exit_status(), 1, "the status of the last command");
}

#[test]
fn tab_completes_commands_options_and_models() {
    let daemon = Daemon::start();
    daemon.mount_sim("quicksilver", "");
    let mut terminal = open(&daemon);
    for (typed, shown) in [("toke\t", "tokenize "), ("--mod\t", "--model ")] {
        terminal.press(typed);
        terminal.expect(shown);
    }
    // The shell waits no longer for the daemon than a person at a keyboard would, who hears a bell and tries again.
    terminal.press("quick");
    let before = terminal.screen().len();
    let completed = |terminal: &mut Terminal, bells: usize| {
        terminal.press("\t");
        wait_for("the model's name, or a bell", || {
            let screen = terminal.screen()[before..].to_owned();
            let completed = screen.contains("quicksilver ");
            (completed || screen.matches('\x07').count() > bells).then_some(completed)
        })
    };
    assert!((0..100).any(|bells| completed(&mut terminal, bells)), "{}", terminal.screen());
    terminal.press("--count abc\r");
    terminal.expect("\r\n");
    assert!(terminal.expect("llmsh> ").contains('3'), "the line that was completed runs");
}

#[test]
fn arrow_up_brings_the_line_before_back_even_in_the_next_shell() {
    let daemon = Daemon::start();
    let mut terminal = open(&daemon);
    terminal.line("echo first-line");
    terminal.press("\x1b[A");
    terminal.expect("echo first-line");
    terminal.press("\r");
    terminal.expect("llmsh> ");
    terminal.press("\x04");
    assert_eq!(terminal.exit_status(), 0);
    let mut next = open(&daemon);
    next.press("\x1b[A");
    next.expect("echo first-line");
}

#[test]
fn ctrl_c_ends_the_generation_and_not_the_shell() {
    let daemon = Daemon::start();
    daemon.mount_sim("endless", ENDLESS);
    let mut terminal = open(&daemon);
    terminal.press("generate --raw --model endless x\r");
    wait_for("tokens", || daemon.client().stat(None, None).ok().filter(|s| s.tokens_generated > 3));
    terminal.wait_for_job();
    terminal.press("\x03");
    terminal.expect("llmsh> ");
    assert!(terminal.line("echo status=$?").contains("status=130"));
    wait_for("the end of the process", || {
        let processes = daemon.client().ps().unwrap();
        (!processes.iter().any(|p| p.name == "generate")).then_some(())
    });
}

#[test]
fn ctrl_c_at_the_prompt_drops_the_line() {
    let daemon = Daemon::start();
    let mut terminal = open(&daemon);
    terminal.press("echo 'never closed\x03");
    terminal.expect("llmsh> ");
    assert!(terminal.line("echo alive").contains("alive"));
}

#[test]
fn quote_left_open_goes_on_on_the_next_line() {
    let daemon = Daemon::start();
    let mut terminal = open(&daemon);
    terminal.press("echo 'one\rtwo'\r");
    terminal.expect("one\r\ntwo\r\n");
}

#[test]
fn top_ends_at_a_key_or_ctrl_c_and_leaves_the_terminal_as_it_was() {
    let daemon = Daemon::start();
    let mut terminal = open(&daemon);
    for key in ["q", "\x03"] {
        terminal.press("top --every 3600\r");
        terminal.expect("SHARE");
        terminal.wait_for_job();
        // Other keys do nothing.
        terminal.press(&format!("x{key}"));
        terminal.expect("llmsh> ");
        let modes = terminal.line("/bin/stty -a");
        assert!(modes.contains(" icanon") && modes.contains(" echo "), "{modes}");
    }
}

#[test]
fn top_that_was_begun_in_the_background_obeys_keys_in_the_foreground() {
    let daemon = Daemon::start();
    let mut terminal = open(&daemon);
    terminal.line("top --every 3600 &");
    wait_until("it has looked", || terminal.screen().contains("SHARE"));
    terminal.press("fg\r");
    terminal.wait_for_job();
    terminal.press("q");
    terminal.expect(PROMPT);
    let modes = terminal.line("/bin/stty -a");
    assert!(modes.contains(" icanon") && modes.contains(" echo "), "{modes}");
}

#[test]
fn job_stopped_by_ctrl_z_goes_on_in_the_foreground() {
    let daemon = Daemon::start();
    daemon.mount_sim("endless", ENDLESS);
    let mut terminal = open(&daemon);
    terminal.press("generate --raw --model endless x\r");
    wait_for("tokens", || daemon.client().stat(None, None).ok().filter(|s| s.tokens_generated > 3));
    terminal.wait_for_job();
    terminal.press("\x1a");
    terminal.expect("stopped");
    terminal.expect("llmsh> ");
    assert!(terminal.line("jobs").contains("[1]  stopped   generate --raw"));
    assert!(terminal.line("exit").contains("stopped jobs"));
    terminal.press("fg\r");
    terminal.expect("generate --raw --model endless x\r\n");
    let now = daemon.client().stat(None, None).unwrap().tokens_generated;
    wait_for("more tokens", || {
        daemon.client().stat(None, None).ok().filter(|s| s.tokens_generated > now + 3)
    });
    terminal.press("\x03");
    terminal.expect("llmsh> ");
    terminal.press("\x04");
    terminal.exit_status();
}

#[test]
fn job_in_the_background_is_told_when_it_ends() {
    let daemon = Daemon::start();
    let mut terminal = open(&daemon);
    let mut told = terminal.line("sh -c 'exit 3' &");
    assert!(told.contains("[1] "), "{told}");
    wait_until("its end is told before a prompt", || {
        let ended = told.contains("[1]  exit 3");
        if !ended {
            told.push_str(&terminal.line(""));
        }
        ended
    });
    assert!(!terminal.line("jobs").contains("[1]"), "it is told once");
}

#[test]
fn ctrl_c_ends_a_wait_for_a_job() {
    let daemon = Daemon::start();
    let mut terminal = open(&daemon);
    terminal.line("sleep 1000 &");
    terminal.press("wait\r");
    terminal.expect("\r\n");
    terminal.wait_until_signals();
    terminal.press("\x03");
    terminal.expect("llmsh> ");
    assert!(terminal.line("kill -KILL %1; wait %1; echo status=$?").contains("status=137"));
}

#[test]
fn text_of_a_model_does_not_act_on_the_terminal() {
    let daemon = Daemon::start();
    let answers = daemon.dir().join("answers.json");
    fs::write(&answers, r#"[{"match": "title", "answer": "a\u001b]0;owned\u0007b\u001b[2Jc"}]"#).unwrap();
    daemon.mount_sim("rogue", &format!("answers={}", answers.display()));
    let mut terminal = open(&daemon);
    let shown = terminal.line("generate --raw --model rogue title");
    assert!(shown.contains("abc"), "{shown:?}");
    assert!(!shown.contains("owned"), "{shown:?}");
    let output = daemon.llmasos(["generate", "--raw", "--model", "rogue", "title"]);
    assert!(stdout(output).contains("\u{1b}]0;owned"), "a pipe gets the text as it is");
}

#[test]
fn script_ends_as_interrupted_after_ctrl_c() {
    let daemon = Daemon::start();
    daemon.mount_sim("endless", ENDLESS);
    let mut terminal = start(&daemon, &["-c", "generate --raw --model endless x; echo not reached"]);
    wait_for("tokens", || daemon.client().stat(None, None).ok().filter(|s| s.tokens_generated > 3));
    terminal.press("\x03");
    assert_eq!(terminal.exit_status(), 130);
    assert!(!terminal.screen().contains("not reached"));
}

#[test]
fn standard_input_is_read_no_further_than_the_line() {
    let daemon = Daemon::start();
    let mut shell = daemon.command("llmsh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    shell
        .stdin
        .take()
        .unwrap()
        .write_all(b"echo one\nsh -c 'read line; echo $line'\nfor read\nexit 3\n")
        .unwrap();
    let output = shell.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "one\nfor read\n");
    assert_eq!(exit_code(output.status), 3);
}

#[test]
fn option_misspelt_is_no_script_and_no_program() {
    let daemon = Daemon::start();
    let shell = |args: &[&str]| daemon.command("llmsh").args(args).stdin(Stdio::null()).output().unwrap();
    let misspelt = [shell(&["--strat"]), daemon.llmasos(["spawn", "--detahc", "--", "/bin/true"])];
    for (output, meant) in misspelt.into_iter().zip(["'--start'", "'--detach'"]) {
        assert!(String::from_utf8_lossy(&output.stderr).contains(meant), "{output:?}");
        assert_eq!(exit_code(output.status), 2);
    }
    let output = shell(&["-c", "echo \"$@\"", "name", "--start", "--", "-x"]);
    assert_eq!(stdout(output), "--start -- -x\n", "what stands behind the name is the script's");
    assert_eq!(stdout(daemon.llmasos(["spawn", "/bin/echo", "--detach"])), "--detach\n");
}

#[test]
fn shell_started_without_a_daemon_starts_one_and_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let llmsh = |args: &[&str]| {
        let mut command = Command::new(binary("llmsh"));
        command.args(args).current_dir(dir.path()).stdin(Stdio::null());
        command.env("LLMASOS_SOCKET", &socket).env("LLMASOS_DATA", dir.path().join("data"));
        command.env("XDG_CONFIG_HOME", dir.path()).env_remove("LLMASOS_CONFIG").output().unwrap()
    };
    let started = llmsh(&["--start", "--mount", "sim:=tiny", "-c", "models | cut -d ' ' -f 1"]);
    assert_eq!(stdout(started), "NAME\ntiny\n");
    let found = llmsh(&["--start", "--mount", "sim:=tiny", "-c", "models --json | wc -l"]);
    assert_eq!(stdout(found).trim(), "1");
    assert_eq!(stdout(llmsh(&["-c", "shutdown; ps || echo gone"])), "gone\n");
    let stopping = llmsh(&["--start", "--stop-on-exit", "-c", "ps > /dev/null && echo here"]);
    assert_eq!(stdout(stopping), "here\n");
    wait_for("the daemon's end", || (!socket.exists()).then_some(()));
}

#[test]
fn reader_that_leaves_ends_the_generation_quietly() {
    let daemon = Daemon::start();
    daemon.mount_sim("endless", "token_us=1000");
    let output =
        daemon.command("llmsh").args(["-c", "generate --raw -m endless x | head -c 5"]).output().unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len()), (5, 0), "{output:?}");
    wait_for("the end of the process", || {
        let processes = daemon.client().ps().unwrap();
        (!processes.iter().any(|p| p.name == "generate")).then_some(())
    });
}

#[test]
fn reader_that_leaves_ends_the_program_that_was_spawned() {
    let daemon = Daemon::start();
    let line = "spawn -- /bin/sh -c 'while true; do echo x; sleep 0.05; done' | head -n 1";
    let mut shell = daemon.command("llmsh").args(["-c", line]).stdout(Stdio::piped()).spawn().unwrap();
    wait_for("the end of the line", || shell.try_wait().unwrap());
    assert_eq!(stdout(shell.wait_with_output().unwrap()), "x\n");
    assert!(!daemon.client().ps().unwrap().iter().any(|p| p.name == "sh"), "nothing is left of it");
}

#[test]
fn process_found_by_ps_is_signalled_and_waited_for() {
    let daemon = Daemon::start();
    daemon.mount_sim("endless", ENDLESS);
    let mut generate = daemon.command("llmasos");
    generate.args(["generate", "--raw", "--class", "batch", "-m", "endless", "x"]).stdout(Stdio::null());
    let mut generate = generate.spawn().unwrap();
    let pid = wait_for("the process", || {
        let processes = daemon.client().ps().unwrap();
        processes.iter().find(|p| p.name == "generate" && p.tokens_generated > 3).map(|p| p.pid.to_string())
    });
    let table = stdout(daemon.llmasos(["ps", "--tree"]));
    assert!(table.lines().any(|l| l.contains("batch") && l.ends_with("  generate")), "{table}");
    stdout(daemon.llmasos(["nice", "-n", "5", "--class", "normal", &pid]));
    let early = daemon.llmasos(["wait", "--timeout", "0.05", &pid]);
    assert_eq!(exit_code(early.status), 1, "it runs for ever");
    stdout(daemon.llmasos(["kill", "-INT", &pid]));
    assert_eq!(exit_code(generate.wait().unwrap()), 130);
    let waited = daemon.llmasos(["wait", &pid]);
    // It may be gone before `wait` has looked for the first time.
    let gone = String::from_utf8_lossy(&waited.stderr).contains("there is no process");
    assert!(waited.status.success() || gone, "{waited:?}");
}
