use std::fmt::Write;

use expect_test::{Expect, expect};

use super::super::expand::{Scope, expand_one};
use super::*;

/// Shows variables by their names.
struct Names;

impl Scope for Names {
    fn value(&self, name: &str) -> Option<String> {
        Some(format!("${name}"))
    }

    fn arguments(&self) -> &[String] {
        &[]
    }
}

fn show_word(word: &Word) -> String {
    format!("[{}]", expand_one(word, &Names))
}

fn show_command(command: &Command) -> String {
    let mut text = String::new();
    for (name, value) in &command.assignments {
        let _ = write!(text, "{name}={} ", show_word(value));
    }
    for word in &command.words {
        let _ = write!(text, "{} ", show_word(word));
    }
    for redirection in &command.redirections {
        let to = match &redirection.to {
            Target::Read(word) => format!("<{}", show_word(word)),
            Target::Write(word) => format!(">{}", show_word(word)),
            Target::Append(word) => format!(">>{}", show_word(word)),
            Target::Stream(stream) => format!(">&{stream:?}"),
        };
        let _ = write!(text, "{:?}{to} ", redirection.stream);
    }
    text.trim_end().to_owned()
}

fn show_pipeline(pipeline: &Pipeline) -> String {
    let commands: Vec<String> = pipeline.commands.iter().map(show_command).collect();
    format!("{}{}", if pipeline.negated { "! " } else { "" }, commands.join(" | "))
}

#[track_caller]
fn check(source: &str, expect: Expect) {
    let mut text = String::new();
    match parse(source) {
        Ok(list) => {
            for item in list.items {
                text.push_str(&show_pipeline(&item.chain.first));
                for (connector, pipeline) in &item.chain.rest {
                    let _ = write!(text, " {connector:?} {}", show_pipeline(pipeline));
                }
                text.push_str(if item.background { " &\n" } else { "\n" });
            }
        }
        Err(error) => {
            text = error.show(source);
            if error.incomplete {
                text.push_str("(incomplete)\n");
            }
        }
    }
    expect.assert_eq(&text);
}

#[test]
fn words_and_quotes() {
    check(
        r#"generate --model starter "Once upon" 'a $time' b\ c d"e"'f' "" "#,
        expect![[r#"
            [generate] [--model] [starter] [Once upon] [a $time] [b c] [def] []
        "#]],
    );
    check(
        r#"a "x\"y\\z\n" '\' \$x $x "${x}y" $ "$" a$? $$"#,
        expect![[r#"
            [a] [x"y\z\n] [\] [$x] [$x] [$xy] [$] [$] [a$?] [$$]
        "#]],
    );
    check(
        "a $10 ${10} ${1}0 ${?}",
        expect![[r#"
            [a] [$10] [$10] [$10] [$?]
        "#]],
    );
}

#[test]
fn pipelines_chains_and_lists() {
    check(
        "summariser article.txt | translator --to de",
        expect![[r#"
            [summariser] [article.txt] | [translator] [--to] [de]
        "#]],
    );
    check(
        "a && b || ! c|d; e & f\n\n;g &",
        expect![[r#"
            [a] And [b] Or ! [c] | [d]
            [e] &
            [f]
            [g] &
        "#]],
    );
    check(
        "a |\n b &&\n\n c # comment | x\nd#e",
        expect![[r#"
            [a] | [b] And [c]
            [d#e]
        "#]],
    );
    check("", expect![""]);
    check(" # only a comment", expect![""]);
}

#[test]
fn redirections() {
    check(
        "a <in >out 2>>err b 2>&1 >&2 2x 2>'o ut'",
        expect![[r#"
            [a] [b] [2x] Input<[in] Output>[out] Error>>[err] Error>&Output Output>&Error Error>[o ut]
        "#]],
    );
    for source in ["a 3> b", "a 9<b", "a >&3", "a 2>&12", "a >&1b"] {
        assert!(parse(source).is_err_and(|error| !error.incomplete), "{source}");
    }
    check(
        "> empty",
        expect![[r#"
            Output>[empty]
        "#]],
    );
}

#[test]
fn assignments() {
    check(
        "A=1 B='x y'$z C= cmd D=2 --e=f",
        expect![[r#"
            A=[1] B=[x y$z] C=[] [cmd] [D=2] [--e=f]
        "#]],
    );
    check(
        "1A=x 'B'=y",
        expect![[r#"
            [1A=x] [B=y]
        "#]],
    );
}

#[test]
fn line_continued_by_a_backslash() {
    check(
        "a \\\n  b\\\nc",
        expect![[r#"
            [a] [bc]
        "#]],
    );
}

#[test]
fn errors_point_at_their_place() {
    check(
        "ps | | grep",
        expect![[r#"
            expected a command before `|`
              ps | | grep
                   ^
        "#]],
    );
    check(
        "a\nb 世界 > ; c",
        expect![[r#"
            expected a file's name after `>`
              b 世界 > ; c
                     ^
        "#]],
    );
    check(
        "a; && b",
        expect![[r#"
            expected a command before `&&`
              a; && b
                 ^
        "#]],
    );
    check(
        "echo $(ps)",
        expect![[r#"
            llmsh does not put a command's output into a line; use a pipe, or sh, where `llmasos NAME` runs each builtin
              echo $(ps)
                   ^
        "#]],
    );
    check(
        "(a)",
        expect![[r#"
            llmsh has no ( ); quote it, or use sh, where `llmasos NAME` runs each builtin
              (a)
              ^
        "#]],
    );
    check(
        "if true",
        expect![[r#"
            llmsh has no `if`; chain with && and ||, or use sh, where `llmasos NAME` runs each builtin
              if true
              ^
        "#]],
    );
    check(
        "cat << END",
        expect![[r#"
            llmsh has no <<; put the text into a file, or pipe it in
              cat << END
                  ^
        "#]],
    );
    check(
        "a ${x-y}",
        expect![[r#"
            expected a variable's name between `${` and `}`
              a ${x-y}
                ^
        "#]],
    );
}

#[test]
fn lines_that_go_on_say_so() {
    for source in ["a 'b", "a \"b $c", "a |", "a &&\n", "a || ", "a \\", "a ${x"] {
        let error = parse(source).expect_err("the line is not complete");
        assert!(error.incomplete, "{source:?}: {error}");
    }
    for source in ["a |;|", "a >", "| a"] {
        let error = parse(source).expect_err("the line is wrong");
        assert!(!error.incomplete, "{source:?}: {error}");
    }
}
