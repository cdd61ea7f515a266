//! Completion: what the word before the cursor can become.
//!
//! It depends on the words before it in the same command: a command's name, an option, a model after
//! `--model`, a process after `kill`, a file elsewhere. What the daemon knows is asked when it is wanted, and not
//! waited for longer than a person at a keyboard would.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};
use syscalls::client::blocking::Client;

use crate::shell::builtin::{ALL, Builtin, help};
use crate::shell::locate;
use crate::terminal::clean::is_clean;

/// How long a person waits for the daemon at a keyboard.
const ANSWER_MAX: Duration = Duration::from_millis(300);

/// Commands whose arguments are models, processes, snapshots or jobs.
const OF_MODELS: &[&str] = &["umount"];
const OF_PROCESSES: &[&str] =
    &["kill", "wait", "nice", "attach", "detach", "inspect", "trace", "snapshot", "output"];
const OF_SNAPSHOTS: &[&str] = &["restore", "discard"];
const OF_JOBS: &[&str] = &["fg", "bg"];

/// Options with a model as value, of builtins and applications alike.
const MODEL_OPTIONS: &[&str] = &["--model", "-m"];

/// Where words come from.
#[derive(Debug)]
pub struct Words {
    socket: PathBuf,
    /// Names of variables.
    pub variables: Vec<String>,
    /// Jobs, as `%1`.
    pub jobs: Vec<String>,
}

/// The word before the cursor and those before it in its command.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    /// Where the word begins.
    start: usize,
    typed: &'a str,
    before: Vec<&'a str>,
}

impl Words {
    /// Words of the daemon that listens on this socket.
    pub fn new(socket: PathBuf) -> Words {
        Words { socket, variables: Vec::new(), jobs: Vec::new() }
    }

    /// Where the word at the end of the text begins, and what it can become; none where it is a file's name.
    pub fn complete(&self, text: &str) -> Option<(usize, Vec<String>)> {
        let place = place(text);
        let candidates = self.candidates(&place)?;
        let typed = place.typed;
        let fitting = candidates.into_iter().filter(|c| c.starts_with(typed) && is_clean(c));
        // The blank after it is for the next word.
        Some((place.start, fitting.map(|c| c + " ").collect()))
    }

    fn candidates(&self, place: &Place) -> Option<Vec<String>> {
        if let Some(prefix) = place.typed.strip_prefix('$') {
            let names = self.variables.iter().filter(|v| v.starts_with(prefix));
            return Some(names.map(|v| format!("${v}")).collect());
        }
        let Some(command) = place.before.first() else {
            return (!place.typed.contains(['/', '~'])).then(|| commands(place.typed));
        };
        let last = place.before.last().copied().unwrap_or_default();
        if MODEL_OPTIONS.contains(&last) || OF_MODELS.contains(command) && !place.typed.starts_with('-') {
            return Some(self.models());
        }
        if let Some(builtin) = Builtin::named(command) {
            if let Some(values) = values_of_option(builtin, last) {
                return Some(values);
            }
            if place.typed.starts_with('-') {
                return Some(options(builtin));
            }
        }
        match *command {
            c if OF_PROCESSES.contains(&c) => Some([self.processes(), self.jobs.clone()].concat()),
            c if OF_SNAPSHOTS.contains(&c) => Some(self.snapshots()),
            c if OF_JOBS.contains(&c) => Some(self.jobs.clone()),
            "help" => Some(ALL.iter().map(|b| b.name.to_owned()).collect()),
            _ => None,
        }
    }

    fn models(&self) -> Vec<String> {
        self.ask(|client| Some(client.models().ok()?.iter().map(|m| escaped(&m.name)).collect()))
    }

    fn processes(&self) -> Vec<String> {
        self.ask(|client| Some(client.ps().ok()?.into_iter().map(|p| p.pid.to_string()).collect()))
    }

    fn snapshots(&self) -> Vec<String> {
        self.ask(|client| Some(client.snapshots().ok()?.iter().map(|s| escaped(&s.name)).collect()))
    }

    /// Asks the daemon from a thread of its own, which is left behind if the answer takes too long.
    fn ask(&self, question: fn(&mut Client) -> Option<Vec<String>>) -> Vec<String> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let socket = self.socket.clone();
        thread::spawn(move || {
            let answer = Client::connect(&socket, "llmsh").ok().and_then(|mut client| question(&mut client));
            // Nobody waits any more, if this fails.
            let _ = sender.send(answer.unwrap_or_default());
        });
        receiver.recv_timeout(ANSWER_MAX).unwrap_or_default()
    }
}

/// Names that can stand where a command begins.
fn commands(typed: &str) -> Vec<String> {
    let mut names: BTreeSet<String> = ALL.iter().map(|b| b.name.to_owned()).collect();
    names.extend(help::APPLICATIONS.iter().map(|(name, _)| (*name).to_owned()));
    // All of PATH at once would hide what belongs to this shell.
    if !typed.is_empty() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        names.extend(locate::folders(&path).iter().flat_map(|folder| executables(folder, typed)));
    }
    names.into_iter().collect()
}

fn executables(folder: &std::path::Path, typed: &str) -> Vec<String> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let fits = |name: &OsStr| name.to_str().is_some_and(|n| n.starts_with(typed));
    entries
        .flatten()
        .filter(|e| {
            fits(&e.file_name()) && e.path().is_file() && access(&e.path(), AccessFlags::X_OK).is_ok()
        })
        .filter_map(|e| Some(escaped(e.file_name().to_str()?)))
        .collect()
}

/// A name as it is typed, so that the shell takes it for one word and for nothing else.
fn escaped(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if " \t\n\"'\\$`;|&<>()*?[#~".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn options(builtin: &Builtin) -> Vec<String> {
    let command = (builtin.command)();
    let long = command.get_arguments().filter_map(|a| a.get_long()).map(|name| format!("--{name}"));
    long.chain(["--help".to_owned()]).collect()
}

/// The values that an option can have, where there are only some.
fn values_of_option(builtin: &Builtin, option: &str) -> Option<Vec<String>> {
    let command = (builtin.command)();
    let argument = command.get_arguments().find(|a| {
        a.get_long().is_some_and(|l| option.strip_prefix("--") == Some(l))
            || a.get_short().is_some_and(|s| option.strip_prefix('-') == Some(s.encode_utf8(&mut [0; 4])))
    })?;
    let values: Vec<String> =
        argument.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
    (!values.is_empty() && argument.get_action().takes_values()).then_some(values)
}

/// Splits the text at the cursor as far as completion needs it: quotes and backslashes hide blanks, operators
/// begin a new command.
fn place(text: &str) -> Place<'_> {
    let mut before = Vec::new();
    let mut start = 0;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '\\') => drop(chars.next()),
            (None, ' ' | '\t' | '\n' | '|' | '&' | ';' | '<' | '>') => {
                before.extend(Some(&text[start..at]).filter(|word| !word.is_empty()));
                if !matches!(c, ' ' | '\t') {
                    before.clear();
                }
                // The word behind `<` or `>` is a file, not a command.
                if matches!(c, '<' | '>') {
                    before.push(">");
                }
                start = at + c.len_utf8();
            }
            (None, _) => {}
        }
    }
    Place { start, typed: &text[start..], before }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Completes without a daemon.
    fn complete(text: &str) -> Option<Vec<String>> {
        let mut words = Words::new(PathBuf::from("/nowhere"));
        words.variables = vec!["HOME".into(), "HOST".into()];
        words.jobs = vec!["%1".into()];
        words.complete(text).map(|(_, candidates)| candidates)
    }

    #[track_caller]
    fn check(text: &str, expect: &[&str]) {
        assert_eq!(
            complete(text).as_deref().map(|c| c.iter().map(String::as_str).collect()),
            Some(expect.to_vec())
        );
    }

    #[test]
    fn place_knows_the_words_of_its_command() {
        let place = place("a b | generate 'x y' --model st");
        assert_eq!(place.before, ["generate", "'x y'", "--model"]);
        assert_eq!((place.start, place.typed), (29, "st"));
    }

    #[test]
    fn commands_complete_at_a_commands_begin() {
        assert!(complete("gen").expect("is a command").contains(&"generate ".into()));
        assert!(complete("ps | summ").expect("is a command").contains(&"summariser ".into()));
        assert!(complete("").expect("is a command").contains(&"mount ".into()));
    }

    #[test]
    fn options_and_their_values_complete() {
        check("generate --ma", &["--max-tokens "]);
        check("generate --class i", &["interactive "]);
        check("mount x --attention p", &["plain "]);
        check("ps --sort ti", &["time "]);
        check("echo $HO", &["$HOME ", "$HOST "]);
        check("fg ", &["%1 "]);
    }

    #[test]
    fn candidate_that_would_act_on_the_terminal_is_not_offered() {
        let mut words = Words::new(PathBuf::from("/nowhere"));
        words.jobs = vec!["%1".into(), "%\u{1b}]0;EVIL\u{7}".into()];
        assert_eq!(words.complete("fg %"), Some((3, vec!["%1 ".to_owned()])));
    }

    #[test]
    fn name_completed_is_one_word() {
        let word = escaped("my model; $(x) 'é'");
        assert_eq!(word, "my\\ model\\;\\ \\$\\(x\\)\\ \\'é\\'");
        assert_eq!(place(&format!("umount {word}")).before, ["umount"]);
        assert_eq!(escaped("qwen2.5-0.5b_q8"), "qwen2.5-0.5b_q8");
    }

    #[test]
    fn files_complete_elsewhere() {
        assert_eq!(complete("mount mod"), None);
        assert_eq!(complete("./x"), None);
        assert_eq!(complete("ps > fi"), None);
    }
}
