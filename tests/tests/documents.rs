//! What the documents name is there: files, folders and tests.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use harness::workspace;

/// Each document, with the folders beside the project's own that paths in it begin in.
const DOCUMENTS: [(&str, &[&str]); 6] = [
    ("README.md", &[]),
    ("kernel/README.md", &["kernel", "kernel/src", "apps/src"]),
    ("kernel/OPERATING.md", &[]),
    ("kernel/SECURITY.md", &[]),
    (
        "drivers/README.md",
        &["drivers", "drivers/train", "drivers/train/src", "drivers/src/bin/llmasos-driver"],
    ),
    ("syscalls/python/README.md", &[]),
];

/// The folders of the crates.
const CRATES: [&str; 5] = ["apps", "drivers", "kernel", "syscalls", "tests"];

/// What a document has between backquotes.
fn code(document: &str) -> impl Iterator<Item = &str> {
    document.split('`').skip(1).step_by(2)
}

fn is_path(code: &str) -> bool {
    let plain = code.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c));
    let source = [".rs", ".py", ".ron", ".llmsh"].iter().any(|end| code.ends_with(end));
    let below_a_crate = CRATES.iter().any(|folder| code.split('/').next() == Some(*folder));
    plain
        && code.contains('/')
        && !code.starts_with('/')
        && !code.contains("NAME")
        && (source || below_a_crate)
}

/// Whether it is a sentence as tests have it for a name, and none of the metrics, which are as long.
fn is_test(code: &str) -> bool {
    let plain = code.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    plain && code.matches('_').count() > 3 && !code.starts_with("llmasos_")
}

/// All sources below a folder, one after another.
fn sources(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn documents_name_paths_and_tests_that_exist() {
    let mut all = String::new();
    CRATES.iter().for_each(|folder| sources(&workspace().join(folder), &mut all));
    let (mut seen, mut missing) = (0, Vec::new());
    for (document, folders) in DOCUMENTS {
        let text = fs::read_to_string(workspace().join(document)).unwrap();
        for code in code(&text) {
            let there = if is_path(code) {
                let mut places = folders.iter().map(|folder| workspace().join(folder).join(code));
                workspace().join(code).exists() || places.any(|place| place.exists())
            } else if is_test(code) {
                all.contains(&format!("fn {code}("))
            } else {
                continue;
            };
            seen += 1;
            if !there {
                missing.push(format!("{document}: {code}"));
            }
        }
    }
    assert!(seen > 200, "{seen} names were looked at");
    assert!(missing.is_empty(), "{missing:#?}");
}
