//! How data become batches, from files to rows.
#![allow(clippy::unwrap_used)]

mod files;
mod labels;
mod named;
mod questions;
mod rows;
mod tokens;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::token::{Family, Kind, Tokeniser, train, usual};

/// Tokens of rows that questions are asked in.
const LENGTH: usize = 24;

fn search(folder: &Path) -> Search {
    Search {
        folders: vec![folder.to_owned()],
        cache: folder.join("cache"),
        mirror: "http://127.0.0.1:9".into(),
    }
}

pub(crate) fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    path
}

fn bytes(family: Family) -> Tokeniser {
    let special: Vec<String> = usual(family).iter().map(|token| (*token).to_owned()).collect();
    train(Kind::Byte, &special, std::iter::empty::<Result<String, DataError>>()).unwrap()
}

fn prepared(source: &Source, folder: &Path, tokeniser: &Tokeniser) -> Result<Arc<TokenFile>, DataError> {
    let files = source.files(Split::Train, &search(folder))?;
    prepare(source, &files, tokeniser, &Reading::of(LENGTH), &folder.join("cache"))
}

fn refusal(source: &Source, folder: &Path) -> String {
    prepared(source, folder, &bytes(Family::Encoder)).unwrap_err().to_string()
}

fn texts(file: &TokenFile, tokeniser: &Tokeniser) -> Vec<String> {
    let text = |number| {
        let mut tokens = Vec::new();
        file.read(file.record(number), &mut tokens);
        tokeniser.decode(&tokens).unwrap()
    };
    (0..file.records()).map(text).collect()
}

pub(crate) fn collator(folder: &Path, source: &Source, task: Task, family: Family) -> Collator {
    let tokeniser = bytes(family);
    let file = prepared(source, folder, &tokeniser).unwrap();
    Collator::new(Examples::new(file, task, Order::Sequential, 5).unwrap(), &tokeniser).unwrap()
}
