//! Words to arguments: variables, the home folder, and file names that fit a pattern.
//!
//! As in sh, what an unquoted variable holds is split at blanks (space, tab and newline), and an unquoted `*`, `?` or
//! `[…]` makes the argument a pattern. A pattern that no file fits stays as it is. Files whose names begin with a dot are only
//! found by patterns that begin with one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::{Part, Word};

/// What divides the value of a variable into arguments. Blanks of other scripts are characters of a name like any other.
const BLANKS: [char; 3] = [' ', '\t', '\n'];

/// Where variables come from.
pub trait Scope {
    /// The value of a variable, if it has one.
    fn value(&self, name: &str) -> Option<String>;
    /// The arguments of the script, which `$@` and `$*` stand for.
    fn arguments(&self) -> &[String];
}

/// A piece of an argument.
struct Piece {
    text: String,
    quoted: bool,
}

/// The arguments that a word stands for: usually one, but a variable can hold none or several, and a pattern can
/// fit many files.
pub fn expand(word: &Word, scope: &dyn Scope) -> Vec<OsString> {
    fields(word, scope).into_iter().flat_map(|field| files(&field)).collect()
}

/// The text that a word stands for where exactly one is wanted, as in an assignment: no splitting, no patterns.
pub fn expand_one(word: &Word, scope: &dyn Scope) -> String {
    let mut text = String::new();
    for part in &word.0 {
        match part {
            Part::Text { text: t, .. } => text.push_str(t),
            Part::Variable { name, .. } if name == "@" || name == "*" => {
                text.push_str(&scope.arguments().join(" "))
            }
            Part::Variable { name, .. } => text.push_str(&scope.value(name).unwrap_or_default()),
            Part::Home => text.push_str(&home(scope)),
        }
    }
    text
}

fn home(scope: &dyn Scope) -> String {
    scope.value("HOME").unwrap_or_else(|| "~".into())
}

/// Whether a word is `"$@"` and nothing else. Its quotes make no argument where the script has none.
fn is_arguments_alone(word: &Word) -> bool {
    let is_arguments = |part: &Part| matches!(part, Part::Variable { name, quoted: true } if name == "@");
    let is_empty = |part: &Part| matches!(part, Part::Text { text, quoted: true } if text.is_empty());
    word.0.iter().any(is_arguments) && word.0.iter().all(|part| is_arguments(part) || is_empty(part))
}

/// A word's fields, each of pieces.
fn fields(word: &Word, scope: &dyn Scope) -> Vec<Vec<Piece>> {
    if scope.arguments().is_empty() && is_arguments_alone(word) {
        return Vec::new();
    }
    let mut fields = Fields { done: Vec::new(), open: None };
    for part in &word.0 {
        match part {
            Part::Text { text, quoted } => fields.push(text.clone(), *quoted),
            Part::Home => fields.push(home(scope), true),
            Part::Variable { name, quoted: true } if name == "*" => {
                fields.push(scope.arguments().join(" "), true);
            }
            Part::Variable { name, quoted } if name == "@" || name == "*" => {
                for (i, argument) in scope.arguments().iter().enumerate() {
                    if i > 0 {
                        fields.close();
                    }
                    if *quoted {
                        fields.push(argument.clone(), true);
                    } else {
                        fields.split(argument);
                    }
                }
            }
            Part::Variable { name, quoted: true } => fields.push(scope.value(name).unwrap_or_default(), true),
            Part::Variable { name, quoted: false } => fields.split(&scope.value(name).unwrap_or_default()),
        }
    }
    fields.close();
    fields.done
}

struct Fields {
    done: Vec<Vec<Piece>>,
    open: Option<Vec<Piece>>,
}

impl Fields {
    fn push(&mut self, text: String, quoted: bool) {
        if quoted || !text.is_empty() {
            self.open.get_or_insert_default().push(Piece { text, quoted });
        }
    }

    fn close(&mut self) {
        self.done.extend(self.open.take());
    }

    /// A value outside quotes: its blanks divide arguments.
    fn split(&mut self, value: &str) {
        if value.starts_with(BLANKS) {
            self.close();
        }
        for (i, text) in value.split(BLANKS).filter(|text| !text.is_empty()).enumerate() {
            if i > 0 {
                self.close();
            }
            self.push(text.to_owned(), false);
        }
        if value.ends_with(BLANKS) {
            self.close();
        }
    }
}

/// The files that fit a field, or the field itself.
fn files(field: &[Piece]) -> Vec<OsString> {
    let plain: String = field.iter().map(|p| p.text.as_str()).collect();
    if !field.iter().any(|p| !p.quoted && p.text.contains(['*', '?', '['])) {
        return vec![plain.into()];
    }
    let pattern: String =
        field.iter().map(|p| if p.quoted { Pattern::escape(&p.text) } else { p.text.clone() }).collect();
    let options = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    // What cannot be read does not fit, as in sh.
    let found: Vec<PathBuf> = match glob::glob_with(&pattern, options) {
        Ok(paths) => paths.filter_map(Result::ok).collect(),
        Err(_) => Vec::new(),
    };
    if found.is_empty() {
        return vec![plain.into()];
    }
    // It is left out of what is found, and stands there so that no file is taken for an option or a command on PATH.
    let here = if pattern.starts_with("./") { "./" } else { "" };
    found.into_iter().map(|file| Path::new(here).join(file).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::syntax::parse;

    struct Fixed(Vec<String>);

    impl Scope for Fixed {
        fn value(&self, name: &str) -> Option<String> {
            match name {
                "one" => Some("1".into()),
                "two" => Some(" a  b ".into()),
                "wide" => Some("a\u{a0}b\u{3000}c\td".into()),
                "star" => Some("*.nothing".into()),
                "HOME" => Some("/home/x y".into()),
                _ => None,
            }
        }

        fn arguments(&self) -> &[String] {
            &self.0
        }
    }

    #[track_caller]
    fn check(line: &str, expect: &[&str]) {
        let list = parse(line).expect("the line is sound");
        let scope = Fixed(vec!["x".into(), "y z".into()]);
        let words = &list.items[0].chain.first.commands[0].words;
        let words: Vec<OsString> = words.iter().flat_map(|w| expand(w, &scope)).collect();
        assert_eq!(words, expect, "{line}");
    }

    #[test]
    fn variable_unquoted_is_split_and_quoted_is_not() {
        check("c $two", &["c", "a", "b"]);
        check("c \"$two\"", &["c", " a  b "]);
        check("c x$two'y'", &["c", "x", "a", "b", "y"]);
        check("c x${one}y", &["c", "x1y"]);
        check("c $wide", &["c", "a\u{a0}b\u{3000}c", "d"]);
    }

    #[test]
    fn variable_unset_makes_no_argument_unless_quoted() {
        check("c $none", &["c"]);
        check("c \"$none\" ''", &["c", "", ""]);
        check("c a$none", &["c", "a"]);
    }

    #[test]
    fn arguments_of_the_script_stay_apart_in_quotes() {
        check("c \"$@\"", &["c", "x", "y z"]);
        check("c pre\"$@\"", &["c", "prex", "y z"]);
        check("c \"$*\" \"<$*>\"", &["c", "x y z", "<x y z>"]);
        check("c $@ $*", &["c", "x", "y", "z", "x", "y", "z"]);
    }

    #[test]
    fn arguments_of_a_script_without_any_are_none() {
        let list = parse("\"$@\" \"$@\"\"$@\" \"a$@\" \"$*\" ''").expect("the line is sound");
        let words = &list.items[0].chain.first.commands[0].words;
        let words: Vec<OsString> = words.iter().flat_map(|w| expand(w, &Fixed(Vec::new()))).collect();
        assert_eq!(words, ["a", "", ""]);
    }

    #[test]
    fn pattern_in_this_folder_stays_in_this_folder() {
        // Tests run in the folder of their crate.
        check("c ./Cargo.tom?", &["c", "./Cargo.toml"]);
        check("c Cargo.tom?", &["c", "Cargo.toml"]);
    }

    #[test]
    fn home_is_one_argument() {
        check("c ~/a ~ x~ '~'", &["c", "/home/x y/a", "/home/x y", "x~", "~"]);
        check("c ~x ~:a --file=~/a 1=~", &["c", "~x", "~:a", "--file=~/a", "1=~"]);
    }

    #[test]
    fn home_stands_where_a_value_begins() {
        check("export a=~/b", &["export", "a=/home/x y/b"]);
        check("export a=~:~/b:c~:~x:'~'=~ b=a=~", &["export", "a=/home/x y:/home/x y/b:c~:~x:~=~", "b=a=~"]);
        let list = parse("a=~/b:$one:~").expect("the line is sound");
        let (name, value) = &list.items[0].chain.first.commands[0].assignments[0];
        let value = expand_one(value, &Fixed(vec![]));
        assert_eq!((name.as_str(), value.as_str()), ("a", "/home/x y/b:1:/home/x y"));
    }

    #[test]
    fn pattern_without_files_stays() {
        check("c $star *.none '*'", &["c", "*.nothing", "*.none", "*"]);
    }

    #[test]
    fn pattern_finds_files_but_hidden_ones() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        for name in ["b.txt", "a.txt", ".c.txt", "d.rs", "[x].txt"] {
            std::fs::write(dir.path().join(name), "").expect("a file can be made");
        }
        let path = dir.path().display();
        let full = |name: &str| format!("{path}/{name}");
        check(&format!("c {path}/*.txt"), &["c", &full("[x].txt"), &full("a.txt"), &full("b.txt")]);
        check(&format!("c '{path}'/[ab].txt"), &["c", &full("a.txt"), &full("b.txt")]);
        check(&format!("c {path}/'[x]'*"), &["c", &full("[x].txt")]);
    }
}
