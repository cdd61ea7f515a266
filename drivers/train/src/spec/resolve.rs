//! Makes a specification independent of where it is read: names of data sets become folders, and paths absolute.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{ModelSpec, TokeniserKind, TrainSpec, ValidationSpec};
use crate::data::{DataError, Search, Source, find};

impl TrainSpec {
    /// The same run, for whoever reads it in another folder, or has another cache. Data sets that are not here are
    /// fetched.
    ///
    /// # Errors
    ///
    /// A data set that is nowhere.
    pub fn resolved(mut self, here: &Path, search: &Search) -> Result<TrainSpec, DataError> {
        let absolute = |path: &mut PathBuf| *path = here.join(&*path);
        absolute(&mut self.out);
        if let ModelSpec::Pretrained(folder) = &mut self.model {
            absolute(folder);
        }
        if let TokeniserKind::Load(path) = &mut self.tokeniser.kind {
            absolute(path);
        }
        resolve(&mut self.data.train, here, search)?;
        if let ValidationSpec::From(source) = &mut self.data.validation {
            resolve(source, here, search)?;
        }
        self.links = self.linked();
        Ok(self)
    }

    /// What links in the folders that it names lead to.
    fn linked(&self) -> Vec<PathBuf> {
        /// Data sets lie in a folder, or in those below it.
        const DEPTH: u32 = 1;
        let mut found = BTreeSet::new();
        let mut look = |folder: &Path| targets(folder, DEPTH, &mut found);
        if let ModelSpec::Pretrained(folder) = &self.model {
            look(folder);
        }
        if let TokeniserKind::Load(folder) = &self.tokeniser.kind {
            look(folder);
        }
        let validation =
            if let ValidationSpec::From(source) = &self.data.validation { Some(source) } else { None };
        for source in [Some(&self.data.train), validation].into_iter().flatten() {
            if let Source::Dataset { name, .. } = source {
                look(Path::new(name));
            }
        }
        found.into_iter().collect()
    }
}

/// Adds what links in a folder, and in those so far below it, lead to. What cannot be looked at cannot be read either.
fn targets(folder: &Path, depth: u32, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_symlink()
            && let Ok(target) = path.canonicalize()
            && target.to_str().is_some()
        {
            found.insert(target);
        }
        if depth > 0 && path.is_dir() {
            targets(&path, depth - 1, found);
        }
    }
}

fn resolve(source: &mut Source, here: &Path, search: &Search) -> Result<(), DataError> {
    let absolute = |path: &mut PathBuf| *path = here.join(&*path);
    match source {
        Source::Text(files) | Source::Jsonl { files, .. } => files.iter_mut().for_each(absolute),
        Source::Dataset { name, .. } => {
            *name = here.join(find(name, search)?).to_string_lossy().into_owned();
        }
        Source::Parallel { source, target } => [source, target].into_iter().for_each(absolute),
        Source::Pairs { file, .. }
        | Source::Labelled { file, .. }
        | Source::Questions { file, .. }
        | Source::Tagged { file, .. } => absolute(file),
    }
    Ok(())
}
