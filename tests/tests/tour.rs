//! The tour in the README is real: each of its commands is run on the starter model, and prints what stands there.
//!
//! Generated text is not compared: in the last bits of a float, and so where two tokens are nearly as likely,
//! processors differ.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Stdio;

use harness::{Daemon, workspace};

const PROMPT: &str = "llmsh> ";

/// The commands of the tour with the lines that they print.
fn tour() -> Vec<(String, String)> {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let (_, block) = readme.split_once("```console\n").expect("the README has a tour");
    let (block, _) = block.split_once("```").unwrap();
    let commands = block.split(PROMPT).filter(|c| !c.is_empty());
    commands.map(|c| c.split_once('\n').map(|(c, out)| (c.to_owned(), out.to_owned())).unwrap()).collect()
}

#[test]
fn tour_prints_what_the_readme_says() {
    let daemon = Daemon::start();
    daemon.mount(&workspace().join("drivers/starter/starter.gguf"), "starter");
    let commands = tour();
    assert!(commands.len() > 3, "{commands:?}");
    for (line, expected) in commands {
        let mut shell = daemon.command("llmsh");
        shell.current_dir(workspace()).args(["-c", &format!("{line} 2>&1")]).stdin(Stdio::null());
        let output = shell.output().unwrap();
        let shown = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
        if line.starts_with("generate ") {
            assert!(output.status.success() && !shown.trim().is_empty(), "{line}: {shown}");
        } else {
            assert_eq!(shown, expected, "{line}");
        }
    }
}
