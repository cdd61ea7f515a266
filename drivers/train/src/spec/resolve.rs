//! Makes a specification independent of where it is read: names of data sets become folders, and paths absolute.

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
        Ok(self)
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
